"""A gigabyte up and a gigabyte down: how fast, beside nginx, and in how much memory?

    python -m benchmarks.transfer            1 GiB each way, five rounds: some three minutes
    python -m benchmarks.transfer --quick    64 MiB, one round, no peers: to see that it works

Downloads: a file by `wsgi.file_wrapper`, and a generator's pieces of 64 KiB with a Content-Length and chunked; nginx
sends the same file by sendfile each time, since it has nothing like a generator. Uploads, with a Content-Length and
chunked, are read in pieces of 64 KiB and thrown away. nginx throws them away with `return 200`, which reads the body to
its end in pieces of 4 KiB (seen with strace) and keeps the connection: no disk, no second process, the fastest that it
has. It answers before it has read, hence bulk_client.py's way to tell the end of an upload.

One server process on one core, the client on the other. Each transfer of ours stands between nginx's of the same round;
a ratio is taken within a round. A round in which the hypervisor took more than 2 % of either core from nginx or from
us is made again, and is shown but not counted. Before the measurement each server's transfers are verified with a
checksum; nginx cannot add an upload up. Memory is the kernel's own peak of resident memory (VmHWM, reset before each
transfer), of all the server's processes, over what they held before the first transfer.
On loopback the sender's core also does the receiver's share of the network, so uploads are limited by the client's
core: compare CPU seconds there, beside speed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import statistics
import sys
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks import bulk_client, environment, machine, serving, transfer_servers
from benchmarks.client import LoadError
from benchmarks.measure import say
from benchmarks.transfer_servers import NGINX, OURS
from tests.services.processes import ServerError

LEAST_OF_NGINX = 0.5  # the promises: half of nginx's speed ...
MOST_GROWTH_MIB = 16.0  # ... in little more memory than before
MOST_STEAL_PERCENT = 2.0
_MIB = 1024 * 1024
_GIB = 1024 * _MIB
_RAM_DISK = Path("/dev/shm")


@dataclasses.dataclass(frozen=True)
class Scenario:
    """One way to move the file."""

    name: str
    path: str
    upload: bool = False
    chunked: bool = False  # an upload; of downloads the server decides


SCENARIOS = (
    Scenario("download, file", "/file"),
    Scenario("download, pieces with a length", "/sized"),
    Scenario("download, pieces chunked", "/chunked"),
    Scenario("upload, with a length", "/discard", upload=True),
    Scenario("upload, chunked", "/discard", upload=True, chunked=True),
)


@dataclasses.dataclass(frozen=True)
class Files:
    """What is moved."""

    plain: Path
    chunked: Path  # the same in chunks, ready to be sent
    size: int
    crc: int


@dataclasses.dataclass(frozen=True)
class Transfer:
    """One transfer, measured."""

    scenario: str
    contestant: str
    round: int
    counted: bool  # nothing was stolen in this round
    gib_per_s: float
    cpu_s_per_gib: float  # of all the server's processes
    grown_mib: float  # the peak of resident memory over what there was before the first transfer
    steal_percent: float  # of the server's core or the client's, whichever lost more


def run(cores: tuple[int, int], *, size_bytes: int = _GIB, rounds: int = 5, peers: bool = True) -> dict[str, Any]:
    """Measure; `cores` are the server's and the client's. Raises `LoadError` or `ServerError` if nginx or we fail."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(machine.on_core(cores[1]))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tafe-transfer-", dir=_place(size_bytes))))
        files = _make_files(folder, size_bytes)
        programs = environment.ensure() if peers else Path()
        up, left_out = [], {}
        for contestant in transfer_servers.contestants(files.plain, peers=peers):
            say(f"starting and verifying {contestant.name}")
            try:
                contender = serving.Contender(
                    contestant, folder / contestant.name, cores[0], database_url=None, programs=programs
                )
                stack.callback(contender.kill)
                before_kib = sum(_resident(pid)[0] for pid in contender.pids)
                _verify(contender, files)
                up.append((contender, before_kib))
            except (LoadError, ServerError, serving.WrongAnswerError) as error:
                if contestant.name in (OURS, NGINX):
                    raise
                left_out[contestant.name] = str(error)
                say(f"  left out: {error}")
        transfers = list(_rounds(up, files, cores, rounds))
    return {
        "settings": {"size_bytes": size_bytes, "rounds": rounds},
        "versions": transfer_servers.versions(programs, [contender.contestant.name for contender, _ in up]),
        "left_out": left_out,
        "transfers": [dataclasses.asdict(transfer) for transfer in transfers],
        **judged(transfers),
    }


def _place(size_bytes: int) -> Path | None:
    """The RAM disk if both copies of the file have room there, since no disk is measured; else the usual folder."""
    if _RAM_DISK.is_dir() and shutil.disk_usage(_RAM_DISK).free > 3 * size_bytes:
        return _RAM_DISK
    return None


def _make_files(folder: Path, size_bytes: int) -> Files:
    """Bytes that differ from mebibyte to mebibyte, so that a piece sent twice or out of place is found."""
    plain, chunked = folder / "file", folder / "file.chunked"
    block = os.urandom(_MIB - 8)
    crc = 0
    with plain.open("wb") as file:
        for number in range(size_bytes // _MIB):
            piece = number.to_bytes(8, "big") + block
            crc = zlib.crc32(piece, crc)
            file.write(piece)
    bulk_client.chunked_copy(plain, chunked)
    return Files(plain, chunked, size_bytes, crc)


def _verify(contender: serving.Contender, files: Files) -> None:
    """Move the file once in every way, and compare checksums. Warms up, too."""
    for scenario in SCENARIOS:
        asked = dataclasses.replace(scenario, path="/checksum") if scenario.upload else scenario
        moved = _move(contender, asked, files, checksum=True)
        found = moved.answer if scenario.upload else b"%d" % (moved.checksum or 0)
        if found != b"%d" % files.crc and not (scenario.upload and contender.contestant.name == NGINX):
            raise LoadError(f"{contender.contestant.name}: {scenario.name}: the checksum is {found!r}, not {files.crc}")


def _move(
    contender: serving.Contender, scenario: Scenario, files: Files, *, checksum: bool = False
) -> bulk_client.Moved:
    if not scenario.upload:
        moved = bulk_client.download(contender.port, scenario.path, checksum=checksum)
    else:
        file = files.chunked if scenario.chunked else files.plain
        moved = bulk_client.upload(contender.port, scenario.path, file, body_bytes=files.size, chunked=scenario.chunked)
    if moved.body_bytes != files.size:
        raise LoadError(f"{contender.contestant.name}: {scenario.name}: {moved.body_bytes} of {files.size} bytes")
    return moved


def _rounds(
    up: Sequence[tuple[serving.Contender, int]], files: Files, cores: tuple[int, int], rounds: int
) -> Iterator[Transfer]:
    """For each scenario all contestants in turn, until `rounds` rounds count or twice as many were made."""
    for scenario in SCENARIOS:
        good = 0
        for number in range(1, 2 * rounds + 1):
            made = [_measured(contender, before, scenario, number, files, cores) for contender, before in up]
            counted = all(t.steal_percent <= MOST_STEAL_PERCENT for t in made if t.contestant in (OURS, NGINX))
            good += counted
            say(
                f"{scenario.name:<31} {'' if counted else 'stolen from, not counted: '}"
                + "  ".join(f"{t.contestant} {t.gib_per_s:.2f} GiB/s" for t in made)
            )
            yield from (dataclasses.replace(transfer, counted=counted) for transfer in made)
            if good == rounds:
                break


def _measured(
    contender: serving.Contender, before_kib: int, scenario: Scenario, number: int, files: Files, cores: tuple[int, int]
) -> Transfer:
    pids = contender.pids
    for pid in pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # proc_pid_clear_refs(5): resets the peak of resident memory
    cores_before, cpu_before = [machine.core_times(core) for core in cores], contender.cpu_times()
    moved = _move(contender, scenario, files)
    cpu = contender.cpu_times() - cpu_before
    passed = [machine.core_times(core) - then for core, then in zip(cores, cores_before, strict=True)]
    gib = files.size / _GIB
    return Transfer(
        scenario=scenario.name,
        contestant=contender.contestant.name,
        round=number,
        counted=False,
        gib_per_s=gib / moved.seconds,
        cpu_s_per_gib=(cpu.user_s + cpu.system_s) / gib,
        grown_mib=(sum(_resident(pid)[1] for pid in pids) - before_kib) / 1024,
        steal_percent=max(100 * core.steal_s / max(core.total_s, 0.01) for core in passed),
    )


def _resident(pid: int) -> tuple[int, int]:
    """Resident memory of a process in KiB, now and at its peak."""
    status = Path(f"/proc/{pid}/status").read_text()
    now, peak = (re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE) for name in ("VmRSS", "VmHWM"))
    assert now is not None
    assert peak is not None
    return int(now[1]), int(peak[1])


def judged(transfers: Sequence[Transfer]) -> dict[str, Any]:
    """Figures, medians of the rounds that count, and whether the promises are kept."""
    figures: list[dict[str, Any]] = []
    for scenario in SCENARIOS:
        counted = [t for t in transfers if t.scenario == scenario.name and t.counted]
        nginx = {t.round: t for t in counted if t.contestant == NGINX}
        for name in dict.fromkeys(t.contestant for t in counted):
            mine = [t for t in counted if t.contestant == name]
            figures.append(
                {
                    "scenario": scenario.name,
                    "contestant": name,
                    "rounds": len(mine),
                    "gib_per_s": statistics.median(t.gib_per_s for t in mine),
                    "of_nginx": statistics.median(t.gib_per_s / nginx[t.round].gib_per_s for t in mine),
                    "cpu_s_per_gib": statistics.median(t.cpu_s_per_gib for t in mine),
                    "grown_mib": max(t.grown_mib for t in mine),
                    "steal_percent": max(t.steal_percent for t in mine),
                }
            )
    ours = [figure for figure in figures if figure["contestant"] == OURS]
    complete = len(ours) == len(SCENARIOS)  # else every round of a scenario was spoilt
    return {
        "figures": figures,
        "fast_enough": complete and all(figure["of_nginx"] >= LEAST_OF_NGINX for figure in ours),
        "small_enough": complete and all(figure["grown_mib"] < MOST_GROWTH_MIB for figure in ours),
    }


def table(result: Mapping[str, Any]) -> str:
    """The figures as a markdown table for each scenario, and the verdict."""
    settings = result["settings"]
    lines = [
        (
            f"{settings['size_bytes'] / _GIB:g} GiB over one connection, server and client on a core each; medians of "
            f"{settings['rounds']} interleaved rounds; "
            + ", ".join(f"{name} {version}" for name, version in result["versions"].items())
            + "."
        )
    ]
    for scenario in dict.fromkeys(figure["scenario"] for figure in result["figures"]):
        lines += [
            "",
            f"| {scenario} | GiB/s | of nginx | CPU s/GiB | memory grown MiB | steal % | rounds |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        lines += [_row(figure) for figure in result["figures"] if figure["scenario"] == scenario]
    lines += [""] + [f"- {name}: left out: {why.splitlines()[0]}" for name, why in result["left_out"].items()]
    lines += [
        f"- At least {LEAST_OF_NGINX:g} of nginx's speed: {_kept(result['fast_enough'])}.",
        f"- Memory grows by less than {MOST_GROWTH_MIB:g} MiB: {_kept(result['small_enough'])}.",
    ]
    return "\n".join(lines)


def _row(figure: Mapping[str, Any]) -> str:
    name = f"**{figure['contestant']}**" if figure["contestant"] == OURS else figure["contestant"]
    return (
        f"| {name} | {figure['gib_per_s']:.2f} | {figure['of_nginx']:.2f} | {figure['cpu_s_per_gib']:.2f} "
        f"| {figure['grown_mib']:.1f} | {figure['steal_percent']:.1f} | {figure['rounds']} |"
    )


def _kept(promise: bool) -> str:
    return "kept" if promise else "**not kept**"


@click.command()
@click.option("--quick", is_flag=True, help="64 MiB, one round, no peers: to try it, not to publish it.")
@click.option(
    "--rounds", default=5, show_default=True, type=click.IntRange(1, 50), help="Interleaved rounds that count."
)
def main(*, quick: bool, rounds: int) -> None:
    """Measure large transfers beside nginx; exit status 1 if a promise is not kept."""
    cores = machine.needed_cores()
    result = run(cores, size_bytes=64 * _MIB, rounds=1, peers=False) if quick else run(cores, rounds=rounds)
    print(table(result))
    if not (result["fast_enough"] and result["small_enough"]):
        sys.exit(1)


if __name__ == "__main__":
    main()
