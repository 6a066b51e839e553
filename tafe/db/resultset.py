"""Result sets of MySQL's text protocol, taken from bytes that have already arrived.

The description of the columns is the same bytes each time a statement is run. So it is parsed once, by PyMySQL's own
`FieldDescriptorPacket`, and kept with one decoder a column as a `Shape`; the next time it is recognised by comparing
bytes. Rows are decoded in one loop over the buffer, without an object for a packet.

What a value becomes is decided by PyMySQL's rules: the column's type and character set choose an encoding and a
converter out of the connection's `decoders`. Where the two are ones we know, a decoder that takes the bytes gives the
same value sooner; every other pair is called as PyMySQL calls it.

Pure: bytes in, values out; knows neither sockets nor connections. Written for an interpreter and a compiler alike.
Packets that continue in another one (16 MiB and more) and everything that is no row are left to the caller.
Format: MySQL's internals manual, "Text Resultset" and "Protocol::LengthEncodedString".
"""

from __future__ import annotations

import codecs
import datetime
from collections.abc import Callable, Hashable
from decimal import Decimal
from typing import Any, Final

from pymysql import converters
from pymysql.connections import TEXT_TYPES
from pymysql.constants import FIELD_TYPE, SERVER_STATUS
from pymysql.protocol import FieldDescriptorPacket

from tafe.db import packets

Decoder = Callable[[bytes], Any]

# These have C types in resultset.pxd.
_WHOLE: Final = packets.WHOLE
_EOF: Final = packets.EOF
_ERROR: Final = packets.ERROR
_NULL: Final = packets.NULL
_END_BYTES: Final = packets.END_BYTES
_END_OF_LIST: Final = packets.END_OF_LIST
_MORE_RESULTS: Final = SERVER_STATUS.SERVER_MORE_RESULTS_EXISTS
_BINARY: Final = 63  # the character set of columns that hold bytes

# Statements of an application number in the hundreds; see sql.py. Descriptions of more shapes than that come from names
# made up by a program, which do not come again.
_SHAPES_KEPT: Final = 512
# Pairs of encoding and `decoders` in use at once: one an application, a few more where it brings converters of its own.
_TABLES_KEPT: Final = 16
# Statements that differ only behind their first column, of which each one has a place.
_ALIKE: Final = 8


class Shape:
    """What is known of results whose columns are described by the same bytes."""

    __slots__ = (
        "columns",
        "decoders",
        "described_by",
        "description",
        "fields",
        "first_row",
        "names",
        "rows_at",
        "size",
    )

    def __init__(self, fields: list[Any], decoders: tuple[Decoder, ...]) -> None:
        self.fields = fields
        self.description = tuple([field.description() for field in fields])
        self.names = tuple([field.name for field in fields])
        self.decoders = decoders
        self.columns = tuple(zip(self.names, decoders, strict=True))
        self.first_row = (len(fields) + 3) & 0xFF  # its packet's number: a count, the columns and an end come before it
        self.described_by = b""  # the packets of count and columns, as a first result has them; empty until one came
        self.size = 0  # of these
        self.rows_at = 0  # where the first row begins behind them


class Shapes:
    """The shapes met by connections of one encoding and one set of converters."""

    def __init__(self, encoding: str, use_unicode: bool, converters_by_type: dict[int, Any]) -> None:
        self.encoding = encoding
        self.use_unicode = use_unicode
        self._converters = dict(converters_by_type)
        self._by_columns: dict[tuple[bytes, ...], Shape] = {}
        # By the count of columns and the first one, which lie at a place that is found without a loop.
        self._by_first: dict[bytes, list[Shape]] = {}
        self._last: Shape | None = None  # found; the next result is often of the same statement

    def find(self, data: bytes) -> Shape | None:
        """Return the shape described by the packets 1 and up, with which `data` begins; None: not known, or not all."""
        last = self._last
        if last is not None and data.startswith(last.described_by):
            return last
        if len(data) > 5:
            for shape in self._by_first.get(data[: 9 + data[5]], ()):
                if data.startswith(shape.described_by):
                    self._last = shape
                    return shape
        return None

    def learn(self, columns: tuple[bytes, ...], described_by: bytes) -> Shape:
        """The shape of these descriptions. `described_by`: of a first result, the bytes to find it by."""
        shape = self._by_columns.get(columns)
        if shape is None:
            fields = [FieldDescriptorPacket(column, self.encoding) for column in columns]
            shape = Shape(fields, tuple([self._decoder(field) for field in fields]))
            if len(self._by_columns) >= _SHAPES_KEPT:
                self._by_columns.clear()
                self._by_first.clear()
            self._by_columns[columns] = shape
        if described_by:
            shape.described_by = described_by
            shape.size = len(described_by)
            shape.rows_at = shape.size + _END_BYTES
            alike = self._by_first.setdefault(described_by[: 9 + described_by[5]], [])
            if shape not in alike:
                del alike[_ALIKE - 1 :]
                alike.insert(0, shape)
        return shape

    def _decoder(self, field: Any) -> Decoder:
        kind = field.type_code
        if not self.use_unicode or (kind in TEXT_TYPES and field.charsetnr == _BINARY):
            encoding = None
        elif kind in TEXT_TYPES or kind == FIELD_TYPE.JSON:  # JSON says binary and is text
            encoding = self.encoding
        else:
            encoding = "ascii"
        return decoder(encoding, self._converters.get(kind))


_tables: dict[Hashable, Shapes] = {}


def shapes(encoding: str, use_unicode: bool, converters_by_type: dict[int, Any]) -> Shapes:
    """The table for these three, shared by all connections of the process that have the same."""
    try:
        key = (encoding, use_unicode, frozenset(converters_by_type.items()))
        table = _tables.get(key)
    except TypeError:  # a converter without a hash
        return Shapes(encoding, use_unicode, converters_by_type)
    if table is None:
        if len(_tables) >= _TABLES_KEPT:
            _tables.clear()
        table = _tables[key] = Shapes(encoding, use_unicode, converters_by_type)
    return table


class Decoders(dict[int, Any]):
    """A connection's `decoders`, which an application may change at any time; `shapes` is None after each change."""

    __slots__ = ("shapes",)

    def __init__(self, items: Any) -> None:
        super().__init__(items)
        self.shapes: Shapes | None = None

    def __setitem__(self, key: int, value: Any) -> None:
        self.shapes = None
        super().__setitem__(key, value)

    def __delitem__(self, key: int) -> None:
        self.shapes = None
        super().__delitem__(key)

    def __ior__(self, other: Any) -> Any:  # type: ignore[misc]  # of what dict.__or__ may return, it makes one
        self.shapes = None
        return super().__ior__(other)

    def clear(self) -> None:
        self.shapes = None
        super().clear()

    def pop(self, *args: Any) -> Any:
        self.shapes = None
        return super().pop(*args)

    def popitem(self) -> tuple[int, Any]:
        self.shapes = None
        return super().popitem()

    def setdefault(self, key: int, default: Any = None) -> Any:
        self.shapes = None
        return super().setdefault(key, default)

    def update(self, *args: Any, **more: Any) -> None:
        self.shapes = None
        super().update(*args, **more)


def decoder(encoding: str | None, converter: Any) -> Decoder:
    """One call that does what PyMySQL does in two: decode, unless `encoding` is None, then convert, unless None."""
    if converter is converters.through:
        converter = None
    if encoding is None:
        return converter or bytes
    if converter is None:
        if codecs.lookup(encoding).name == "utf-8":
            return bytes.decode
        return lambda value: value.decode(encoding)
    if encoding == "ascii" and converter in _FROM_ASCII:
        return _FROM_ASCII[converter]
    return lambda value: converter(value.decode(encoding))


def _datetime(value: bytes) -> Any:
    # Whatever the server writes is in ISO form, but for zero and other dates that the calendar does not have. The
    # signs that are left without the digits keep out the other forms that `fromisoformat` takes.
    signs = value.translate(None, b"0123456789")
    if (signs == b"-- ::" and len(value) == 19) or (signs == b"-- ::." and 21 <= len(value) <= 26):
        try:
            return datetime.datetime.fromisoformat(value.decode())
        except ValueError:
            pass
    return converters.convert_datetime(value.decode("ascii"))


def _date(value: bytes) -> Any:
    if len(value) == 10 and value.translate(None, b"0123456789") == b"--":
        try:
            return datetime.date.fromisoformat(value.decode())
        except ValueError:
            pass
    return converters.convert_date(value.decode("ascii"))


def _timedelta(value: bytes) -> Any:
    if len(value) == 8 and value[2] == value[5] == 0x3A and value.translate(None, b"0123456789") == b"::":
        return datetime.timedelta(0, int(value[:2]) * 3600 + int(value[3:5]) * 60 + int(value[6:]))
    return converters.convert_timedelta(value.decode("ascii"))


def _decimal(value: bytes) -> Any:
    return Decimal(value.decode("ascii"))


_FROM_ASCII: Final[dict[Any, Decoder]] = {
    int: int,
    float: float,
    Decimal: _decimal,
    converters.convert_datetime: _datetime,
    converters.convert_date: _date,
    converters.convert_timedelta: _timedelta,
}


def length_encoded(data: bytes, at: int) -> tuple[int | None, int]:
    """The length-encoded number at `at`, None for _NULL, and where it ends."""
    first = data[at]
    if first < _NULL:
        return first, at + 1
    if first == 0xFC:
        return int.from_bytes(data[at + 1 : at + 3], "little"), at + 3
    if first == 0xFD:
        return int.from_bytes(data[at + 1 : at + 4], "little"), at + 4
    if first == 0xFE:
        return int.from_bytes(data[at + 1 : at + 9], "little"), at + 9
    return None, at + 1


def row(data: bytes, at: int, end: int, decoders: tuple[Decoder, ...]) -> tuple[Any, ...]:
    """The values between `at` and `end`, which hold one row. A row may end before the columns do."""
    values: list[Any] = []
    for decode in decoders:
        if at >= end:
            break
        length = data[at]
        if length < _NULL:
            start = at + 1
        else:
            known, start = length_encoded(data, at)
            if known is None:
                values.append(None)
                at = start
                continue
            length = known
            if length > end - start:
                raise _too_long(length - end + start)
        at = start + length
        values.append(decode(data[start:at]))
    if at > end:
        raise _too_long(at - end)
    return tuple(values)


def rows(data: bytes, at: int, number: int, decoders: tuple[Decoder, ...], into: list[tuple[Any, ...]]) -> int:
    """Append the rows of the packets from `at` on; return where the first one begins that is not a whole row.

    `number` is the one that the packet at `at` should have. The rows appended say how many packets were taken.
    """
    size = len(data)
    while at + 5 <= size:
        length = data[at] | data[at + 1] << 8 | data[at + 2] << 16
        end = at + 4 + length
        if end > size or length == _WHOLE or data[at + 3] != number:
            break
        first = data[at + 4]
        if first >= _EOF and (first == _ERROR or length < 9):
            break
        into.append(row(data, at + 4, end, decoders))
        number = (number + 1) & 0xFF
        at = end
    return at


def records(data: bytes, shape: Shape) -> list[dict[str, Any]] | None:
    """The rows, by column name, of a first result that begins with `shape`; None if `data` is anything but all of it.

    `data` is less than 16 MiB. Of columns with the same name the last one counts.
    """
    size = len(data)
    at = shape.rows_at
    if data[-_END_BYTES] != 5 or data[-5] != _EOF or data[shape.size : at - 4] != _END_OF_LIST[shape.first_row - 1]:
        return None  # the likely ends first, before any work is done
    number = shape.first_row
    columns = shape.columns
    found: list[dict[str, Any]] = []
    while at + _END_BYTES < size:
        end = at + 4 + (data[at] | data[at + 1] << 8 | data[at + 2] << 16)
        first = data[at + 4]
        if data[at + 3] != number or end > size or first == _ERROR or (first == _EOF and end - at < 13):
            return None
        at += 4
        record: dict[str, Any] = {}
        for name, decode in columns:
            if at >= end:
                return None
            length = data[at]
            if length < _NULL:
                start = at + 1
            else:
                known, start = length_encoded(data, at)
                if known is None:
                    record[name] = None
                    at = start
                    continue
                length = known
                if length > end - start:
                    return None
            at = start + length
            record[name] = decode(data[start:at])
        if at != end:
            return None  # not as many values as columns: the caller's rare case
        found.append(record)
        number = (number + 1) & 0xFF
    if at + _END_BYTES != size or data[at : at + 5] != _END_OF_LIST[number] or data[-2] & _MORE_RESULTS:
        return None
    return found


def _too_long(count: int) -> AssertionError:
    return AssertionError(f"a value ends {count} bytes behind its row")
