"""What profiles may take of the disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from socket import gethostname
from typing import Any

import pytest

from profiler import retention, writer
from profiler.report.build import build
from profiler.report.reader import read
from profiler.retention import MAX_AGE_S, MAX_TOTAL_BYTES, Stored, expired, file_name
from profiler.sites import SiteTable
from profiler.writer import MAX_HANDED_OVER, Writer
from tests.profiler.test_sites import BLOCKING, found

NOW_S = 1_800_000_000.0
HOUR_S = 3600.0


def stored(pid: int, *, age_s: float, size_bytes: int = 1000) -> Stored:
    return Stored(file_name("a", pid, 1), "a", pid, 1, NOW_S - age_s, size_bytes)


def pids(files: list[Stored], *, alive: tuple[int, ...] = ()) -> list[int]:
    return [file.pid for file in expired(files, NOW_S, lambda file: file.pid in alive)]


def test_what_is_too_old_goes() -> None:
    assert pids([stored(1, age_s=MAX_AGE_S + 1), stored(2, age_s=MAX_AGE_S - 1)]) == [1]


def test_of_what_is_too_much_the_oldest_goes_first_and_no_more_than_needed() -> None:
    third = MAX_TOTAL_BYTES // 3
    files = [stored(pid, age_s=pid * HOUR_S, size_bytes=third) for pid in (1, 3, 2, 5, 4)]
    assert pids(files) == [5, 4]
    assert pids(files[:3]) == []


def test_a_file_that_a_living_process_may_write_stays() -> None:
    files = [stored(pid, age_s=MAX_AGE_S + pid, size_bytes=MAX_TOTAL_BYTES) for pid in (1, 2)]
    assert pids(files, alive=(2,)) == [1]


def put(directory: Path, host: str, pid: int, *, age_s: float = 0.0) -> Path:
    path = directory / file_name(host, pid, 1_700_000_000_000)
    path.write_text("{}\n")
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def dead_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def open_writer(directory: Path) -> Writer:
    return Writer(str(directory), "w", 0.01, SiteTable())


def test_a_worker_deletes_at_its_start_what_dead_workers_left_long_ago_and_nothing_else(tmp_path: Path) -> None:
    old_s = MAX_AGE_S + HOUR_S
    here = gethostname()
    dead, living = dead_pid(), os.getppid()
    gone = [
        put(tmp_path, here, dead, age_s=old_s),
        put(tmp_path, here, os.getpid(), age_s=old_s),  # of an earlier process of that number
        put(tmp_path, "elsewhere", 7, age_s=old_s),
    ]
    stays = [put(tmp_path, here, living, age_s=old_s), put(tmp_path, here, dead + 1_000_000)]
    for name in ("notes.jsonl", "worker-a-b-c.jsonl", "worker-a-1-1700000000000.jsonl.gz", "worker-a-1-17.jsonl"):
        stays.append(tmp_path / name)
        stays[-1].write_text("mine")
        os.utime(stays[-1], (time.time() - old_s,) * 2)
    link = tmp_path / file_name(here, dead, 1_700_000_000_001)
    link.symlink_to(stays[-1])
    opened = open_writer(tmp_path)
    opened.start()
    opened.stop()
    assert [path.exists() for path in gone] == [False] * 3
    assert all(path.exists() for path in [*stays, link, Path(opened.path)])


def test_what_another_host_wrote_today_stays_however_much_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "MAX_TOTAL_BYTES", 0)
    today, yesterday = put(tmp_path, "b", 1, age_s=HOUR_S), put(tmp_path, "b", 2, age_s=25 * HOUR_S)
    retention.prune(str(tmp_path), gethostname(), ["current"])
    assert (today.exists(), yesterday.exists()) == (True, False)


class Lines:
    """A hand-over of one request."""

    records = 1

    def lines(self) -> Iterator[dict[str, Any]]:
        one = [-1000, 1]
        times = dict.fromkeys(("total", "running", "waiting", "queued"), one)
        yield {"type": "route", "route": "GET /", "requests": 1, "errors": 0, **times}


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "MAX_FILE_BYTES", 1000)


def fill(opened: Writer, times: int) -> None:
    for _ in range(times):
        opened.hand_over(Lines())
        opened._table.add(found(BLOCKING, {12: 0.03}))
        opened._flush()


@pytest.mark.usefixtures("small_files")
def test_a_full_file_is_followed_by_another_and_the_report_adds_them_up_as_one_worker(tmp_path: Path) -> None:
    opened = open_writer(tmp_path)
    fill(opened, 8)
    opened.close()
    files = sorted(tmp_path.glob("*.jsonl"))
    assert 1 < len(files) <= retention.KEPT_FILES
    assert str(files[-1]) == opened.path
    report = build(read([str(tmp_path)]))
    assert [worker["requests"] for worker in report["workers"]] == [8]
    assert [site["count"] for site in report["sites"]] == [8]


@pytest.mark.usefixtures("small_files")
def test_a_worker_under_load_for_ever_keeps_a_few_full_files(tmp_path: Path) -> None:
    opened = open_writer(tmp_path)
    fill(opened, 200)
    opened.close()
    sizes = [path.stat().st_size for path in tmp_path.glob("*.jsonl")]
    assert len(sizes) == retention.KEPT_FILES
    assert max(sizes) < 2000
    assert Path(opened.path).exists()


@pytest.mark.usefixtures("small_files")
def test_the_stack_of_a_site_is_once_in_each_file(tmp_path: Path) -> None:
    opened = open_writer(tmp_path)
    stack = ((fill.__code__, 1),)
    for _ in range(12):
        finding = found(BLOCKING, {12: 0.03})
        finding.stack = stack
        opened._table.add(finding)
        opened._flush()
    opened.close()
    files = sorted(tmp_path.glob("*.jsonl"))
    assert len(files) > 1
    for path in files:
        stacks = [line["stack"] for line in map(json.loads, path.read_text().splitlines()) if line["type"] == "site"]
        assert [bool(stack) for stack in stacks] == [True] + [False] * (len(stacks) - 1)


def test_a_file_that_is_a_day_old_is_followed_by_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_writer(tmp_path)
    fill(opened, 2)
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(writer, "MAX_FILE_AGE_S", 0.0)
    fill(opened, 1)
    opened.close()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_directory_that_is_deleted_under_a_worker_is_made_again(tmp_path: Path) -> None:
    opened = open_writer(tmp_path / "profile")
    fill(opened, 1)
    Path(opened.path).unlink()
    (tmp_path / "profile").rmdir()
    fill(opened, 1)
    opened.close()
    (worker,) = build(read([str(tmp_path / "profile")]))["workers"]
    assert worker["requests"] == 1


def test_what_a_disk_is_too_slow_for_is_bounded_and_what_is_lost_is_counted(tmp_path: Path) -> None:
    opened = open_writer(tmp_path)
    for _ in range(MAX_HANDED_OVER + 5):  # the disk takes none of it
        opened.hand_over(Lines())
    assert len(opened._outbox) == MAX_HANDED_OVER
    assert opened.unwritten == 5
    opened._flush()
    opened._flush()
    opened.close()
    (worker,) = build(read([str(tmp_path)]))["workers"]
    assert (worker["requests"], worker["dropped"]) == (MAX_HANDED_OVER, 5)


def test_what_a_full_disk_does_not_take_is_counted_once(tmp_path: Path) -> None:
    opened = open_writer(tmp_path)
    good, opened._fd = opened._fd, os.open("/dev/full", os.O_WRONLY)
    fill(opened, 1)
    unwritten = opened.unwritten
    assert unwritten > 0
    os.close(opened._fd)
    opened._fd = good
    fill(opened, 1)
    assert opened.unwritten == unwritten, "the next one got through"
    opened.close()
    (worker,) = build(read([str(tmp_path)]))["workers"]
    assert worker["dropped"] >= 1
