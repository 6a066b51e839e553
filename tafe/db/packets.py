"""Packets of MySQL's protocol, as far as results are made of them (MySQL's internals manual, "Text Resultset")."""

from __future__ import annotations

from typing import Final

HEADER: Final = 4  # bytes before each packet: its length in three, its number in one
WHOLE: Final = 0xFFFFFF  # a packet of this length goes on in the next one
EOF: Final = 0xFE  # first byte of a packet of less than 9 bytes that ends a list
END_BYTES: Final = 9  # such a packet's, its header included
# How it begins, by its number.
END_OF_LIST: Final = tuple([bytes((5, 0, 0, number, EOF)) for number in range(256)])
ERROR: Final = 0xFF  # first byte of an error
NULL: Final = 0xFB  # in place of a length, which takes more bytes if the first is above this
