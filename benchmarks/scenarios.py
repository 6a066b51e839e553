"""The kinds of load: which requests are sent, and what must come back.

Every request is made here, once, and sent byte for byte by wrk (through load.lua) and by client.py, which counts under
callgrind; both take a scenario's exchanges in turn, over all connections. So consecutive requests of a connection
differ as they do behind a balancer, which mixes its clients' requests.

`ten headers` is what a browser sends for a page's data, with what a balancer adds; each request has `Host` besides.
User-Agent and Accept-Language are those of four browsers; Referer is one of 64 pages; Cookie and X-Forwarded-For
belong to one of 1,024 clients; X-Request-Id is never repeated among 4,096 requests in a row; the rest is always the
same. `echo` posts JSON objects of exactly 1 KiB, each with another id.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

from benchmarks import loads
from benchmarks.client import Exchange
from benchmarks.peers import contract

_CLIENTS = 1024
_PAGES = 64
_IDS = 4096  # 4 each client; more of them would take wrk's time to walk through memory
_ECHOES = 256
ECHO_BYTES = 1024
_CHROME = "Mozilla/5.0 ({}) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"
_SAFARI = (
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/18.6 Safari/605.1.15"
)
_BROWSERS = (
    (_CHROME.format("Windows NT 10.0; Win64; x64"), "en-US,en;q=0.9"),
    (_CHROME.format("Linux; Android 10; K"), "pt-BR,pt;q=0.9,en;q=0.8"),
    ("Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0", "de,en-US;q=0.7,en;q=0.3"),
    (_SAFARI, "fr-FR,fr;q=0.9"),
)


def _digest(text: str) -> str:
    """32 hexadecimal digits that look drawn by lot, and are the same in every run."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def browser_headers(number: int) -> tuple[tuple[str, str], ...]:
    """The ten headers of the request of this number."""
    client = number % _CLIENTS
    user_agent, language = _BROWSERS[client % len(_BROWSERS)]
    return (
        ("User-Agent", user_agent),
        ("Accept", "application/json, text/plain, */*"),
        ("Accept-Language", language),
        ("Accept-Encoding", "gzip, deflate, br, zstd"),
        ("Referer", f"https://www.example.com/items/{number % _PAGES}"),
        ("Cookie", f"session={_digest(f'session {client}')}; theme=dark; seen={client}"),
        ("Cache-Control", "no-cache"),
        ("X-Forwarded-For", f"198.51.{100 + client // 256}.{client % 256}"),
        ("X-Forwarded-Proto", "https"),
        ("X-Request-Id", _digest(f"request {number}")),
    )


def echo_body(number: int) -> bytes:
    """A JSON object of `ECHO_BYTES`, as an ordering client might send it."""
    order = {
        "order": number,
        "customer": _digest(f"customer {number}"),
        "paid": number % 2 == 0,
        "lines": [{"article": 1000 + line, "count": line % 3 + 1, "price": 9.75 + line} for line in range(16)],
        "note": "",
    }
    order["note"] = "x" * (ECHO_BYTES - len(_compact(order)))
    return _compact(order)


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _echo(number: int) -> Exchange:
    body = echo_body(number)
    return Exchange("/echo", body, "POST", (("Content-Type", "application/json"),), body)


_HELLO = Exchange("/hello", contract.HELLO_BYTES)


@dataclasses.dataclass(frozen=True)
class Scenario:
    """One kind of load."""

    name: str
    tool: str  # wrk or ab
    exchanges: tuple[Exchange, ...]
    counted_requests: int  # one sample under callgrind: a second for the fastest, twenty for the slowest; 0: none

    def argv(self, port: int, seconds: int, directory: Path) -> list[str]:
        """The load's command; wrk's requests are written into `directory`."""
        if self.tool == "ab":
            return loads.ab_argv(port, self.exchanges[0].path, seconds)
        return loads.wrk_argv(port, self.exchanges, seconds, directory / "requests")


HELLO = Scenario("hello", "wrk", (_HELLO,), 1000)
TEN_HEADERS = Scenario(
    "hello, ten headers",
    "wrk",
    tuple(dataclasses.replace(_HELLO, headers=browser_headers(number)) for number in range(_IDS)),
    600,
)
ECHO = Scenario("echo of 1 KiB", "wrk", tuple(map(_echo, range(_ECHOES))), 600)
QUERY = Scenario(
    "query",
    "wrk",
    tuple(Exchange(f"/users/{id_}", contract.user_bytes(id_)) for id_ in range(1, contract.USERS + 1)),
    600,
)
HELLO_AB = Scenario("hello, ab -k", "ab", (_HELLO,), 0)
SCENARIOS = (HELLO, TEN_HEADERS, ECHO, QUERY, HELLO_AB)
