"""JSON: what is let in, and what comes out."""

from __future__ import annotations

import datetime
import enum
import json
import logging
import math
import uuid
from decimal import Decimal
from typing import Any

import pytest
import ujson
from hypothesis import given
from hypothesis import strategies as st

import tafe
from tafe.app import jsontext

_NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
_VALUES = st.recursive(
    st.none() | st.booleans() | _NUMBERS | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=30,
)


def echo() -> tafe.App:
    app = tafe.App()
    app.post("/")(lambda body: {"got": body})
    return app


@given(_VALUES)
def test_every_json_value_makes_the_round_trip(value: Any) -> None:
    assert jsontext.decode(jsontext.encode(value)) == value
    assert json.loads(jsontext.encode(value)) == value
    assert jsontext.decode(json.dumps(value, ensure_ascii=False).encode()) == value


@given(st.binary(max_size=200) | st.text(alphabet='[]{}",:0123456789.eE+-truefalsn\\ud ').map(str.encode))
def test_no_body_whatever_makes_the_server_fail(raw: bytes) -> None:
    answer = echo().test_client().post("/", body=raw)
    if answer.status != 200:
        assert answer.status == 400
        assert answer.json()["error"]["field"] == "body"


@given(st.text(alphabet="[]{},:0123456789.eE+-", max_size=12).map(str.encode))
def test_what_is_let_in_can_be_sent_out(raw: bytes) -> None:
    try:
        value = jsontext.decode(raw)
    except ValueError:
        return
    json.loads(jsontext.encode(value), parse_constant=pytest.fail)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("", "a JSON body is required"),
        ("  ", "expected object or value"),
        ("{", "not valid JSON"),
        ('{"a":1}x', "trailing data"),
        ("{'a':1}", "not valid JSON"),
        ("[1,]", "not valid JSON"),
        ("NaN", "NaN, infinite or too large"),
        ('{"a":[1,-Infinity]}', "NaN, infinite or too large"),
        ('{"price":1e400}', "NaN, infinite or too large"),
        ("1" * 400 + ".0", "NaN, infinite or too large"),
        ('{"n":18446744073709551616}', "does not fit 64 bits"),
        ('{"n":-9223372036854775809}', "does not fit 64 bits"),
        ("[" + "9" * 5000 + "]", "too many digits"),
        ('{"name":"\\ud800"}', "half of a surrogate pair"),
        ('{"\\uDC00":1}', "half of a surrogate pair"),
        (b'"\xff"', "byte 1 is not UTF-8"),
        (b'"\xed\xa0\x80"', "not UTF-8"),
        (b"\xff\xfe[\x00]\x00", "not UTF-8"),
        ('["\0"', "not valid JSON"),
        ("[1]\0", "trailing data"),
        ("[" * 101 + "]" * 101, "nested deeper than 100"),
        ("[" * 1024 + "]" * 1024, "nested deeper than 100"),
        ('{"a":' * 500 + "1" + "}" * 500, "nested deeper than 100"),
        ("[" * 100_000, "depth"),
        ("[" * 500_000 + "]" * 500_000, "depth"),
    ],
)
def test_what_is_not_json_is_a_bad_request_with_the_reason(raw: str | bytes, reason: str) -> None:
    answer = echo().test_client().post("/", body=raw)
    error = answer.json()["error"]
    assert (answer.status, error["code"], error["field"]) == (400, "bad_request", "body")
    assert reason in error["message"]
    assert "sys." not in error["message"]


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("18446744073709551615", 2**64 - 1),
        ("[" * 100 + "]" * 100, None),
        ('"\\ud83d\\ude00 \\\\ud800"', "\U0001f600 \\ud800"),
        ('"a/b\\/c"', "a/b/c"),
        ('{"a":1,"a":2}', {"a": 2}),
        ("01", 1),
        (" [ 1.5e3 ]\r\n", [1500.0]),
    ],
)
def test_what_is_let_in(raw: str, value: Any) -> None:
    answer = echo().test_client().post("/", body=raw)
    assert answer.status == 200
    assert value is None or answer.json() == {"got": value}


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("Application/JSON", 200),
        ("application/vnd.api+json", 200),
        ("", 200),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/jsonp", 415),
        (";", 200),
    ],
)
def test_a_body_of_another_content_type_is_refused(content_type: str, status: int) -> None:
    answer = echo().test_client().post("/", body="[1]", headers={"Content-Type": content_type})
    assert answer.status == status
    if status == 415:
        assert answer.json()["error"]["field"] == "body"
        assert answer.json()["error"]["code"] == "unsupported_media_type"


class Colour(enum.Enum):
    RED = "red"


class Size(enum.IntEnum):
    LARGE = 3


ROW = {
    "price": Decimal("12345678901234567890.10"),
    "zero": Decimal("0E-10"),
    "when": datetime.datetime(2024, 2, 29, 12, 30, 15, 250, datetime.UTC),
    "naive": datetime.datetime(2024, 2, 29, 12, 30),
    "day": datetime.date(2024, 2, 29),
    "time": datetime.time(1, 2, 3),
    "lasts": datetime.timedelta(hours=1, milliseconds=500),
    "id": uuid.UUID(int=1),
    "colour": Colour.RED,
    "size": Size.LARGE,
    "pair": (1, Decimal("1.10")),
    "none": None,
}


def test_what_database_rows_hold_is_written_without_loss() -> None:
    app = tafe.App()
    app.get("/")(lambda: {"rows": [ROW]})
    assert app.test_client().get("/").json() == {
        "rows": [
            {
                "price": "12345678901234567890.10",
                "zero": "0.0000000000",
                "when": "2024-02-29T12:30:15.000250+00:00",
                "naive": "2024-02-29T12:30:00",
                "day": "2024-02-29",
                "time": "01:02:03",
                "lasts": 3600.5,
                "id": "00000000-0000-0000-0000-000000000001",
                "colour": "red",
                "size": 3,
                "pair": [1, "1.10"],
                "none": None,
            }
        ]
    }


def test_a_decimal_with_a_huge_exponent_stays_short() -> None:
    assert jsontext.encode([Decimal("1E+999999"), Decimal("1E-999999")]) == b'["1E+999999","1E-999999"]'


@pytest.mark.parametrize("value", [Decimal("1.5"), [Decimal("1.5")], {"a": {"b": (Decimal("1.5"),)}}])
def test_a_decimal_is_a_string_at_any_depth(value: Any) -> None:
    assert b'"1.5"' in jsontext.encode(value)


def test_slashes_and_other_letters_are_written_plainly_and_in_ascii() -> None:
    assert jsontext.encode(["a/b", "é", "\U0001f600", "\ud800", "\x7f"]) == (
        b'["a/b","\\u00e9","\\ud83d\\ude00","\\ud800","\x7f"]'
    )


def _loop() -> list[Any]:
    loop: list[Any] = []
    loop.append({"again": loop})
    return loop


def _deep() -> list[Any]:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    return deep


SHARED = [1]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"rows": [{"ok": 1}, {"score": math.nan}]}, "rows[1].score is nan"),
        ([math.inf], "[0] is inf"),
        ({"price": Decimal("NaN")}, "price is nan"),
        (math.nan, "the value itself is nan"),
        ({"rows": [{"raw": b"x"}]}, "rows[0].raw is bytes"),
        ({"tags": {1, 2}}, "tags is set"),
        ({"a": {"b": object()}}, "a.b is object"),
        ([(1, 2, {"c": 3j})], "[0][2].c is complex"),
        (_loop(), "holds itself"),
        ({"a": SHARED, "b": SHARED, "c": math.nan}, "c is nan"),
    ],
)
def test_what_cannot_be_json_is_a_logged_500_naming_the_place(
    value: Any, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = tafe.App()
    app.get("/")(lambda: tafe.Response(value) if not isinstance(value, dict) else value)
    with caplog.at_level(logging.ERROR):
        answer = app.test_client().get("/")
    assert answer.status == 500
    assert answer.json()["error"]["message"] == "internal error"
    assert says in caplog.text


def test_an_answer_nested_beyond_reason_is_an_error_and_no_crash(caplog: pytest.LogCaptureFixture) -> None:
    app = tafe.App()
    value = {"deep": _deep()}
    app.get("/")(lambda: value)
    assert app.test_client().get("/").status == 500
    assert "nested too deeply" in caplog.text


def test_what_an_objects_own_json_raises_is_kept() -> None:
    class Own:
        def __json__(self) -> str:
            raise ValueError("its own")

    with pytest.raises(ValueError, match=r"^its own$"):
        jsontext.encode([Own()])


def test_keys_are_written_as_their_text() -> None:
    assert json.loads(jsontext.encode({1: "a", None: "b", 1.5: "c", datetime.date(2024, 1, 2): "d"})) == {
        "1": "a",
        "1.5": "c",
        "null": "b",
        "2024-01-02": "d",
    }


def test_the_options_passed_to_ujson_by_position_are_the_ones_meant() -> None:
    value = {"b": "caf\u00e9 </a/b>", "a": [1, 2.5, None, True], "when": datetime.date(2026, 1, 2)}
    by_name = ujson.dumps(
        value,
        ensure_ascii=True,
        encode_html_chars=False,
        escape_forward_slashes=False,
        sort_keys=False,
        indent=0,
        allow_nan=False,
        reject_bytes=True,
        default=jsontext._default,
    )
    assert jsontext._dumps(value, *jsontext._DUMPS_OPTIONS) == by_name
