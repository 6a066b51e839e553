"""Instructions and system calls a request: by perf where the processor has counters for us, else by callgrind.

perf counts what the processor retired, in user and kernel mode, while wrk runs at full speed. Many virtual
machines hide those counters; there the server runs under valgrind's callgrind, which counts the user-mode
instructions of every process and thread exactly and sees nothing of the kernel. The two figures differ by
the kernel's share and are never mixed in one table: a result names its method. What works on virtual machines
too, for root, since it is software: perf's tracepoint counts system calls, and its clock samples whether a
thread is in the kernel, which gives the kernel's share of CPU time (not of instructions).

Under callgrind a server is fifty times slower, threads run one at a time, and AVX-512 is not offered, so a
server that spins while it waits is charged a little more, and wide string operations a little more, than in
the open.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

USER, KERNEL, SYSCALLS = "instructions:u", "instructions:k", "raw_syscalls:sys_enter"
_VGDB_TIMEOUT_S = 60.0
# Some 5,000 samples of a busy second tell a share to within 1.4 percent (two standard deviations at one third); at 2 us
# each they cost a percent of the time. No divisor of the kernel's tick, so that the two do not run in step.
_SAMPLES_PER_S = 4999
_KERNEL_ADDRESSES = 1 << 63  # from here on, on every 64-bit Linux


def perf_argv(events: Sequence[str], pids: Iterable[int], output: Path, load: Sequence[str]) -> list[str]:
    """`load`, with the events of the processes (all threads, and those they start) counted while it runs."""
    targets = ",".join(map(str, pids))
    return ["perf", "stat", "-x,", "-o", str(output), "-e", ",".join(events), "-p", targets, "--", *load]


def parse_perf(text: str) -> dict[str, int]:
    """Counts by event out of `perf stat -x,`; what could not be counted is left out."""
    counts = {}
    for line in text.splitlines():
        fields = line.split(",")
        if len(fields) > 2 and fields[0].isdigit():
            counts[fields[2]] = int(fields[0])
    return counts


@functools.cache
def _countable(event: str) -> bool:
    if shutil.which("perf") is None:
        return False
    done = subprocess.run(["perf", "stat", "-x,", "-e", event, "true"], capture_output=True, text=True, check=False)
    return parse_perf(done.stderr).get(event, 0) > 0


def perf_counts_instructions() -> bool:
    """True where the processor's instruction counters are readable in both modes."""
    return _countable(USER) and _countable(KERNEL)


def perf_counts_syscalls() -> bool:
    """True where the tracepoint of system calls may be used (root, or a permissive perf_event_paranoid)."""
    return _countable(SYSCALLS)


@dataclasses.dataclass(frozen=True)
class Samples:
    """What the threads of a server were doing whenever perf's clock looked."""

    taken: int
    kernel: int  # of them in the kernel
    main_thread: int  # of them in the thread that took most, which for us is the hub's

    @property
    def kernel_share(self) -> float | None:
        """Of the CPU time, from 0 to 1; None without samples."""
        return self.kernel / self.taken if self.taken else None

    @property
    def main_thread_share(self) -> float | None:
        """Of the CPU time, from 0 to 1; None without samples."""
        return self.main_thread / self.taken if self.taken else None


def sampling_argv(pids: Iterable[int], output: Path, load: Sequence[str]) -> list[str]:
    """`load`, while all threads of the processes are sampled by the CPU time that they use."""
    targets = ",".join(map(str, pids))
    options = ["-q", "-e", "cpu-clock", "-F", str(_SAMPLES_PER_S), "-o", str(output)]
    return ["perf", "record", *options, "-p", targets, "--", *load]


def read_samples(recorded: Path) -> Samples:
    """What `sampling_argv` has recorded."""
    argv = ["perf", "script", "-i", str(recorded), "-F", "tid,ip"]
    return parse_samples(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)


def parse_samples(text: str) -> Samples:
    """Samples out of `perf script -F tid,ip`: a thread and the address it was at, a line each."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    threads = collections.Counter(thread for thread, _ in lines)
    kernel = sum(int(address, 16) >= _KERNEL_ADDRESSES for _, address in lines)
    return Samples(len(lines), kernel, max(threads.values(), default=0))


@functools.cache
def perf_samples() -> bool:
    """True where perf may sample in user and kernel mode (root, or a permissive perf_event_paranoid)."""
    if shutil.which("perf") is None:
        return False
    source = "for _ in range(99999): open('/dev/null').close()"
    with tempfile.TemporaryDirectory() as directory:
        recorded = Path(directory) / "perf.data"
        argv = ["perf", "record", "-q", "-e", "cpu-clock", "-o", str(recorded), sys.executable, "-S", "-c", source]
        if subprocess.run(argv, capture_output=True, check=False).returncode != 0:
            return False
        return read_samples(recorded).kernel > 0


def callgrind_is_here() -> bool:
    """True where valgrind is installed."""
    return shutil.which("valgrind") is not None and shutil.which("vgdb") is not None


class Callgrind:
    """Counting for a server started with `wrap`; its warm-up runs uncounted, and faster, until `begin`.

    `main_thread_only`: leave out threads that work by the clock and not by the request, as our profiler's watchdog and
    writer do. A server that is fifty times slower would charge fifty times their work to each request.
    """

    def __init__(self, directory: Path, *, main_thread_only: bool = False) -> None:
        self._directory = directory
        self._main_thread_only = main_thread_only
        # Where the two find each other; by default in the system's temporary folder, where a killed server leaves it.
        self._vgdb_prefix = f"--vgdb-prefix={directory}/vgdb"
        directory.mkdir(parents=True, exist_ok=True)

    def wrap(self, argv: Sequence[str]) -> list[str]:
        """`argv` under callgrind, with the processes it forks or starts."""
        options = ["--instr-atstart=no", "--trace-children=yes", "--separate-threads=yes", "--quiet"]
        options.append(self._vgdb_prefix)
        output = f"--callgrind-out-file={self._directory}/out.%p"
        return ["valgrind", "--tool=callgrind", *options, output, *argv]

    def begin(self, pids: Iterable[int]) -> None:
        """Start counting in these processes."""
        for pid in pids:
            self._tell(pid, "instrumentation on")

    def take(self, pids: Sequence[int]) -> int:
        """The instructions since `begin` or the last `take`, of all these processes and their threads."""
        for earlier in self._directory.glob("out.*"):
            earlier.unlink()
        for pid in pids:
            self._tell(pid, "dump")
        dumps = [parse_callgrind(path.read_text()) for path in self._directory.glob("out.*-*")]
        return sum(count for thread, count in dumps if thread == 1 or not self._main_thread_only)

    def _tell(self, pid: int, command: str) -> None:
        done = subprocess.run(
            ["vgdb", self._vgdb_prefix, f"--pid={pid}", *command.split()],
            capture_output=True,
            text=True,
            timeout=_VGDB_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"vgdb {command} for process {pid}: {done.stderr.strip()}")


def parse_callgrind(text: str) -> tuple[int, int]:
    """The thread, counted from 1, that a dump is of, and its instructions."""
    thread = re.search(r"^thread: (\d+)", text, re.MULTILINE)
    total = re.search(r"^totals: (\d+)", text, re.MULTILINE)
    if thread is None or total is None:
        raise ValueError("a callgrind dump without its thread or its total")
    return int(thread[1]), int(total[1])
