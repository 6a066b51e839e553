"""What a database URL means, and that no error ever shows a part of a password."""

from __future__ import annotations

import traceback
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tafe.db.tls import TLS
from tafe.db.url import MySQLTarget, SQLiteTarget, parse
from tafe.errors import UsageError


def test_every_part_of_a_mysql_url_is_used_and_percent_decoded() -> None:
    options = "charset=latin1&unix_socket=%2Frun%2Fm.sock&reader=stock"
    target = parse(f"mysql://an%40na:s3c%2Fr%3At%23@db.example:3307/shop%2F1?{options}")
    assert target == MySQLTarget(
        host="db.example",
        port=3307,
        user="an@na",
        password="s3c/r:t#",
        database="shop/1",
        charset="latin1",
        unix_socket="/run/m.sock",
        reader="stock",
        tls=TLS("off"),
    )


def test_what_a_mysql_url_leaves_out_has_a_default() -> None:
    target = parse("mysql://ana@[::1]")
    assert target == MySQLTarget("::1", 3306, "ana", "", "", "utf8mb4", "", "auto", TLS())


def test_three_slashes_are_a_relative_file_and_four_an_absolute_one() -> None:
    assert parse("sqlite:///users.db") == SQLiteTarget("users.db", "rwc")
    assert parse("sqlite:////var/lib/users%3F.db?mode=ro") == SQLiteTarget("/var/lib/users?.db", "ro")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("users.db", "no '://'"),
        ("postgres://ana:hidden@h/d", "unknown kind of database 'postgres'"),
        ("ana:hidden://h/d", "unknown kind of database\n"),
        ("mysql://ana:hid/den@h/d", "'@' or '#' behind its host part"),
        ("mysql://ana:hid#den@h/d", "'@' or '#' behind its host part"),
        ("mysql://ana:123?hidden@h/d", "'@' or '#' behind its host part"),
        ("mysql://ana:hidden@h:port/d", "port is not a number"),
        ("mysql://ana:hidden@h:0/d", "port is not a number"),
        ("mysql://ana:hidden@h:65536/d", "port is not a number"),
        ("mysql://ana:hidden", "port is not a number"),
        ("mysql://ana:hidden@/d", "names no host"),
        ("mysql://ana:hidden@[::1/d", "a bracket too many or too few"),
        ("mysql://ana:hidden@::1]:3306/d", "a bracket too many or too few"),
        ("mysql://h/d", "names no user"),
        ("mysql://ana:hidden@h/d?pool_size=3", "parameter 'pool_size' is unknown"),
        ("mysql://ana:hidden@h/d?charset=", "parameter 'charset' is unknown, empty or repeated"),
        ("mysql://ana:hidden@h/d?charset=ascii&charset=ascii", "repeated"),
        ("mysql://ana:hidden@h/d?charset=gbk", "charset 'gbk' cannot be used"),
        ("mysql://ana:hidden%FF@h/d", "not UTF-8"),
        ("sqlite://users.db", "names no file"),
        ("sqlite://", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite:///:memory:", "in-memory database cannot be pooled"),
        ("sqlite:///a.db?mode=w", "mode 'w' is unknown"),
        ("sqlite:///a.db?timeout=3", "parameter 'timeout' is unknown"),
        ("sqlite:///a%00.db", "zero byte"),
        ("mysql://ana:hidden@h/d\n", "line break"),
        ("mysql://ana:hid\x00den@h/d", "line break or another character that is not shown"),
    ],
)
def test_a_url_that_cannot_be_used_says_what_is_wrong_and_what_is_allowed(url: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(url)
    text = f"{caught.value}\n"
    assert said in text
    assert "allowed:" in text
    assert "Database.from_url" in text
    assert "hid" not in text
    assert "den" not in text.replace("denied", "").replace("identity", "")


@pytest.mark.parametrize("url", [None, b"mysql://ana:hidden@h/d"])
def test_what_is_no_text_is_named_by_its_type(url: Any) -> None:
    with pytest.raises(UsageError, match=f"URL is of type {type(url).__name__}") as caught:
        parse(url)
    assert "hidden" not in str(caught.value)


# Letters that are in no error text of ours, with every sign that ends a part of a URL.
_passwords = st.text(alphabet="ζξψ0123456789/?#@:%&=[] ", min_size=8).filter(lambda text: any(c in "ζξψ" for c in text))


@given(
    _passwords, st.sampled_from(["h", "h:3306", "h:x", "[::1]", ""]), st.sampled_from(["", "/d", "/d?charset=x", "#"])
)
def test_no_error_and_no_repr_shows_a_part_of_a_password(password: str, place: str, rest: str) -> None:
    try:
        shown = repr(parse(f"mysql://ana:{password}@{place}{rest}"))
    except UsageError as error:
        shown = "".join(traceback.format_exception(error))
    assert not set("ζξψ") & set(shown)


def test_the_shown_form_and_the_repr_have_neither_user_nor_password() -> None:
    target = parse("mysql://ana:hidden@h/shop")
    assert target.shown == "mysql://h:3306/shop"
    assert "ana" not in repr(target)
    assert "hidden" not in repr(target)
