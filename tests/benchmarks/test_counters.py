"""Reading perf, callgrind and /proc: from their own output, and by counting real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from benchmarks import counters, machine
from tests.services.requirements import program

if TYPE_CHECKING:
    from pathlib import Path

PERF = """
123456,,instructions:u,1000000,100.00,,
<not supported>,,instructions:k,0,100.00,,
<not counted>,,raw_syscalls:sys_enter,0,100.00,,
1.15,msec,task-clock,1150698,100.00,0.011,CPUs utilized
"""

CALLGRIND = """# callgrind format
version: 1
pid: 8380
part: 2
positions: line
events: Ir
thread: 2
summary: 0

fn=(1) whatever
12 398335016
totals: 398335016
"""

STAT = """cpu  100 0 100 1000 0 0 0 50 0 0
cpu0 50 5 40 500 20 3 2 80 0 0
cpu1 50 0 60 500 0 0 0 10 0 0
intr 1 2 3
"""


def test_perf_counts_are_read_and_what_it_could_not_count_is_left_out() -> None:
    assert counters.parse_perf(PERF) == {"instructions:u": 123456}


def test_the_instructions_of_a_callgrind_dump_are_read() -> None:
    assert counters.parse_callgrind(CALLGRIND) == (2, 398335016)


def test_a_callgrind_dump_without_a_sum_is_an_error_and_not_zero() -> None:
    with pytest.raises(ValueError, match="thread"):
        counters.parse_callgrind("# callgrind format\n")


SAMPLES = """
  1201      7f07a29c38dc
  1201  ffffffffb2a011b7
  1203  ffffffff81000000

  1201            4fb2c0
"""


def test_samples_tell_the_kernel_s_share_of_the_time_and_the_busiest_thread_s() -> None:
    samples = counters.parse_samples(SAMPLES)
    assert (samples.taken, samples.kernel_share, samples.main_thread_share) == (4, 0.5, 0.75)


def test_without_samples_there_is_no_share() -> None:
    samples = counters.parse_samples("\n")
    assert (samples.kernel_share, samples.main_thread_share) == (None, None)


def test_a_process_that_only_computes_is_sampled_outside_the_kernel_and_one_that_calls_it_inside(
    tmp_path: Path,
) -> None:
    program("perf")
    if not counters.perf_samples():
        pytest.skip("the kernel does not let perf sample here: that takes root")
    shares = []
    for work in ("sum(range(1000))", "os.stat('/usr/lib/../lib/../lib/../lib')"):
        source = f"import os, sys\nprint(flush=True)\nsys.stdin.readline()\nwhile True: {work}"
        with subprocess.Popen([sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            load = ["sh", "-c", f"echo > /proc/{child.pid}/fd/0; sleep 0.5"]
            recorded = tmp_path / "perf.data"
            subprocess.run(counters.sampling_argv([child.pid], recorded, load), check=True)
            child.kill()
            shares.append(counters.read_samples(recorded).kernel_share)
    computing, calling = shares
    assert computing is not None
    assert calling is not None
    assert computing < 0.2 < calling


def test_a_core_s_times_tell_busy_from_stolen_and_idle() -> None:
    times = machine.parse_core_times(STAT, 0)
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    assert times.busy_s == pytest.approx(100 * tick_s)
    assert times.steal_s == pytest.approx(80 * tick_s)
    assert times.total_s == pytest.approx(700 * tick_s)


def test_a_core_that_is_not_there_is_an_error() -> None:
    with pytest.raises(LookupError):
        machine.parse_core_times(STAT, 2)


def test_the_cpu_time_of_a_process_is_what_it_used() -> None:
    source = "import os\nwhile sum(os.times()[:2]) < 0.3: pass\nprint(flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        used = machine.cpu_times([child.pid])
        child.communicate(b"\n")
    assert 0.25 < used.user_s + used.system_s < 0.6


def test_the_system_calls_of_a_process_are_counted_while_the_load_runs(tmp_path: Path) -> None:
    program("perf")
    if not counters.perf_counts_syscalls():
        pytest.skip("the kernel does not let perf count system calls here: that takes root")
    source = "import os, sys\nprint(flush=True)\nsys.stdin.readline()\nfor _ in range(5000): os.getppid()\ninput()"
    with subprocess.Popen([sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        # The load of this test: a program that lets the process go, and gives it time to make its calls.
        load = ["sh", "-c", f"echo > /proc/{child.pid}/fd/0; sleep 0.5"]
        output = tmp_path / "perf.out"
        subprocess.run(counters.perf_argv((counters.SYSCALLS,), [child.pid], output, load), check=True)
        child.communicate(b"\n")
    assert 5000 <= counters.parse_perf(output.read_text())[counters.SYSCALLS] < 5200


def test_perf_is_not_said_to_count_what_it_cannot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    perf = tmp_path / "perf"
    perf.write_text("#!/bin/sh\necho '<not supported>,,instructions:u,0,100.00,,' >&2\n")
    perf.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    counters._countable.cache_clear()
    try:
        assert not counters.perf_counts_instructions()
    finally:
        counters._countable.cache_clear()
