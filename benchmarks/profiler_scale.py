"""What the profiler keeps of very much, and how soon a report is made of it.

    python -m benchmarks.profiler_scale             a million requests, 10,000 places that stall, 100,000 URLs
    python -m benchmarks.profiler_scale --requests 100000 --sites 1000 --urls 10000

Records it (profiler_scale_load.py), then makes a report of the files in each format, each in a process of its own.
Memory is what a process had resident at most, less what it had before it began: code and libraries loaded, the made-up
application in place. Exit status 1 when a bound is not kept (`MAX_MIB`, `MAX_REPORT_S`), or when a report does not add
up to what was recorded, or does not name the five worst places.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import profiler
from benchmarks.profiler_scale_load import Sites, Size, Truth, record
from profiler.report import FORMATS
from profiler.report.build import build
from profiler.report.reader import read

MAX_MIB = 32.0  # added, of the worker and of the report
MAX_REPORT_S = 10.0
MIB = 1 << 20


def differences(report: dict[str, Any], truth: Truth) -> list[str]:
    """In what a report differs from what was recorded."""
    sites = report["sites"]
    recorded: dict[str, float] = {
        "requests": truth.requests,
        "slices over the threshold": truth.slices,
        "harm in ms": round(1000 * truth.harm_s),
        "victims": truth.victims,
        "dropped": 0,
    }
    reported: dict[str, float] = {
        "requests": sum(route["requests"] for route in report["routes"]),
        "slices over the threshold": sum(site["count"] for site in sites),
        "harm in ms": round(sum(site["harm_ms"] for site in sites)),
        "victims": sum(site["victims"] for site in sites),
        "dropped": sum(worker["dropped"] for worker in report["workers"]),
    }
    wrong = [f"{name}: {reported[name]}, not {value}" for name, value in recorded.items() if reported[name] != value]
    worst = [site["function"] for site in sites[:5]]
    expected = [f"stall_{number}" for number in range(5)]
    return wrong if worst == expected else [*wrong, f"the five worst are {worst}, not {expected}"]


def measured(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and MiB that were resident more than before at most."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before_bytes = _resident("VmRSS")
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s, (_resident("VmHWM") - before_bytes) / MIB


def _resident(field: str) -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition(f"{field}:")[2].split()[0])


def _record(directory: str, size: Size) -> dict[str, Any]:
    sites = Sites(Path(directory) / "application", size.sites)
    truth = Truth()
    record(Path(directory) / "warm", sites, Size(1000, 10, 10))  # what is made once, at the first use

    def work() -> None:
        nonlocal truth
        truth = record(Path(directory) / "profile", sites, size)

    seconds, mib = measured(work)
    return {"seconds": seconds, "mib": mib, "truth": asdict(truth)}


def _report(directory: str, format_: str, truth: Truth) -> dict[str, Any]:
    render = importlib.import_module(f"profiler.render.{format_}").render
    report: dict[str, Any] = {}
    shown = ""

    def work() -> None:
        nonlocal report, shown
        report = build(read([str(Path(directory) / "profile")]))
        shown = render(report)

    seconds, mib = measured(work)
    return {"seconds": seconds, "mib": mib, "bytes": len(shown.encode()), "wrong": differences(report, truth)}


def _in_process(what: str, directory: str, size: Size, truth: dict[str, Any] | None = None) -> dict[str, Any]:
    arguments = [f"--{name}={value}" for name, value in asdict(size).items()]
    command = [sys.executable, "-m", "benchmarks.profiler_scale", "--only", what, "--directory", directory, *arguments]
    done = subprocess.run(command, input=json.dumps(truth), check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _line(what: str, result: dict[str, Any], size: str) -> str:
    return f"{what:<12}{result['mib']:>8.1f} MiB added{result['seconds']:>8.1f} s   {size}"


def main() -> int:
    """Measure, print, judge; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in asdict(Size()).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--directory", help=argparse.SUPPRESS)
    given = parser.parse_args()
    size = Size(given.requests, given.sites, given.urls)
    if given.only:
        truth = json.load(sys.stdin)
        one = _record(given.directory, size) if given.only == "record" else None
        print(json.dumps(one or _report(given.directory, given.only, Truth(**truth))))
        return 0
    print(f"{size.requests:,} requests, {size.sites:,} places that stall, {size.urls:,} URLs")
    print(f"hook {f'interpreted: {profiler.why_interpreted}' if profiler.why_interpreted else 'compiled'}")
    failed = []
    with tempfile.TemporaryDirectory() as directory:
        recorded = _in_process("record", directory, size)
        stored_mib = sum(path.stat().st_size for path in Path(directory, "profile").iterdir()) / MIB
        print(_line("recording", recorded, f"{stored_mib:.1f} MiB stored"))
        if recorded["mib"] > MAX_MIB:
            failed.append(f"recording added {recorded['mib']:.1f} MiB, more than {MAX_MIB:g}")
        for format_ in FORMATS:
            made = _in_process(format_, directory, size, recorded["truth"])
            print(_line(format_, made, f"{made['bytes'] / MIB:.2f} MiB long"))
            failed += [f"{format_}: {wrong}" for wrong in made["wrong"]]
            if made["mib"] > MAX_MIB:
                failed.append(f"{format_} added {made['mib']:.1f} MiB, more than {MAX_MIB:g}")
            if made["seconds"] > MAX_REPORT_S:
                failed.append(f"{format_} took {made['seconds']:.1f} s, more than {MAX_REPORT_S:g}")
    print("\n".join(failed) or "all bounds kept; every report adds up to what was recorded")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
