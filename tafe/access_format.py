r"""Lines of the access log: what is known of a request, as JSON or in the combined format, so that no client can forge.

JSON, on one line:

    {"time":"2026-11-22T10:11:12.345Z","remote_addr":"127.0.0.1","method":"GET","path":"/users/17","status":200,
     "bytes":27,"duration_ms":1.204,"request_id":"5f0c-17","user_agent":"curl/8.5.0"}

| field | |
| --- | --- |
| `time` | when the end of the answer was given to the kernel, UTC |
| `remote_addr` | the peer; empty on a unix socket |
| `method`, `path` | as sent; null if no request could be read |
| `status` | as sent; 499, nginx's number for it, where the client had left before any of the body was sent |
| `bytes` | of the answer's body, without chunk sizes |
| `duration_ms` | from the complete head to the end of the answer; null if there was no complete head |
| `request_id`, `user_agent` | null if there is none |
| `forwarded_for` | only where a trusted proxy named the client |
| `fault` | only where something went wrong that the status does not tell: the client left, or why the server refused |
| `lost` | of a line with `time` and nothing else: so many lines are missing here |

Combined, which log analysers read; it begins with the client that a trusted proxy named, else with the peer:

    127.0.0.1 - - [22/Nov/2026:10:11:12 +0000] "GET /users/17 HTTP/1.1" 200 27 "https://example.org/" "curl/8.5.0"

In both, every text that came from outside is written as a JSON string: quotes, backslashes, control characters and
whatever is not ASCII are escaped. No line is longer than a pipe takes whole, so that no other can begin inside it: long
texts are cut. Never a query string, the referring page's neither: they hold what people search for, and tokens.
What repeats is remembered ready to be written. Pure: knows no clock and no file.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection
from json.encoder import encode_basestring_ascii  # what json.dumps calls for a text, at a fifth of the cost
from typing import Any, Final, TypeVar

FORMATS: Final = ("json", "combined")

# Longest texts, escapes included. Three texts, a request and a method come to less than 3,700 bytes, all the rest to
# less than 300; a pipe takes 4,096 whole.
_MAX_REQUEST: Final = 2048
_MAX_METHOD: Final = 64
_MAX_TEXT: Final = 512
_LONGEST_ESCAPE: Final = 12  # \ud83d\ude00, one character

# Remembered texts. A flood of new ones only empties the table; long ones are not kept, so that it holds 1 MiB at most.
_MAX_REMEMBERED: Final = 2048
_MAX_REMEMBERED_TEXT: Final = 512

CLIENT_LEFT: Final = 499
_ADDRESS: Final = re.compile(r"[0-9A-Fa-f:.]{2,45}")
_DIGITS: Final = tuple(f"{number:03d}" for number in range(1000))  # to write a float would be a fifth of a line's cost
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")  # in any locale

_K = TypeVar("_K")
_quoted: Callable[[str], str] = encode_basestring_ascii  # within quotes


class Format:
    """Makes lines, each with its end. `stamp` is what `stamp` has made of the time of day."""

    def stamp(self, epoch_ms: int) -> str:
        """The time as this format writes it."""
        raise NotImplementedError

    def answered(
        self,
        stamp: str,
        environ: dict[str, Any],
        remote_addr: str,
        status: int,
        body_bytes: int,
        took_s: float,
        fault: str,
    ) -> str:
        """A request that was read, whatever became of it. `status` 0: nothing was sent; `fault` "": there was none."""
        raise NotImplementedError

    def refused(self, stamp: str, remote_addr: str, status: int, body_bytes: int, why: str) -> str:
        """One that could not be read."""
        raise NotImplementedError

    def lost(self, stamp: str, count: int) -> str:
        """What stands in the place of `count` lines."""
        raise NotImplementedError


class Json(Format):
    """See the module. `trusted_peers`: proxies whose X-Forwarded-For names the client."""

    def __init__(self, trusted_peers: Collection[str]) -> None:
        self._trusted_peers = trusted_peers
        self._requests: dict[tuple[str, str, int], str] = {}  # by method, target and status
        self._agents: dict[str | None, str] = {}
        self._second = -1
        self._date = ""  # of that second

    def stamp(self, epoch_ms: int) -> str:
        """`2026-11-22T10:11:12.345Z`."""
        second, ms = divmod(epoch_ms, 1000)
        if second != self._second:
            self._second = second
            self._date = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._date}.{_DIGITS[ms]}Z"

    def answered(
        self,
        stamp: str,
        environ: dict[str, Any],
        remote_addr: str,
        status: int,
        body_bytes: int,
        took_s: float,
        fault: str,
    ) -> str:
        """See `Format`."""
        asked = (environ["REQUEST_METHOD"], environ["RAW_URI"], status)
        try:
            request = self._requests[asked]
        except KeyError:
            request = self._request(*asked)
        agent = environ.get("HTTP_USER_AGENT")
        try:
            rest = self._agents[agent]
        except KeyError:
            rest = self._agent(agent)
        took_us = int(took_s * 1e6)
        if "HTTP_X_FORWARDED_FOR" in environ:
            client = client_of(environ["HTTP_X_FORWARDED_FOR"], remote_addr, self._trusted_peers)
            if client != remote_addr:
                rest += f',"forwarded_for":"{client}"'
        if fault:
            rest += f',"fault":{_quoted_to(_MAX_TEXT, fault)}'
        request_id = _quoted(environ["tafe.request_id"])
        if len(request_id) > _MAX_TEXT:  # not one of ours: the application has put something else there
            request_id = _quoted_to(_MAX_TEXT, environ["tafe.request_id"])
        return (
            f'{{"time":"{stamp}","remote_addr":"{remote_addr}{request}{body_bytes},"duration_ms":'
            f'{took_us // 1000}.{_DIGITS[took_us % 1000]},"request_id":{request_id},"user_agent":{rest}}}\n'
        )

    def _request(self, method: str, target: str, status: int) -> str:
        path = _quoted_to(_MAX_REQUEST, without_query(target))
        asked = f'","method":{_quoted_to(_MAX_METHOD, method)},"path":{path}'
        fields = f'{asked},"status":{status or CLIENT_LEFT},"bytes":'
        _remember(self._requests, (method, target, status), len(target), fields)
        return fields

    def _agent(self, agent: str | None) -> str:
        quoted = "null" if agent is None else _quoted_to(_MAX_TEXT, agent)
        _remember(self._agents, agent, len(agent or ""), quoted)
        return quoted

    def refused(self, stamp: str, remote_addr: str, status: int, body_bytes: int, why: str) -> str:
        """See `Format`."""
        return (
            f'{{"time":"{stamp}","remote_addr":"{remote_addr}","method":null,"path":null,"status":{status},'
            f'"bytes":{body_bytes},"duration_ms":null,"request_id":null,"user_agent":null,'
            f'"fault":{_quoted_to(_MAX_TEXT, why)}}}\n'
        )

    def lost(self, stamp: str, count: int) -> str:
        """See `Format`."""
        return f'{{"time":"{stamp}","lost":{count}}}\n'


class Combined(Format):
    """See the module. `trusted_peers`: proxies whose X-Forwarded-For names the client."""

    def __init__(self, trusted_peers: Collection[str]) -> None:
        self._trusted_peers = trusted_peers
        self._requests: dict[tuple[str, str, str], str] = {}  # by method, target and version
        self._texts: dict[str | None, str] = {}  # agents and referring pages
        self._second = -1
        self._date = ""  # of that second

    def stamp(self, epoch_ms: int) -> str:
        """`22/Nov/2026:10:11:12 +0000`."""
        second = epoch_ms // 1000
        if second != self._second:
            self._second = second
            at = time.gmtime(second)
            self._date = time.strftime(f"%d/{_MONTHS[at.tm_mon - 1]}/%Y:%H:%M:%S +0000", at)
        return self._date

    def answered(
        self,
        stamp: str,
        environ: dict[str, Any],
        remote_addr: str,
        status: int,
        body_bytes: int,
        took_s: float,  # noqa: ARG002 - it has no field for it
        fault: str,  # noqa: ARG002 - it has no field for it
    ) -> str:
        """See `Format`."""
        asked = (environ["REQUEST_METHOD"], environ["RAW_URI"], environ["SERVER_PROTOCOL"])
        request = self._requests.get(asked)
        if request is None:
            method, target, version = asked
            request = _quoted_to(_MAX_REQUEST, f"{method} {without_query(target)} {version}")
            _remember(self._requests, asked, len(target), request)
        client = remote_addr
        if "HTTP_X_FORWARDED_FOR" in environ:
            client = client_of(environ["HTTP_X_FORWARDED_FOR"], client, self._trusted_peers)
        referer = environ.get("HTTP_REFERER")
        referer = self._text(referer and without_query(referer))
        agent = self._text(environ.get("HTTP_USER_AGENT"))
        return f"{client or '-'} - - [{stamp}] {request} {status or CLIENT_LEFT} {body_bytes} {referer} {agent}\n"

    def _text(self, text: str | None) -> str:
        quoted = self._texts.get(text)
        if quoted is None:
            quoted = '"-"' if text is None else _quoted_to(_MAX_TEXT, text)
            _remember(self._texts, text, len(text or ""), quoted)
        return quoted

    def refused(self, stamp: str, remote_addr: str, status: int, body_bytes: int, why: str) -> str:  # noqa: ARG002
        """See `Format`."""
        return f'{remote_addr or "-"} - - [{stamp}] "-" {status} {body_bytes} "-" "-"\n'

    def lost(self, stamp: str, count: int) -> str:
        """See `Format`; a line that analysers can read, of a status that no request has."""
        return f'- - - [{stamp}] "-" 000 0 "-" "{count} lines are lost"\n'


def client_of(forwarded_for: str, peer: str, trusted_peers: Collection[str]) -> str:
    """The client that trusted proxies name: the last address of X-Forwarded-For that is not a trusted proxy's.

    Each proxy adds whom it was asked by, so whatever stands before the first untrusted one is that one's claim.
    """
    client = peer
    while client in trusted_peers and forwarded_for:
        forwarded_for, _, last = forwarded_for.rpartition(",")
        last = last.strip(" \t")
        if not _ADDRESS.fullmatch(last):
            break
        client = last
    return client


def without_query(target: str) -> str:
    """A request's target or a page's address, up to the query string or fragment."""
    return target.partition("?")[0].partition("#")[0]


def _quoted_to(most: int, text: str) -> str:
    """`text` as a JSON string of at most `most` characters; what is too long ends with dots."""
    quoted = _quoted(text[:most])
    if len(quoted) > most:
        quoted = _quoted(text[: most - 5] + "...")
    if len(quoted) > most:  # it needs escapes, none of which may be cut
        quoted = _quoted(text[: (most - 5) // _LONGEST_ESCAPE] + "...")
    return quoted


def _remember(table: dict[_K, str], key: _K, key_size: int, text: str) -> None:
    if key_size + len(text) <= _MAX_REMEMBERED_TEXT:
        if len(table) >= _MAX_REMEMBERED:
            table.clear()
        table[key] = text
