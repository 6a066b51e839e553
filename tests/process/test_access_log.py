"""The access log as an operator meets it: started with a flag, rotated, written to the end, shared by workers."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.process.client import Stream, get, until
from tests.process.test_stock import _serving, gunicorn  # noqa: F401 - a fixture
from tests.services.tafe_server import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.services.processes import Server
    from tests.services.tafe_server import Running

APP = "tests.process.application:app"


def parsed(*paths: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def test_rotation_under_load_and_the_end_lose_nothing(tafe_serve: Callable[..., Running], tmp_path: Path) -> None:
    path, rotated = tmp_path / "access.log", tmp_path / "access.log.1"
    server = tafe_serve(APP, "--workers", "2", "--access-log", str(path), "--no-profile")
    server.wait_all_ready()
    stream = Stream(server.port, threads=3, keep_alive=True)
    until(lambda: len(stream.answers) > 200, "answering")
    path.rename(rotated)
    server.signal(signal.SIGUSR1)
    until(path.exists, "reopened")
    seen = len(stream.answers)
    until(lambda: len(stream.answers) > seen + 200, "answering")
    stream.stop()
    assert stream.failures == []
    assert server.stop() == 0
    lines = [line for line in parsed(rotated, path) if not line["path"].startswith("/-/")]
    assert len(lines) == len(stream.answers), "the last tenth of a second too"
    assert len({line["request_id"] for line in lines}) == len(lines)
    assert all(line["status"] == 200 and line["path"] == "/" for line in lines)
    assert len(parsed(path)) > 100


def test_standard_output_is_a_target_and_lines_of_several_workers_do_not_mix(
    tafe_serve: Callable[..., Running],
) -> None:
    server = tafe_serve(APP, "--workers", "2", "--access-log", "-", "--access-log-format", "combined", "--no-profile")
    stream = Stream(server.port, threads=3)
    until(lambda: len(stream.answers) > 300, "answering")
    stream.stop()
    server.stop()
    lines = [line for line in server.log().splitlines() if '"GET / ' in line]
    assert len(lines) == len(stream.answers)
    pattern = r'127\.0\.0\.1 - - \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000\] "GET / HTTP/1\.1" 200 \d+ "-" "-"'
    assert [line for line in lines if not re.fullmatch(pattern, line)] == []


@pytest.mark.real
def test_a_pipe_that_nobody_reads_holds_up_neither_requests_nor_the_stop(
    tafe_serve: Callable[..., Running], tmp_path: Path
) -> None:
    import os

    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)  # and never reads
    server = tafe_serve(APP, "--workers", "1", "--access-log", str(fifo), "--no-profile")
    stream = Stream(server.port, threads=3, keep_alive=True)
    until(lambda: len(stream.answers) > 1500, "answering")  # some 300 KB of lines, a pipe holds 64
    stream.stop()
    assert stream.failures == []
    assert server.stop() == 0
    assert "could not be written in time and are lost" in server.log()
    os.close(reader)


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        (["--access-log", "/nowhere/access.log"], "cannot write to /nowhere/access.log: No such file or directory"),
        (["--access-log", "fd:123"], "cannot write to fd:123: Bad file descriptor"),
        (["--access-log", "fd:three"], "'fd:three' names no descriptor's number after fd:"),
        (["--access-log-format", "xml"], "'xml' is none of json, combined"),
    ],
)
@pytest.mark.real
def test_a_log_that_cannot_be_written_ends_the_start(option: list[str], problem: str) -> None:
    command = [sys.executable, "-m", "tafe", "serve", APP, "--bind", "127.0.0.1:0", "--no-profile", *option]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    assert ended.returncode == 2
    assert problem in ended.stderr


@pytest.mark.real
def test_gunicorns_option_gives_gunicorns_format(
    gunicorn: Callable[..., Server],  # noqa: F811
    free_port: Callable[[], int],
    tmp_path: Path,
) -> None:
    port, path = free_port(), tmp_path / "access.log"
    server = gunicorn("--bind", f"127.0.0.1:{port}", "--access-logfile", str(path))
    _serving(server, port)
    assert get(port, "/?q=1", {"User-Agent": 'a"b'}).status == 200
    until(lambda: '"GET / HTTP/1.1" 200 ' in path.read_text(), "logged")
    assert path.read_text().splitlines()[-1].endswith('"-" "a\\"b"')
    path.rename(tmp_path / "rotated")
    server.signal(signal.SIGUSR1)
    until(path.exists, "reopened")
    until(lambda: get(port).status == 200 and path.read_text() != "", "logged in the new file")
    assert server.stop() == 0
