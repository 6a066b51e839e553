"""What a request is called when nobody names its route: the path, without the parts that name one thing among many.

A million users are then one route. `Routes` remembers the labels of paths, for doors that ask at each request.
Pure text: it knows that a path has slashes, and nothing else of HTTP.
"""

from __future__ import annotations

import re
from typing import Final

# Labels of paths seen; a table that is full is emptied. 4,096 paths of some 100 bytes are half a MiB.
_MAX_REMEMBERED: Final = 4096
_MAX_LABEL: Final = 200  # characters: two lines of a report; a longer path names nothing that a reader takes in
# A number, a UUID, a long token that holds a digit.
_IDENTIFIER: Final = re.compile(r"[0-9]+|[0-9a-fA-F-]{16,}|(?=[^/]*[0-9])[A-Za-z0-9_=-]{20,}")


def route_of(method: str, path: str) -> str:
    """`GET`, `/users/17/edit` -> `GET /users/{}/edit`: the route of an application that does not name its own."""
    parts = ["{}" if _IDENTIFIER.fullmatch(part) else part for part in path.split("/")]
    label = f"{method} {'/'.join(parts)}".encode("ascii", "backslashreplace").decode("ascii")
    return label if len(label) <= _MAX_LABEL else label[: _MAX_LABEL - 3] + "..."


class Routes:
    """The labels of the paths seen last.

    By method and path, which are remembered strings: putting them together costs more than two look-ups. A hot path
    looks into `known[method][path]` itself, and calls `remember` on a KeyError.
    """

    def __init__(self) -> None:
        self.known: dict[str, dict[str, str]] = {}
        self._remembered = 0

    def remember(self, method: str, path: str) -> str:
        """The label of a path that is not in `known`; it is from now on."""
        if self._remembered >= _MAX_REMEMBERED:
            self.known.clear()
            self._remembered = 0
        self._remembered += 1
        route = self.known.setdefault(method, {})[path] = route_of(method, path)
        return route
