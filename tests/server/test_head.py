"""Parsing a request's head: what becomes of it in the environ, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from tafe.http1.head import CHUNKED, CLOSE, EXPECT, HTTP_1_0, KEEP_ALIVE, LENGTH, HeadParser
from tafe.http1.refusal import Refusal
from tafe.limits import Limits

LIMITS = Limits()


PARSER = HeadParser({}, LIMITS)


def parse(*lines: str, limits: Limits = LIMITS) -> tuple[dict[str, Any], int]:
    parser = PARSER if limits is LIMITS else HeadParser({}, limits)
    environ, asked = parser.parse("\r\n".join(lines).encode("latin-1"))
    for filled_in_later in ("REMOTE_ADDR", "REMOTE_PORT", "tafe.request_id", "tafe.client_gone"):
        assert environ.pop(filled_in_later) == ""
    return environ, asked


def refused(*lines: str, limits: Limits = LIMITS) -> tuple[int, str]:
    with pytest.raises(Refusal) as caught:
        parse(*lines, limits=limits)
    return caught.value.status, caught.value.message


def test_a_head_becomes_an_environ_as_pep_3333_names_it() -> None:
    environ, asked = parse(
        "POST /a%20b/c?x=1&y=%41 HTTP/1.1",
        "Host: example.com:8080",
        "X-Real-IP:\t10.0.0.1 ",
        "Content-Type: text/plain",
        "Content-Length: 5",
    )
    assert environ == {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a b/c",
        "QUERY_STRING": "x=1&y=%41",
        "RAW_URI": "/a%20b/c?x=1&y=%41",
        "REQUEST_URI": "/a%20b/c?x=1&y=%41",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "example.com:8080",
        "HTTP_X_REAL_IP": "10.0.0.1",
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "5",
    }
    assert asked & LENGTH


def test_bytes_outside_ascii_in_a_path_are_latin_1_as_pep_3333_says() -> None:
    assert parse("GET /caf%C3%A9 HTTP/1.1", "Host: a")[0]["PATH_INFO"] == "/cafÃ©"


def test_the_same_head_twice_gives_the_same_and_independent_environs() -> None:
    first, _ = parse("GET /same HTTP/1.1", "Host: a", "X-A: 1")
    first["PATH_INFO"] = "changed"
    second, _ = parse("GET /same HTTP/1.1", "Host: a", "X-A: 1")
    assert second["PATH_INFO"] == "/same"


def test_repeated_fields_are_joined_cookies_with_a_semicolon() -> None:
    environ, _ = parse("GET / HTTP/1.1", "Host: a", "Accept: x", "Accept: y", "Cookie: a=1", "Cookie: b=2")
    assert environ["HTTP_ACCEPT"] == "x,y"
    assert environ["HTTP_COOKIE"] == "a=1; b=2"


def test_a_name_with_an_underscore_never_speaks_for_one_with_a_dash() -> None:
    environ, _ = parse("GET / HTTP/1.1", "Host: a", "X-Forwarded-For: 1.1.1.1", "X_Forwarded_For: 6.6.6.6")
    assert environ["HTTP_X_FORWARDED_FOR"] == "1.1.1.1"
    environ, asked = parse("GET / HTTP/1.1", "Host: a", "Content_Length: 5", "Transfer_Encoding: chunked")
    assert "CONTENT_LENGTH" not in environ
    assert not asked & (LENGTH | CHUNKED)


def test_connection_is_read_as_a_list_in_any_case() -> None:
    assert parse("GET / HTTP/1.1", "Host: a", "Connection: foo, Close")[1] & CLOSE
    assert parse("GET / HTTP/1.0", "Connection: Keep-Alive")[1] & (KEEP_ALIVE | HTTP_1_0) == KEEP_ALIVE | HTTP_1_0
    assert not parse("GET / HTTP/1.1", "Host: a", "Connection: closed")[1] & CLOSE


def test_absolute_form_overrides_host() -> None:
    environ, _ = parse("GET http://right.example/path?q HTTP/1.1", "Host: wrong.example")
    assert (environ["HTTP_HOST"], environ["PATH_INFO"], environ["QUERY_STRING"]) == ("right.example", "/path", "q")
    environ, _ = parse("GET http://right.example?q HTTP/1.1", "Host: wrong.example")
    assert (environ["PATH_INFO"], environ["QUERY_STRING"]) == ("/", "q")


def test_expect_continue_is_noticed() -> None:
    assert parse("POST / HTTP/1.1", "Host: a", "Content-Length: 1", "Expect: 100-Continue")[1] & EXPECT


@pytest.mark.parametrize(
    ("status", "lines"),
    [
        (400, ["GET  / HTTP/1.1", "Host: a"]),
        (400, ["GET / HTTP/1.1 ", "Host: a"]),
        (400, [" GET / HTTP/1.1", "Host: a"]),
        (400, ["GET /\t HTTP/1.1", "Host: a"]),
        (400, ["G\x00T / HTTP/1.1", "Host: a"]),
        (400, ["G@T / HTTP/1.1", "Host: a"]),
        (400, ["GET /\x7f HTTP/1.1", "Host: a"]),
        (400, ["GET /\xe9 HTTP/1.1", "Host: a"]),
        (400, ["GET /"]),
        (400, ["GET / http/1.1", "Host: a"]),
        (400, ["GET / RTSP/1.0", "Host: a"]),
        (400, ["GET /a#b HTTP/1.1", "Host: a"]),
        (400, ["GET /%00 HTTP/1.1", "Host: a"]),
        (400, ["GET /%zz HTTP/1.1", "Host: a"]),
        (400, ["GET * HTTP/1.1", "Host: a"]),
        (400, ["GET nonsense HTTP/1.1", "Host: a"]),
        (400, ["GET http:///path HTTP/1.1", "Host: a"]),
        (400, ["GET http://user@host/ HTTP/1.1", "Host: a"]),
        (400, ["GET http://host/ HTTP/1.1"]),
        (501, ["CONNECT a:443 HTTP/1.1", "Host: a"]),
        (505, ["GET / HTTP/2.0", "Host: a"]),
        (505, ["GET / HTTP/0.9", "Host: a"]),
        (505, ["GET / HTTP/1.2", "Host: a"]),
        (505, ["GET / HTTP/11", "Host: a"]),
        (400, ["GET / HTTP/1.1"]),
        (400, ["GET / HTTP/1.1", "Host: a", "Host: a"]),
        (400, ["GET / HTTP/1.1", "Host: a b"]),
        (400, ["GET / HTTP/1.1", "Host: a/b"]),
        (400, ["GET / HTTP/1.1", "Host:"]),
        (400, ["GET / HTTP/1.1", "Host: a:99999"]),
        (400, ["GET / HTTP/1.1", "Host: a", "X-A: 1\n folded"]),
        (400, ["GET / HTTP/1.1", "Host: a", "X-A: 1", " folded"]),
        (400, ["GET / HTTP/1.1", "Host: a", "X-A : 1"]),
        (400, ["GET / HTTP/1.1", "Host: a", ": 1"]),
        (400, ["GET / HTTP/1.1", "Host: a", "X-A"]),
        (400, ["GET / HTTP/1.1", "Host: a", "X(A: 1"]),
        (400, ["GET / HTTP/1.1", "Host: a", "X-A: \x00"]),
        (400, ["GET / HTTP/1.1", "Host: a", "X-A: a\rb"]),
        (400, ["POST / HTTP/1.1", "Host: a", "Content-Length: 5", "Content-Length: 5"]),
        (400, ["POST / HTTP/1.1", "Host: a", "Content-Length: +5"]),
        (400, ["POST / HTTP/1.1", "Host: a", "Content-Length: 5_0"]),
        (400, ["POST / HTTP/1.1", "Host: a", "Content-Length: 5, 5"]),
        (400, ["POST / HTTP/1.1", "Host: a", "Content-Length:"]),
        (413, ["POST / HTTP/1.1", "Host: a", "Content-Length: 99999999999999999999"]),
        (400, ["POST / HTTP/1.1", "Host: a", "Content-Length: 00000000000000000009"]),
        (501, ["M" * 33 + " / HTTP/1.1", "Host: a"]),
        (400, ["POST / HTTP/1.1", "Host: a", "Content-Length: 5", "Transfer-Encoding: chunked"]),
        (400, ["POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"]),
        (400, ["POST / HTTP/1.1", "Host: a", "Transfer-Encoding: xchunked"]),
        (400, ["POST / HTTP/1.1", "Host: a", "Transfer-Encoding: identity"]),
        (400, ["POST / HTTP/1.0", "Transfer-Encoding: chunked"]),
        (501, ["POST / HTTP/1.1", "Host: a", "Transfer-Encoding: gzip, chunked"]),
        (417, ["POST / HTTP/1.1", "Host: a", "Expect: everything"]),
    ],
)
def test_a_head_that_a_proxy_could_read_otherwise_is_refused(status: int, lines: list[str]) -> None:
    first = refused(*lines)
    assert first[0] == status
    assert refused(*lines) == first, "a remembered line is judged differently"


def test_limits_on_lines_and_their_number_are_kept() -> None:
    small = Limits(request_line_bytes=20, header_field_bytes=12, header_count=2)
    assert refused("GET /12345678901 HTTP/1.1", "Host: a", limits=small)[0] == 414
    assert refused("GET / HTTP/1.1", "Host: a", "X-Long: 123456789", limits=small)[0] == 431
    assert refused("GET / HTTP/1.1", "Host: a", "A: 1", "B: 2", limits=small)[0] == 431
    parse("GET /12345 HTTP/1.1", "Host: a", "A: 1", limits=small)


def test_the_tables_of_remembered_lines_stay_bounded() -> None:
    for n in range(9000):
        parse(f"GET /{n} HTTP/1.1", "Host: a", f"X-{n}: {n}")
    for table in (PARSER._fields, PARSER._names, PARSER._targets):
        assert len(table) <= 4097


def test_secrets_are_not_remembered() -> None:
    parse("GET / HTTP/1.1", "Host: a", "Authorization: Bearer abc", "Cookie: session=abc")
    assert not any(b"abc" in line for line in PARSER._fields)
