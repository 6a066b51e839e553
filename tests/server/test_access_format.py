"""Lines of the access log: what they say, and that no client can make one say something else."""

from __future__ import annotations

import json
import re
import select
from typing import Any

import pytest

from tafe.access_format import Combined, Format, Json, client_of

# The bytes that the parser lets into a field's value, one way or the other; controls can come from an application only.
HOSTILE = [
    'x" 200 1 "-" "-',
    '","status":200,"a":"',
    "back\\slash\\",
    "\\",
    '"',
    "new\nline\r\n\x00\x1b[31m\x7f",
    "caf\xe9 \x85\xff",
    "\u2028\ud800",
]
COMBINED = re.compile(
    r'(\S+) - - \[([^\]"]+)\] ("(?:[^"\\]|\\.)*") (\d{3}) (\d+) ("(?:[^"\\]|\\.)*") ("(?:[^"\\]|\\.)*")\n'
)


def exchange(
    status: int = 200, body_bytes: int = 27, fault: str = "", remote_addr: str = "10.0.0.1", **more: str
) -> Any:
    environ = {
        "REQUEST_METHOD": "GET",
        "RAW_URI": "/users/17?token=secret",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "tafe.request_id": "5f0c-17",
        **more,
    }
    return {
        "environ": environ,
        "remote_addr": remote_addr,
        "status": status,
        "body_bytes": body_bytes,
        "took_s": 0.0012,
        "fault": fault,
    }


def line(format_: Format, one: dict[str, Any]) -> str:
    return format_.answered(format_.stamp(1_795_342_272_345), **one)


def fields(one: dict[str, Any], format_: Json | None = None) -> dict[str, Any]:
    text = line(format_ or Json(()), one)
    assert text.endswith("}\n")
    assert text.count("\n") == 1
    found = json.loads(text)
    assert isinstance(found, dict)
    return found


def columns(one: dict[str, Any], format_: Combined | None = None) -> tuple[str, ...]:
    match = COMBINED.fullmatch(line(format_ or Combined(()), one))
    assert match is not None
    return match.groups()


def test_a_line_of_json_holds_these_fields_in_this_order() -> None:
    one = exchange(HTTP_USER_AGENT="curl/8.5.0")
    assert line(Json(()), one) == (
        '{"time":"2026-11-22T10:11:12.345Z","remote_addr":"10.0.0.1","method":"GET","path":"/users/17","status":200,'
        '"bytes":27,"duration_ms":1.200,"request_id":"5f0c-17","user_agent":"curl/8.5.0"}\n'
    )


def test_a_combined_line_is_what_analysers_read() -> None:
    one = exchange(HTTP_USER_AGENT="curl/8.5.0", HTTP_REFERER="https://example.org/find?q=secret#top")
    assert line(Combined(()), one) == (
        '10.0.0.1 - - [22/Nov/2026:10:11:12 +0000] "GET /users/17 HTTP/1.1" 200 27 "https://example.org/find" '
        '"curl/8.5.0"\n'
    )


def test_what_is_unknown_is_null_or_a_dash() -> None:
    assert fields(exchange())["user_agent"] is None
    assert columns(exchange(remote_addr=""))[::6] == ("-", '"-"')


def test_who_got_nothing_has_the_status_499_and_a_fault_is_told() -> None:
    one = exchange(status=0, body_bytes=0, fault="the client left")
    assert (fields(one)["status"], fields(one)["fault"]) == (499, "the client left")
    assert columns(one)[3] == "499"
    assert "fault" not in fields(exchange())


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("key", ["REQUEST_METHOD", "RAW_URI", "HTTP_USER_AGENT", "HTTP_REFERER", "tafe.request_id"])
def test_a_text_from_outside_stays_in_its_field(key: str, hostile: str) -> None:
    one = exchange(**{key: hostile})
    for _ in range(2):  # the second time it is remembered
        found = fields(one)
        assert list(found) == list(fields(exchange()))
        name = {"REQUEST_METHOD": "method", "HTTP_USER_AGENT": "user_agent", "tafe.request_id": "request_id"}.get(key)
        if name:
            assert found[name] == hostile
        text = line(Combined(()), one)
        assert COMBINED.fullmatch(text)
        assert text.isascii()


@pytest.mark.parametrize("character", ["a", "\xff", '"', "\n"])
def test_no_line_is_longer_than_a_pipe_takes_whole(character: str) -> None:
    long = character * 100_000
    one = exchange(
        fault=long,
        remote_addr="fe80:1111:2222:3333:4444:5555:6666:7777%interface0",
        HTTP_X_FORWARDED_FOR=long,
        **dict.fromkeys(("REQUEST_METHOD", "RAW_URI", "HTTP_USER_AGENT", "HTTP_REFERER", "tafe.request_id"), long),
    )
    assert len(line(Json(()), one)) < select.PIPE_BUF
    assert fields(one)["user_agent"].endswith("...")
    assert len(line(Combined(()), one)) < select.PIPE_BUF
    columns(one)


def test_a_long_path_is_cut_no_shorter_than_it_must_be() -> None:
    assert fields(exchange(RAW_URI="/" + "a" * 2000))["path"] == "/" + "a" * 2000
    assert len(fields(exchange(RAW_URI="/" + "a" * 3000))["path"]) > 2000


def test_the_query_is_never_written() -> None:
    for text in (line(Json(()), exchange()), line(Combined(()), exchange())):
        assert "secret" not in text
        assert "/users/17" in text


def test_the_client_that_a_trusted_proxy_names_is_told_and_another_proxys_word_is_not() -> None:
    one = exchange(HTTP_X_FORWARDED_FOR="6.6.6.6, 203.0.113.9")
    trusted = frozenset({"10.0.0.1"})
    assert fields(one, Json(trusted))["forwarded_for"] == "203.0.113.9"
    assert fields(one, Json(trusted))["remote_addr"] == "10.0.0.1"
    assert columns(one, Combined(trusted))[0] == "203.0.113.9"
    assert "forwarded_for" not in fields(one)
    assert columns(one)[0] == "10.0.0.1"


@pytest.mark.parametrize(
    ("header", "client"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("6.6.6.6,203.0.113.9 , 10.0.0.2", "203.0.113.9"),
        ("2001:db8::1", "2001:db8::1"),
        ("10.0.0.2", "10.0.0.2"),
        ("", "10.0.0.1"),
        ("unknown", "10.0.0.1"),
        ('1.2.3.4 - - [x] "GET', "10.0.0.1"),
        ("1.2.3.4\n", "10.0.0.1"),
        (" , ,", "10.0.0.1"),
    ],
)
def test_only_addresses_that_trusted_proxies_added_count(header: str, client: str) -> None:
    assert client_of(header, "10.0.0.1", {"10.0.0.1", "10.0.0.2"}) == client
    assert client_of(header, "10.9.9.9", {"10.0.0.1", "10.0.0.2"}) == "10.9.9.9"


def test_a_refusal_has_what_is_known_and_why() -> None:
    formats: tuple[Format, ...] = (Json(()), Combined(()))
    text, combined = (one.refused(one.stamp(0), "10.0.0.1", 400, 90, "Host is missing") for one in formats)
    found = json.loads(text)
    assert found["fault"] == "Host is missing"
    assert (found["status"], found["bytes"], found["remote_addr"]) == (400, 90, "10.0.0.1")
    unknown = ("method", "path", "duration_ms", "request_id", "user_agent")
    assert [found[name] for name in unknown] == [None] * len(unknown)
    assert list(found) == [*fields(exchange()), "fault"]
    assert combined == '10.0.0.1 - - [01/Jan/1970:00:00:00 +0000] "-" 400 90 "-" "-"\n'


def test_a_loss_is_told_in_a_line_that_each_formats_readers_can_read() -> None:
    assert json.loads(Json(()).lost("now", 12)) == {"time": "now", "lost": 12}
    assert COMBINED.fullmatch(Combined(()).lost("now", 12))


def test_what_is_remembered_is_bounded_and_right_after_it_was_emptied() -> None:
    text, combined = Json(()), Combined(())
    for number in range(5000):
        one = exchange(RAW_URI=f"/{number}", HTTP_USER_AGENT=f"a{number}", HTTP_REFERER=f"r{number}")
        assert fields(one, text)["path"] == f"/{number}"
        assert columns(one, combined)[2] == f'"GET /{number} HTTP/1.1"'
        assert fields(exchange(), text)["user_agent"] is None
    tables = (text._requests, text._agents, combined._requests, combined._texts)
    assert max(map(len, tables)) <= 2048
