"""The fast connection tells exactly what PyMySQL's does, of whatever bytes, however they are cut.

Here the server is a row of packets in memory; test_fast_connection.py asks a real one.
"""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pymysql import connections, converters, cursors, err
from pymysql.constants import FIELD_TYPE

from tafe.db import fast, resultset, wire
from tests.db import protocol

BINARY, UTF8MB4 = 63, 45
NUMBERS = {FIELD_TYPE.TINY, FIELD_TYPE.SHORT, FIELD_TYPE.LONG, FIELD_TYPE.LONGLONG, FIELD_TYPE.INT24, FIELD_TYPE.YEAR}
FLOATS = {FIELD_TYPE.FLOAT, FIELD_TYPE.DOUBLE}
DECIMALS = {FIELD_TYPE.DECIMAL, FIELD_TYPE.NEWDECIMAL}
TIMES = {FIELD_TYPE.TIMESTAMP, FIELD_TYPE.DATETIME, FIELD_TYPE.TIME, FIELD_TYPE.DATE, FIELD_TYPE.NEWDATE}
EVERY_TYPE = sorted({value for name, value in vars(FIELD_TYPE).items() if name.isupper()})
CURSORS = (cursors.Cursor, cursors.DictCursor, cursors.SSCursor, cursors.SSDictCursor)

moments = st.datetimes() | st.datetimes().map(lambda moment: moment.replace(microsecond=0))
times_of_day = st.tuples(st.integers(-838, 838), st.integers(0, 59), st.integers(0, 59)).map(
    lambda time: f"{'-' if time[0] < 0 else ''}{abs(time[0]):02}:{time[1]:02}:{time[2]:02}"
)
fractions = st.integers(0, 6).flatmap(lambda count: st.text("0123456789", min_size=count, max_size=count))
written_times = st.one_of(
    st.dates().map(str),
    moments.map(str),
    st.builds(lambda moment, part: f"{moment.replace(microsecond=0)}{'.' if part else ''}{part}", moments, fractions),
    st.builds(lambda time, part: f"{time}{'.' if part else ''}{part}", times_of_day, fractions),
    st.sampled_from(
        ["0000-00-00", "0000-00-00 00:00:00", "2024-00-00", "2024-02-30 01:02:03", "0000-00-00 00:00:00.0"]
    ),
    # What a server does not write, and `fromisoformat` takes.
    st.sampled_from(["2024-W01-1 10:00:00", "2024-01-01 10-01:00", "2024-01-01 10:00:00.123+01", "2024-W01-1", ""]),
    st.sampled_from(["2024-01-01T10:00:00", "2024-01-01 10:00:00,123", "20240101", "1:22:333", "12:3456:7"]),
    st.text("0123456789-: .TWZ+", max_size=27),
)
texts = st.text(max_size=20).map(str.encode) | st.sampled_from([b"", "\N{GRINNING FACE}".encode(), b"\xff", b"a" * 251])
blobs = st.binary(max_size=300) | st.sampled_from([250, 251, 65535, 65536]).map(lambda size: b"\xfb" * size)


def values(kind: int) -> st.SearchStrategy[bytes | None]:
    if kind in NUMBERS:
        known = st.integers(-(1 << 63), 1 << 64).map(lambda value: str(value).encode())
    elif kind in FLOATS:
        known = st.floats(allow_nan=False, allow_infinity=False).map(lambda value: repr(value).encode())
    elif kind in DECIMALS:
        known = st.decimals(allow_nan=False, allow_infinity=False, places=10).map(lambda value: str(value).encode())
    elif kind in TIMES:
        known = written_times.map(str.encode)
    else:
        known = texts | blobs
    return st.none() | known


@st.composite
def results(draw: st.DrawFn) -> bytes:
    """One to three answers, the last of them perhaps an error, in packets numbered through."""
    contents: list[bytes] = []
    count = draw(st.integers(1, 3))
    for index in range(count):
        status = protocol.MORE_RESULTS if index < count - 1 else draw(st.sampled_from([0, 2, 3, 34]))
        warnings = draw(st.sampled_from([0, 1, 255, 65535]))
        if draw(st.integers(0, 3)) == 0:
            message = draw(st.binary(max_size=10))
            numbers = [draw(st.sampled_from([0, 1, 250, 251, 65536, 1 << 24, (1 << 64) - 1])) for _ in range(2)]
            contents.append(protocol.ok(*numbers, status, warnings, message))
            continue
        kinds = draw(
            st.lists(st.tuples(st.sampled_from(EVERY_TYPE), st.sampled_from([BINARY, UTF8MB4])), min_size=1, max_size=5)
        )
        names = st.sampled_from(["id", "name", "näme", "n" * 300])
        columns = [
            protocol.column(
                draw(names), kind, charset, flags=draw(st.integers(0, 1)), table=draw(st.sampled_from("tu"))
            )
            for kind, charset in kinds
        ]
        rows = draw(st.lists(st.tuples(*[values(kind) for kind, _ in kinds]), max_size=4))
        rows *= draw(st.sampled_from([1, 1, 70]))  # more packets than there are numbers for
        last = protocol.end(warnings, status)
        if not status & protocol.MORE_RESULTS and draw(st.integers(0, 5)) == 0:
            last = protocol.error(draw(st.sampled_from([1064, 1062, 1317, 3024, 1969])))
        contents += protocol.result(columns, rows, last)
    return protocol.packets(contents)


def told(kind: type[Any], data: bytes, cuts: list[int], cursor_class: Any, **settings: Any) -> list[Any]:
    connection = protocol.logged_in(kind, protocol.Replay(data, cuts), **settings)
    return protocol.everything(connection, "SELECT", cursor_class)


@settings(max_examples=200, deadline=None)
@given(
    data=results(),
    cuts=st.lists(st.integers(1, 2000), max_size=30),
    cursor_class=st.sampled_from(CURSORS),
    use_unicode=st.booleans(),
    charset=st.sampled_from(["utf8mb4", "latin1", "ascii", "cp1251"]),
    conv=st.sampled_from([None, None, {}, {FIELD_TYPE.LONG: str, FIELD_TYPE.VAR_STRING: len, FIELD_TYPE.DATE: None}]),
)
def test_every_answer_is_told_as_pymysql_tells_it(
    data: bytes, cuts: list[int], cursor_class: Any, use_unicode: bool, charset: str, conv: Any
) -> None:
    known = {"use_unicode": use_unicode, "charset": charset, "conv": conv}
    expected = told(connections.Connection, data, [], cursor_class, **known)
    for _ in range(2):  # the columns are new the first time, known the second
        assert repr(told(fast.Connection, data, cuts, cursor_class, **known)) == repr(expected)


@settings(max_examples=200, deadline=None)
@given(data=results(), cuts=st.lists(st.integers(1, 2000), max_size=3))
def test_the_pool_s_way_to_rows_gives_the_same_rows(data: bytes, cuts: list[int]) -> None:
    expected = outcome(protocol.logged_in(wire.Wire, protocol.Replay(data)).records, b"SELECT")
    for _ in range(2):  # the columns are new the first time, known the second
        connection = protocol.logged_in(wire.wire_class("fast"), protocol.Replay(data, cuts))
        assert repr(outcome(connection.records, b"SELECT")) == repr(expected)
        assert not connection.unread


@settings(max_examples=100, deadline=None)
@given(data=results(), cursor_class=st.sampled_from(CURSORS), draw=st.data())
def test_wherever_the_connection_ends_the_loss_is_told_as_pymysql_tells_it(
    data: bytes, cursor_class: Any, draw: st.DataObject
) -> None:
    kept = data[: draw.draw(st.integers(0, len(data)))]
    expected = told(connections.Connection, kept, [], cursor_class)
    assert repr(told(fast.Connection, kept, [len(kept) // 2], cursor_class)) == repr(expected)


@settings(max_examples=300, deadline=None)
@given(value=written_times.map(str.encode), converter=st.sampled_from(["datetime", "date", "timedelta"]))
@example(b"2024-01-01 10:00:00.123+01", "datetime")
@example(b"2024-01-01 10-01:00", "datetime")
@example(b"838:59:59", "timedelta")
def test_dates_and_times_are_what_pymysql_s_converters_make_of_them(value: bytes, converter: str) -> None:
    convert = getattr(converters, f"convert_{converter}")
    assert outcome(resultset.decoder("ascii", convert), value) == outcome(convert, value.decode())


def outcome(function: Any, value: Any) -> tuple[type[Any], Any]:
    """The kind of what is returned or raised, and what is returned."""
    try:
        returned = function(value)
    except Exception as problem:
        return type(problem), None
    return type(returned), returned


def answer(
    *rows: tuple[bytes | None, ...], kind: int = FIELD_TYPE.VAR_STRING, name: str = "a", first: int = 1
) -> bytes:
    columns = [protocol.column(f"{name}{index}", kind, UTF8MB4) for index in range(len(rows[0]))]
    return protocol.packets(protocol.result(columns, rows, protocol.end()), first)


def test_a_packet_of_16_mib_goes_on_in_the_next_one_wherever_the_bytes_are_cut() -> None:
    sizes = (protocol.WHOLE - 5, protocol.WHOLE - 4, protocol.WHOLE, 2 * protocol.WHOLE)
    data = answer(*[(b"x" * size, b"y") for size in sizes], (b"z", None))
    cuts = [*range(100_000, len(data), 1 << 20), protocol.WHOLE, protocol.WHOLE + 4, len(data) - 10]
    found = told(fast.Connection, data, cuts, cursors.Cursor)[2]
    assert [(len(a), b) for a, b in found] == [*((size, "y") for size in sizes), (1, None)]


def test_a_table_of_more_than_250_columns_is_read() -> None:
    data = answer(tuple(b"%d" % index for index in range(300)), kind=FIELD_TYPE.LONG)
    assert told(fast.Connection, data, [], cursors.Cursor)[2] == (tuple(range(300)),)


def test_rows_with_fewer_or_more_values_than_columns_are_told_as_pymysql_tells_them() -> None:
    columns = [protocol.column("a", FIELD_TYPE.VAR_STRING, UTF8MB4), protocol.column("b", FIELD_TYPE.LONG, UTF8MB4)]
    rows = [(b"x", b"1"), (b"y",), (b"z", b"3", b"more"), (b"last", b"5")]
    data = protocol.packets(protocol.result(columns, rows, protocol.end()))
    expected = told(connections.Connection, data, [], cursors.Cursor)
    assert told(fast.Connection, data, [], cursors.Cursor) == expected
    assert expected[2] == (("x", 1), ("y",), ("z", 3), ("last", 5))


@pytest.mark.parametrize("claim", [b"\x09", b"\xfc\x09\x00", b"\xfe" + b"\xff" * 7 + b"\x7f", b"\xfe" + b"\xff" * 8])
def test_a_value_that_claims_to_be_longer_than_its_row_closes_the_connection(claim: bytes) -> None:
    column = protocol.column("a", FIELD_TYPE.VAR_STRING, UTF8MB4)
    told(fast.Connection, protocol.packets([b"\x01", column, protocol.end(), protocol.end()]), [], cursors.Cursor)
    data = protocol.packets([b"\x01", column, protocol.end(), claim + b"short", b"\x02ok", protocol.end()])
    for kind in (fast.Connection, wire.wire_class("fast")):
        connection = protocol.logged_in(kind, protocol.Replay(data))
        with pytest.raises((AssertionError, OverflowError)):
            connection.records(b"SELECT") if isinstance(connection, wire.Wire) else connection.query("SELECT")
        assert not connection.open


@pytest.mark.parametrize("wrong", [0, 1, 3, 4, 5, 6])
def test_a_packet_out_of_order_is_never_taken_for_a_part_of_the_answer(wrong: int) -> None:
    good = answer((b"x",), (b"y",))
    sizes = [int.from_bytes(good[at : at + 3], "little") for at in (0,)]
    data = bytearray(good)
    at = 0
    for _ in range(min(wrong, 5)):
        at += 4 + int.from_bytes(data[at : at + 3], "little")
    data[at + 3] = (data[at + 3] + 1) if wrong < 6 else 0
    assert sizes == [1]
    expected = told(connections.Connection, bytes(data), [], cursors.Cursor)
    for _ in range(2):
        told(fast.Connection, good, [], cursors.Cursor)  # so that the columns are known
        assert told(fast.Connection, bytes(data), [], cursors.Cursor) == expected
    assert expected[0] is (err.OperationalError if wrong == 6 else err.InternalError)


def test_what_a_greenlet_left_unread_is_no_answer_to_the_next_statement() -> None:
    def refuse(value: str) -> Any:
        raise RuntimeError(value)

    conv = {**converters.conversions, FIELD_TYPE.VAR_STRING: refuse}
    connection = protocol.logged_in(fast.Connection, protocol.Replay(answer((b"x",), (b"y",)) * 2), conv=conv)
    with pytest.raises(RuntimeError, match="x"):
        connection.query("SELECT")
    assert not connection.open
    with pytest.raises(err.InterfaceError):
        connection.query("SELECT")


def test_statements_that_differ_in_a_later_column_only_are_told_apart() -> None:
    def two(name: str, kind: int) -> bytes:
        columns = [protocol.column("id", FIELD_TYPE.LONG, UTF8MB4), protocol.column(name, kind, UTF8MB4)]
        return protocol.packets(protocol.result(columns, [(b"1", b"2")], protocol.end()))

    for _ in range(2):
        for index in range(12):  # more than are kept of a kind
            kind = FIELD_TYPE.LONG if index % 2 else FIELD_TYPE.VAR_STRING
            found = told(fast.Connection, two(f"c{index:02}", kind), [], cursors.DictCursor)
            assert found[2] == [{"id": 1, f"c{index:02}": 2 if index % 2 else "2"}]


def test_names_that_are_made_up_each_time_do_not_fill_memory() -> None:
    connection = protocol.logged_in(
        fast.Connection, protocol.Replay(b"".join(answer((b"x",), name=f"unique {index} ") for index in range(1500)))
    )
    for index in range(1500):
        connection.query("SELECT")
        assert connection._result.description[0][0] == f"unique {index} 0"
    table = connection.decoders.shapes
    assert len(table._by_columns) <= 512
    assert len(table._by_first) <= 512


def test_a_converter_that_is_changed_counts_from_the_next_statement_on() -> None:
    row = answer((b"7",), kind=FIELD_TYPE.LONG)
    changes: list[tuple[Any, Any]] = [
        (lambda known: None, 7),
        (lambda known: known.__setitem__(FIELD_TYPE.LONG, str), "7"),
        (lambda known: known.update({FIELD_TYPE.LONG: float}), 7.0),
        (lambda known: known.pop(FIELD_TYPE.LONG), "7"),
        (lambda known: known.setdefault(FIELD_TYPE.LONG, Decimal), Decimal(7)),
        (lambda known: known.__delitem__(FIELD_TYPE.LONG), "7"),
        (lambda known: known.__ior__({FIELD_TYPE.LONG: len}), 1),
        (lambda known: known.clear(), "7"),
        (lambda known: known.update({FIELD_TYPE.LONG: int}), 7),
        (lambda known: known.popitem(), "7"),
    ]
    connection = protocol.logged_in(fast.Connection, protocol.Replay(row * len(changes)))
    for change, expected in changes:
        change(connection.decoders)
        connection.query("SELECT")
        (found,) = connection._result.rows[0]
        assert (type(found), found) == (type(expected), expected)


def test_a_connection_s_own_converters_leak_to_no_other_one() -> None:
    row = answer((b"2024-02-29",), kind=FIELD_TYPE.DATE)
    first = protocol.logged_in(fast.Connection, protocol.Replay(row))
    second = protocol.logged_in(fast.Connection, protocol.Replay(row), conv={FIELD_TYPE.DATE: len})
    first.query("SELECT")
    second.query("SELECT")
    assert (first._result.rows, second._result.rows) == (((datetime.date(2024, 2, 29),),), ((10,),))
