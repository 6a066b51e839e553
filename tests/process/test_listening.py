"""Where a server listens: addresses that are taken, sockets that a parent process made, paths of unix sockets."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tafe import listeners
from tafe.errors import UsageError
from tests.process.client import UnixConnection, get, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.services.tafe_server import Running

ROOT = Path(__file__).resolve().parents[2]
APP = "tests.process.application:app"


def _refusal(address: str) -> str:
    with pytest.raises(UsageError) as caught:
        listeners.listen(address, 10, "--bind")
    return str(caught.value)


def test_a_busy_port_is_one_line_and_its_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert _refusal(f"127.0.0.1:{port}") == (
            f"--bind: cannot listen on 127.0.0.1:{port}: another program listens there\n"
            "  set by:   --bind\n"
            f"  try:      stop it, or --bind 127.0.0.1:{port + 1}"
        )


def test_an_address_that_is_not_ours_or_not_known_is_refused() -> None:
    assert "cannot listen on 192.0.2.1:80: " in _refusal("192.0.2.1:80")
    assert "cannot listen on no-such-host.invalid:80: " in _refusal("no-such-host.invalid:80")
    assert "cannot listen on fd:987: Bad file descriptor" in _refusal("fd:987")
    with socket.socket() as silent:
        assert "it does not listen" in _refusal(f"fd:{silent.fileno()}")


@pytest.mark.parametrize(("address", "shown"), [("127.0.0.1:0", "http://127.0.0.1:"), ("[::1]:0", "http://[::1]:")])
def test_both_families_listen_without_blocking_and_without_delay(address: str, shown: str) -> None:
    with listeners.listen(address, 10, "--bind") as listener:
        assert listeners.name(listener).startswith(shown)
        assert not listener.getblocking()
        with socket.create_connection(listener.getsockname()[:2]):
            until(lambda: _accepted_without_delay(listener), "accepted", 2)


def _accepted_without_delay(listener: socket.socket) -> bool:
    try:
        accepted, _ = listener.accept()
    except BlockingIOError:
        return False
    with accepted:
        return bool(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))


def test_the_path_of_a_dead_server_is_taken_over_and_of_a_living_one_is_not(servers_dir: Path) -> None:
    path = servers_dir / "left.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with listeners.listen(f"unix:{path}", 10, "--bind"):
        assert path.stat().st_mode & 0o777 == 0o666
        assert "another program listens there" in _refusal(f"unix:{path}")
        assert f"--bind unix:{path}.2" in _refusal(f"unix:{path}")
    listeners.unlink([f"unix:{path}", "127.0.0.1:1", f"unix:{path}.gone"])
    assert not path.exists()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    assert "a file that is no socket is there" in _refusal(f"unix:{path}")
    assert path.read_text() == "data"
    assert "No such file or directory" in _refusal(f"unix:{tmp_path}/no/dir")


@pytest.mark.parametrize("count", ["two", "-1", "", "\u0662"])
def test_a_number_of_sockets_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, count: str) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", count)
    with pytest.raises(UsageError, match=f"LISTEN_FDS: '{count}' is not a number of sockets"):
        listeners.from_systemd()
    assert "LISTEN_PID" not in os.environ


def test_a_descriptor_of_systemd_that_is_not_open_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setattr(listeners, "_SYSTEMD_FIRST_FD", 987)
    with pytest.raises(UsageError, match="LISTEN_FDS: cannot listen on descriptor 987: Bad file descriptor"):
        listeners.from_systemd()


def test_newcomers_are_refused_while_handshakes_under_way_and_open_connections_go_on() -> None:
    with listeners.listen("127.0.0.1:0", 10, "--bind") as listener:
        address = listener.getsockname()
        with socket.create_connection(address) as client, socket.socket() as newcomer:
            listeners.refuse_newcomers(listener)
            newcomer.settimeout(0.1)
            with pytest.raises(TimeoutError):
                newcomer.connect(address)
            client.sendall(b"sent")
            accepted, _ = listener.accept()
            with accepted:
                accepted.settimeout(1)
                assert accepted.recv(10) == b"sent"
                accepted.sendall(b"back")
                assert client.recv(10) == b"back"


# -- whole servers


@pytest.mark.real
def test_a_busy_port_ends_the_command_before_anything_is_forked(tafe_serve: Callable[..., Running]) -> None:
    running = tafe_serve(APP)
    second = tafe_serve(APP, port=running.port, wait_ready=False)
    assert second.wait() == 2
    assert second.log() == (
        f"tafe: --bind: cannot listen on 127.0.0.1:{running.port}: another program listens there\n"
        "  set by:   --bind\n"
        f"  try:      stop it, or --bind 127.0.0.1:{running.port + 1}\n"
    )
    assert get(running.port).status == 200


@pytest.mark.real
def test_the_first_line_says_what_is_started_and_the_line_of_readiness_where_it_is_served(
    tafe_serve: Callable[..., Running],
) -> None:
    running = tafe_serve(APP, "--workers", "1")
    line = running.log().splitlines()[0]
    assert f"starting {APP} at http://127.0.0.1:{running.port} with 1 worker, " in line
    assert line.endswith(f"profile in {running.profile_dir} (tafe report {running.profile_dir})")
    assert re.search(r" modules: tafe (compiled|interpreted \(.+\)), profiler ", running.log().splitlines()[1])
    running.wait_all_ready()
    last = running.log().splitlines()[-1]
    assert re.search(rf" ready after \d\.\d s: {APP} is served at http://127.0.0.1:{running.port}$", last)


@pytest.mark.real
def test_it_listens_on_several_addresses(tafe_serve: Callable[..., Running], servers_dir: Path) -> None:
    path = servers_dir / "both.sock"
    running = tafe_serve(APP, "--bind", f"unix:{path}")
    assert get(running.port).status == 200
    with closing(UnixConnection(str(path), timeout=5)) as connection:
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
    assert f"at http://127.0.0.1:{running.port} and unix:{path} with" in running.log()


# Becomes the server with the listener as descriptor 3, as systemd does it.
_AS_SYSTEMD = """
import os, sys
if os.dup2(int(sys.argv[1]), 3) and sys.argv[2] == "systemd":
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.executable, [sys.executable, "-m", "tafe", "serve", *sys.argv[3:]])
"""


@pytest.mark.real
@pytest.mark.parametrize(("how", "options"), [("fd", ["--bind", "fd:3"]), ("systemd", [])])
def test_an_inherited_socket_serves_one_server_after_the_other(how: str, options: list[str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        number = listener.fileno()
        command = [sys.executable, "-c", _AS_SYSTEMD, str(number), how, APP, "--run-dir", str(tmp_path), *options]
        for _ in range(2):
            with subprocess.Popen(command, pass_fds=[number], cwd=ROOT, stderr=subprocess.DEVNULL) as process:
                try:
                    # the connection waits in the queue until a worker accepts it
                    assert get(listener.getsockname()[1]).status == 200
                    process.send_signal(signal.SIGTERM)
                    assert process.wait(10) == 0
                finally:
                    process.kill()


@pytest.mark.real
def test_systemd_is_told_of_readiness_and_of_the_stop(tafe_serve: Callable[..., Running], servers_dir: Path) -> None:
    path = servers_dir / "notify.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(path))
        supervisor.settimeout(10)
        running = tafe_serve(APP, env={"NOTIFY_SOCKET": str(path)})
        assert supervisor.recv(1000).startswith(b"READY=1\n")
        running.signal(signal.SIGTERM)
        assert supervisor.recv(1000) == b"STOPPING=1"
        assert running.wait() == 0


@pytest.mark.real
def test_systemd_is_told_when_the_application_is_loaded_and_not_before_nor_when_its_database_is_there(
    tafe_serve: Callable[..., Running], servers_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "lacking.py").write_text(
        "import os, time\nimport tafe\n"
        "while not os.path.exists('go'):\n    time.sleep(0.01)\n"
        "app, db = tafe.App(), tafe.Database.from_url('mysql://a:b@127.0.0.1:1/c')\n"
    )
    path = servers_dir / "loaded.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(path))
        env = {"NOTIFY_SOCKET": str(path), "PYTHONPATH": str(ROOT)}
        running = tafe_serve("lacking:app", cwd=tmp_path, env=env, wait_ready=False)
        supervisor.settimeout(0.5)  # much longer than a worker takes to be forked
        with pytest.raises(TimeoutError):
            supervisor.recv(1000)
        (tmp_path / "go").touch()
        supervisor.settimeout(10)
        assert supervisor.recv(1000).startswith(b"READY=1\n")
        assert not running.is_ready()


@pytest.mark.real
@pytest.mark.parametrize(("options", "scheme"), [([], "https"), (["--trusted-proxies", "10.0.0.1"], "http")])
def test_only_trusted_proxies_say_that_the_client_came_over_tls(
    tafe_serve: Callable[..., Running], options: list[str], scheme: str
) -> None:
    running = tafe_serve(APP, *options)
    assert get(running.port, "/scheme", {"X-Forwarded-Proto": "https"}).body == scheme
    assert get(running.port, "/scheme").body == "http"


@pytest.mark.real
def test_one_shared_listener_is_the_default(tafe_serve: Callable[..., Running]) -> None:
    running = tafe_serve(APP, "--workers", "2")
    inode = {_listening_inode(pid, running.port) for pid in running.worker_pids()}
    assert len(inode) == 1


def _listening_inode(pid: int, port: int) -> str:
    """The socket's number in the kernel, from proc_pid_net_tcp(5): state 0A is LISTEN, field 9 the inode."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
        for row in rows:
            if row[3] == "0A" and int(row[1].partition(":")[2], 16) == port and _holds(pid, row[9]):
                return row[9]
    raise AssertionError(f"process {pid} does not listen on {port}")


def _holds(pid: int, inode: str) -> bool:
    links = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(entry))
    return f"socket:[{inode}]" in links
