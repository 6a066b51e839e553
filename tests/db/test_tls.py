"""TLS between us and a real MariaDB, with authorities of our own; what a URL may ask for; what never goes in clear."""

from __future__ import annotations

import getpass
import subprocess
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import gevent.ssl
import pytest

from tafe.db import tls
from tafe.db.url import MySQLTarget, parse
from tafe.errors import DatabaseUnavailable, QueryTimeout, UsageError
from tests.db.fake_server import FakeServer, done
from tests.services.mariadb import MariaDB
from tests.services.requirements import program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tafe.db import Database


def openssl(*arguments: object) -> None:
    subprocess.run([program("openssl"), *map(str, arguments)], capture_output=True, check=True)


def make_authority(folder: Path, name: str) -> None:
    subject = ["-subj", f"/CN={name}", "-days", "2", "-addext", "keyUsage=critical,keyCertSign"]
    key, certificate = folder / f"{name}.key", folder / f"{name}.pem"
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject, "-keyout", key, "-out", certificate)


def make_certificate(folder: Path, name: str, authority: str, *, names: str = "", passphrase: str = "") -> None:
    key, request, extra = (folder / f"{name}.{kind}" for kind in ("key", "csr", "ext"))
    lock = ["-passout", f"pass:{passphrase}"] if passphrase else ["-nodes"]
    openssl("req", "-newkey", "rsa:2048", *lock, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
    extra.write_text(f"subjectAltName={names}\n" if names else "basicConstraints=CA:FALSE\n")
    signed_by = ["-CA", folder / f"{authority}.pem", "-CAkey", folder / f"{authority}.key", "-CAcreateserial"]
    openssl("x509", "-req", "-in", request, *signed_by, "-days", "2", "-extfile", extra, "-out", folder / f"{name}.pem")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    make_authority(folder, "ours")
    make_authority(folder, "strangers")
    make_certificate(folder, "server", "ours", names="IP:127.0.0.1,DNS:db.example")
    make_certificate(folder, "client", "ours")
    make_certificate(folder, "locked", "ours", passphrase="open sesame")
    return folder


@pytest.fixture(scope="module")
def server(keys: Path, servers_dir: Path) -> Iterator[MariaDB]:
    """A MariaDB that offers TLS, with a user of whom it demands a certificate, and one of whom it asks the kernel."""
    files = [f"--ssl-ca={keys / 'ours.pem'}", f"--ssl-cert={keys / 'server.pem'}", f"--ssl-key={keys / 'server.key'}"]
    folder = servers_dir / "tls"
    folder.mkdir()
    made = MariaDB(folder, servers_dir / "mariadb-template", options=files)
    made.start()
    made.create_database("shop")
    made.query("CREATE USER shown IDENTIFIED BY 'hidden' REQUIRE X509")
    made.query(f"CREATE OR REPLACE USER '{getpass.getuser()}'@localhost IDENTIFIED VIA unix_socket")
    yield made
    made.remove()


@pytest.fixture(autouse=True)
def patched(monkeypatch: pytest.MonkeyPatch, cooperative: None) -> Iterator[None]:
    """Contexts that wait on the hub, as in a worker."""
    monkeypatch.setattr(tls, "ssl", gevent.ssl)
    tls.unverified.cache_clear()
    yield
    tls.unverified.cache_clear()


def url(server: MariaDB, *options: str, **files: Path) -> str:
    given = [*options, *(f"{name}={quote(str(path), safe='')}" for name, path in files.items())]
    return f"{server.url('shop')}?{'&'.join(given)}" if given else server.url("shop")


def cipher(database: Database) -> Any:
    (row,) = database.fetch_all("SHOW SESSION STATUS LIKE 'Ssl_cipher'")
    return row["Value"]


def refusal(database: Database) -> str:
    with pytest.raises(DatabaseUnavailable) as caught:
        database.open()
    return str(caught.value)


@pytest.mark.parametrize("options", [[], ["tls=preferred"], ["tls=required"], ["ssl_verify_cert=false"]])
def test_a_server_that_offers_tls_gets_it(
    server: MariaDB, connect: Callable[..., Database], options: list[str]
) -> None:
    assert cipher(connect(url(server, *options)))


def test_tls_can_be_turned_off(server: MariaDB, connect: Callable[..., Database]) -> None:
    assert cipher(connect(url(server, "tls=off"))) == ""


@pytest.mark.parametrize("reader", ["fast", "stock"])
def test_a_server_with_a_certificate_of_our_authority_is_believed(
    server: MariaDB, keys: Path, connect: Callable[..., Database], reader: str
) -> None:
    database = connect(url(server, f"reader={reader}", ssl_ca=keys / "ours.pem"), read_timeout_s=5)
    assert cipher(database)
    rows = database.fetch_all("SELECT seq, REPEAT('x', 100) AS x FROM seq_1_to_20000")
    assert [row["seq"] for row in rows] == list(range(1, 20001))
    assert {row["x"] for row in rows} == {"x" * 100}


def test_a_server_with_a_certificate_of_another_authority_is_not(
    server: MariaDB, keys: Path, connect: Callable[..., Database]
) -> None:
    told = refusal(connect(url(server, ssl_ca=keys / "strangers.pem")))
    assert "the server's certificate is not accepted: " in told
    assert "the server's certificate is not accepted: " in refusal(connect(url(server, "ssl_verify_cert=true")))


def test_a_server_whose_certificate_names_another_host_is_not_unless_that_is_turned_off(
    server: MariaDB, keys: Path, connect: Callable[..., Database]
) -> None:
    strict = url(server, ssl_ca=keys / "ours.pem").replace("127.0.0.1", "localhost")
    told = refusal(connect(strict))
    assert "is not accepted: Hostname mismatch, certificate is not valid for 'localhost'" in told
    assert cipher(connect(f"{strict}&ssl_verify_identity=false"))


def test_a_certificate_of_ours_is_shown_to_the_server_that_demands_one(
    server: MariaDB, keys: Path, connect: Callable[..., Database]
) -> None:
    place = f"mysql://shown:hidden@127.0.0.1:{server.port}/?ssl_ca={quote(str(keys / 'ours.pem'), safe='')}"
    assert "access denied" in refusal(connect(place))
    shown = f"&ssl_cert={quote(str(keys / 'client.pem'), safe='')}&ssl_key={quote(str(keys / 'client.key'), safe='')}"
    assert cipher(connect(place + shown))
    locked = shown.replace("client", "locked")
    assert cipher(connect(f"{place}{locked}&ssl_key_password=open%20sesame"))
    for wrong in ("", "&ssl_key_password=hidden"):
        with pytest.raises(UsageError, match=r"ssl_cert '.*locked\.pem' with ssl_key '.*' cannot be used") as caught:
            connect(f"{place}{locked}{wrong}")
        assert "hidden" not in str(caught.value)


def test_a_statement_that_takes_too_long_is_ended_and_given_up_over_tls_as_well(
    server: MariaDB, keys: Path, connect: Callable[..., Database]
) -> None:
    database = connect(url(server, ssl_ca=keys / "ours.pem"), min_size=1, max_size=1, read_timeout_s=0.2)
    row = database.fetch_one("SELECT CONNECTION_ID() AS id")
    with pytest.raises(QueryTimeout, match="the server ended"):
        database.fetch_one("SELECT SLEEP(5)")
    assert database.fetch_one("SELECT CONNECTION_ID() AS id") == row
    database.execute("CREATE PROCEDURE busy() BEGIN FOR i IN 1..100 DO DO SLEEP(0.05); END FOR; END")
    with pytest.raises(QueryTimeout, match="no answer within timeout_s"):
        database.execute("CALL busy()", timeout_s=0.1)
    assert row is not None
    with gevent.Timeout(3):
        while server.query("SELECT 1 FROM information_schema.processlist WHERE id = %s", (row["id"],)):
            gevent.sleep(0.01)


def test_an_idle_connection_that_was_killed_is_noticed_over_tls(
    server: MariaDB, keys: Path, connect: Callable[..., Database]
) -> None:
    database = connect(url(server, ssl_ca=keys / "ours.pem"), min_size=1, max_size=1)
    for _ in range(3):
        row = database.fetch_one("SELECT CONNECTION_ID() AS id")
        assert row is not None
        server.query(f"KILL {row['id']}")
        gevent.sleep(0.05)
        assert database.execute("SET @a = 1").rowcount == 0
    assert database.stats.discarded == 3


def test_over_a_unix_socket_the_kernel_can_vouch_for_the_user(
    server: MariaDB, connect: Callable[..., Database]
) -> None:
    path = quote(str(server.directory / "mariadb.sock"), safe="")
    database = connect(f"mysql://{getpass.getuser()}@localhost/?unix_socket={path}")
    assert cipher(database) == ""
    assert database.fetch_one("SELECT CURRENT_USER() AS who") == {"who": f"{getpass.getuser()}@localhost"}


# What never goes in clear


@pytest.fixture
def plain() -> Iterator[FakeServer]:
    """A server without TLS."""
    made = FakeServer(lambda text: done())
    yield made
    made.close()


@pytest.mark.parametrize("option", ["tls=required", "ssl_verify_cert=true"])
def test_a_server_without_tls_is_told_neither_user_nor_password_where_tls_is_required(
    plain: FakeServer, connect: Callable[..., Database], option: str
) -> None:
    told = refusal(connect(f"{plain.url}?{option}"))
    assert told.endswith("the server does not offer TLS, which the URL asks for")
    gevent.sleep(0.02)
    assert plain.logins == [b""] * len(plain.logins)


@pytest.mark.parametrize("way", [b"mysql_clear_password", b"dialog"])
def test_a_server_that_asks_for_the_password_in_clear_text_does_not_get_it(
    plain: FakeServer, connect: Callable[..., Database], way: bytes
) -> None:
    plain.asks = way
    assert "asks for the password in clear text" in refusal(connect(plain.url, min_size=1))
    gevent.sleep(0.02)
    assert len(plain.logins) == 2
    assert b"hidden" not in b"".join(plain.logins)


# What a URL may ask for


def asked(options: str) -> tls.TLS:
    target = parse(f"mysql://ana:hidden@h/shop?{options}")
    assert isinstance(target, MySQLTarget)
    return target.tls


def test_files_to_believe_or_to_show_mean_that_tls_is_required_and_an_authority_that_all_is_verified() -> None:
    assert asked("charset=ascii") == tls.TLS("preferred")
    assert asked("unix_socket=/s") == tls.TLS("off")
    assert asked("unix_socket=/s&tls=required") == tls.TLS("required")
    assert asked("ssl_ca=a") == tls.TLS("required", ca="a", verify_cert=True, verify_identity=True)
    assert asked("ssl_ca=a&ssl_verify_identity=0") == tls.TLS("required", ca="a", verify_cert=True)
    assert asked("ssl_verify_identity=True") == tls.TLS("required", verify_cert=True, verify_identity=True)
    assert asked("ssl_cert=a&ssl_key=b") == tls.TLS("required", cert="a", key="b")
    assert "sesame" not in repr(asked("ssl_cert=a&ssl_key_password=sesame"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("tls=yes", "tls 'yes' is unknown"),
        ("tls=off&ssl_ca=a", "ssl_ca has no effect with tls=off"),
        ("tls=preferred&ssl_verify_cert=true", "ssl_verify_cert has no effect with tls=preferred"),
        ("ssl_ca=a&ssl_verify_cert=false", "ssl_ca has no effect with ssl_verify_cert=false"),
        ("ssl_verify_identity=1&ssl_verify_cert=0", "ssl_verify_identity has no effect with ssl_verify_cert=false"),
        ("ssl_key=a", "ssl_key without an ssl_cert"),
        ("ssl_verify_cert=hidden", "ssl_verify_cert is neither true nor false"),
    ],
)
def test_what_contradicts_itself_is_an_error(options: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        asked(options)
    assert said in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_an_error_when_the_application_is_loaded(
    tmp_path: Path, connect: Callable[..., Database]
) -> None:
    with pytest.raises(UsageError, match=r"ssl_ca '/no/such' cannot be used: no such file"):
        connect("mysql://ana:hidden@h/shop?ssl_ca=/no/such")
    (tmp_path / "ca.pem").write_text("not a certificate")
    with pytest.raises(UsageError, match=r"ssl_ca '.*ca\.pem' cannot be used: no certificate or crl found"):
        connect(f"mysql://ana:hidden@h/shop?ssl_ca={tmp_path}/ca.pem")
