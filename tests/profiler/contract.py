"""The contract of a report, an example of the files it is made of, and how a test makes one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from profiler.report.build import build
from profiler.report.reader import read

DATA = Path(__file__).parent / "data"
EXAMPLE = DATA / "two_workers"

# The contract of the JSON, as every format and every program that reads it relies on.
NUMBER = (int, float)
BY_CAUSE = {"*": NUMBER}  # any keys
QUANTILES = {"p50": NUMBER, "p99": NUMBER, "max": NUMBER}
SLOW_REQUEST = {
    "host": str,
    "pid": int,
    "route": str,
    "request_id": str,
    "started": str,
    "total_ms": NUMBER,
    "running_ms": NUMBER,
    "waiting_ms": NUMBER,
    "queued_ms": NUMBER,
    "blamed": [
        {
            "file": str,
            "line": int,
            "route": str,
            "ms": NUMBER,
            "own": bool,
            "excuse": str,
            "started": str | None,
            "length_ms": float | None,
        }
    ],
}
CONTRACT = {
    "schema": str,
    "window": {"start": str, "end": str, "duration_s": NUMBER},
    "threshold_ms": NUMBER,
    "workers": [
        {
            "host": str,
            "pid": int,
            "requests": int,
            "switches": int,
            "slices_over": int,
            "hub_busy_ratio": NUMBER,
            "overhead_ratio": NUMBER,
            "dropped": int,
            "displaced": int,
            "hook": str,
        }
    ],
    "hub": {"delay_ms": QUANTILES},
    "sites": [
        {
            "rank": int,
            "file": str,
            "line": int,
            "function": str,
            "exact": bool,
            "cause": str,
            "innocent": bool,
            "library": bool,
            "routes": [str],
            "count": int,
            "busy_ms": {"total": NUMBER, **QUANTILES},
            "split_ms": BY_CAUSE,
            "harm_ms": NUMBER,
            "victims": int,
            "stuck_ms": NUMBER,
            "source": str,
            "stack": [str],
            "advice": str,
        }
    ],
    "routes": [
        {
            "route": str,
            "requests": int,
            "errors": int,
            "total_ms": QUANTILES,
            "running_ms": QUANTILES,
            "waiting_ms": QUANTILES,
            "queued_ms": QUANTILES,
            "longest_slice_ms": QUANTILES,
        }
    ],
    "slowest": [SLOW_REQUEST],
    "moments": [
        {
            "request": SLOW_REQUEST,
            "objective_ms": float | None,
            "start": str,
            "length_ms": NUMBER,
            "idle_ms": NUMBER,
            "short_ms": NUMBER,
            "slices": [
                {
                    "kind": str,
                    "route": str,
                    "request_id": str,
                    "file": str,
                    "line": int,
                    "function": str,
                    "yielded": bool,
                    "excuse": str,
                    "started": str,
                    "length_ms": NUMBER,
                }
            ],
            "more_slices": {"count": int, "ms": NUMBER},
            "waited": [SLOW_REQUEST],
            "more_waited": {"count": int, "queued_ms": NUMBER},
        }
    ],
    "left_out": {
        "sites": int,
        "routes": int,
        "workers": int,
        "moments": int,
        "unreadable_lines": int,
        "files_of_another_schema": int,
    },
}


def check(value: Any, shape: Any, where: str = "report") -> None:
    """Raise unless `value` has exactly this shape."""
    if shape is BY_CAUSE:
        shape = dict.fromkeys(value, NUMBER)
    if isinstance(shape, dict):
        assert list(value) == list(shape), where
        for key, inner in shape.items():
            check(value[key], inner, f"{where}.{key}")
    elif isinstance(shape, list):
        for number, one in enumerate(value):
            check(one, shape[0], f"{where}[{number}]")
    else:
        assert isinstance(value, shape), where
        assert shape is bool or not isinstance(value, bool), where


def report_on(directory: Path) -> dict[str, Any]:
    return build(read([str(directory)]))


def copy_of_example(directory: Path) -> list[Path]:
    copies = []
    for path in sorted(EXAMPLE.glob("*.jsonl")):
        copies.append(directory / path.name)
        copies[-1].write_bytes(path.read_bytes())
    return copies
