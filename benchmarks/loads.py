"""wrk and ab: started for a bounded time against 127.0.0.1, their figures read back.

wrk reports through load.lua, so nothing is parsed out of its prose. Its latencies are corrected for
coordinated omission, so one stall near the start raises the whole run's p99. ab speaks HTTP/1.0 with
`Connection: keep-alive`, which some servers answer by closing; how many answers came over a kept connection
is therefore recorded.
"""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.client import Exchange

CONNECTIONS = 64  # enough to keep one worker's core full, few enough that every server can hold them
_SCRIPT = Path(__file__).with_name("load.lua")
_GRACE_S = 30  # wrk and ab end by themselves after their time; one that does not is broken


@dataclasses.dataclass(frozen=True)
class LoadResult:
    """What one burst of load saw."""

    requests: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    errors: int  # answers other than 2xx or 3xx, and failed, reset or timed-out connections
    kept_alive: int | None = None  # ab only: answers over a kept connection


def wrk_argv(port: int, exchanges: Sequence[Exchange], seconds: int, requests: Path) -> list[str]:
    """The command for wrk. More than one exchange is written into the file `requests`, for load.lua."""
    url = f"http://127.0.0.1:{port}{exchanges[0].path}"
    options = ["-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "10s", "-s", str(_SCRIPT)]
    if len(exchanges) == 1:
        return ["wrk", *options, url]
    messages = [exchange.request(port) for exchange in exchanges]
    requests.write_bytes(b"".join(b"%d\n%s" % (len(message), message) for message in messages))
    return ["wrk", *options, url, "--", str(requests)]


def ab_argv(port: int, path: str, seconds: int) -> list[str]:
    """The command for ab; -n after -t, since -t sets it to 50,000."""
    limits = ["-t", f"{seconds}", "-n", "10000000", "-s", "10"]
    return ["ab", "-q", "-k", "-c", str(CONNECTIONS), *limits, f"http://127.0.0.1:{port}{path}"]


def run(argv: list[str], seconds: int) -> str:
    """Run a load command to its end; return what it wrote."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + _GRACE_S, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout


def parse_wrk(output: str) -> LoadResult:
    """Read load.lua's line."""
    line = next(line for line in reversed(output.splitlines()) if line.startswith("{"))
    figures = json.loads(line)
    return LoadResult(
        requests=figures["requests"],
        requests_per_s=figures["requests"] / (figures["duration_us"] / 1e6),
        p50_ms=figures["p50_us"] / 1000,
        p99_ms=figures["p99_us"] / 1000,
        errors=figures["bad_status"] + figures["socket_errors"],
    )


def parse_ab(output: str) -> LoadResult:
    """Read ab's report. A body of another length than the first counts as failed there, so it does here."""

    def number(pattern: str) -> float:
        found = re.search(pattern, output, re.MULTILINE)
        return float(found.group(1)) if found else 0.0

    return LoadResult(
        requests=int(number(r"^Complete requests:\s+(\d+)")),
        requests_per_s=number(r"^Requests per second:\s+([\d.]+)"),
        p50_ms=number(r"^\s*50%\s+(\d+)"),
        p99_ms=number(r"^\s*99%\s+(\d+)"),
        errors=int(number(r"^Failed requests:\s+(\d+)") + number(r"^Non-2xx responses:\s+(\d+)")),
        kept_alive=int(number(r"^Keep-Alive requests:\s+(\d+)")),
    )
