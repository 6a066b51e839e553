"""The writer of logs: order, bounds, full pipes and disks, renamed files; the hub never waits for any of them."""

from __future__ import annotations

import json
import os
import select
import time
from pathlib import Path
from typing import TYPE_CHECKING

import gevent
import pytest
from gevent import socket

from tafe import log_writer
from tafe.log_writer import LogWriter

if TYPE_CHECKING:
    from collections.abc import Iterator


def lost_line(count: int) -> str:
    return json.dumps({"lost": count}) + "\n"


def wait_for(condition: object) -> None:
    """The thread is outside of this hub: there is no event to wait for."""
    with gevent.Timeout(5):
        while not condition():  # type: ignore[operator]
            gevent.sleep(0.005)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_writer, "GATHER_S", 0.005)
    monkeypatch.setattr(log_writer, "RETRY_S", 0.01)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Read and write end of a pipe that holds 4 KiB."""
    import fcntl

    ends = os.pipe()
    fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, 4096)
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:  # closed by the test
            pass


def drain(fd: int) -> list[str]:
    """The lines until the pipe's other end is closed; read without holding up the hub."""
    data = b""
    while piece := gevent.get_hub().threadpool.apply(os.read, (fd, 65536)):
        data += piece
    return data.decode().splitlines()


def test_lines_come_in_order_and_soon(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = LogWriter(str(path), lost_line)
    expected = "".join(f"{number}\n" for number in range(1000))
    for line in expected.splitlines(keepends=True):
        writer.write(line)
    wait_for(lambda: path.read_text() == expected)
    writer.write("last\n")
    writer.close()
    assert path.read_text() == expected + "last\n", "close writes what is held"
    assert path.stat().st_mode & 0o777 == 0o640
    assert writer.lost == 0


def test_an_old_file_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("old\n")
    writer = LogWriter(str(path), lost_line)
    writer.write("new\n")
    writer.close()
    assert path.read_text() == "old\nnew\n"


def test_a_full_pipe_holds_up_nobody_and_the_loss_is_counted_and_told_in_its_place(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(log_writer, "MAX_HELD_BYTES", 100_000)
    writer = LogWriter(f"fd:{pipe[1]}", lost_line)
    for number in range(100):
        writer.write(f"{number:099d}\n")
    gevent.sleep(0.03)  # the thread gets stuck in its write
    began_s = time.perf_counter()
    for number in range(100, 20_000):
        writer.write(f"{number:099d}\n")
        if number % 4096 == 0:
            gevent.sleep(0)
    assert time.perf_counter() - began_s < 2, "nobody waited for the pipe"
    reader = gevent.spawn(drain, pipe[0])
    wait_for(lambda: not writer._held_bytes)
    writer.write("after\n")
    writer.close()
    os.close(pipe[1])
    lines = reader.get(timeout=5)
    told = next(line for line in lines if line.startswith("{"))
    assert json.loads(told) == {"lost": writer.lost}
    assert 18_000 < writer.lost < 20_000
    before, after = lines[: lines.index(told)], lines[lines.index(told) + 1 :]
    assert [int(line) for line in before] == list(range(len(before)))
    assert after[-1] == "after"
    assert [int(line) for line in after[:-1]] == list(range(len(before) + writer.lost, 20_000))
    assert caplog.text.count("lines are lost") == 1


def test_a_loss_is_told_although_no_further_line_comes(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_writer, "MAX_HELD_BYTES", 30_000)
    writer = LogWriter(f"fd:{pipe[1]}", lost_line)
    for _ in range(256):
        writer.write("x" * 99 + "\n")
    gevent.sleep(0.02)
    for _ in range(512):
        writer.write("y" * 99 + "\n")
    assert writer.lost == 512
    reader = gevent.spawn(drain, pipe[0])
    wait_for(lambda: not writer._held_bytes and not writer._untold)
    os.close(pipe[1])
    assert reader.get(timeout=5)[-1] == '{"lost": 512}'
    writer.close()


def test_no_write_to_a_socket_or_pipe_is_longer_than_it_takes_whole_or_ends_within_a_line() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # keeps writes apart
    ours.setblocking(True)
    writer = LogWriter(f"fd:{ours.fileno()}", lost_line)
    lines = [f"{number}:{'z' * (number * 37 % 400)}\n" for number in range(200)]
    for line in lines:
        writer.write(line)
    received: list[bytes] = []
    with gevent.Timeout(5):
        while sum(map(len, received)) < sum(map(len, lines)):
            received.append(theirs.recv(1 << 20))
    assert b"".join(received).decode() == "".join(lines)
    assert max(map(len, received)) <= select.PIPE_BUF
    assert all(one.endswith(b"\n") for one in received)
    assert len(received) < 30, "many lines, one write"
    writer.close()
    ours.close()
    theirs.close()


def test_a_rotation_loses_nothing(tmp_path: Path) -> None:
    path, rotated = tmp_path / "log", tmp_path / "log.1"
    writer = LogWriter(str(path), lost_line)
    for number in range(600):
        writer.write(f"{number}\n")
        if number == 300:
            path.rename(rotated)
            writer.reopen()
        if number % 100 == 50:
            gevent.sleep(0.01)
    writer.close()
    assert path.read_text().endswith("599\n")
    assert (rotated.read_text() + path.read_text()).split() == [str(number) for number in range(600)]


def test_a_file_that_cannot_be_reopened_leaves_the_old_one_in_use(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    writer = LogWriter(str(folder / "log"), lost_line)
    folder.rename(tmp_path / "moved")
    writer.reopen()
    writer.write("kept\n")
    wait_for(lambda: (tmp_path / "moved" / "log").read_text() == "kept\n")
    assert "cannot be reopened: No such file or directory; the old file is used on" in caplog.text
    writer.close()


def test_a_full_disk_keeps_lines_waiting_and_a_new_file_gets_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "log"
    path.symlink_to("/dev/full")
    writer = LogWriter(str(path), lost_line)
    for number in range(300):
        writer.write(f"{number}\n")
    wait_for(lambda: "cannot be written: No space left on device; lines are kept" in caplog.text)
    gevent.sleep(0.05)  # several tries
    path.unlink()
    writer.reopen()
    wait_for(lambda: path.exists() and path.read_text().endswith("299\n"))
    writer.close()
    assert path.read_text().split() == [str(number) for number in range(300)]
    assert caplog.text.count("cannot be written") == 1
    assert "is written again; 0 lines are lost" in caplog.text


def test_a_pipe_that_does_not_block_is_tried_again(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    writer = LogWriter(f"fd:{pipe[1]}", lost_line)
    for number in range(1000):
        writer.write(f"{number:020d}\n")
    gevent.sleep(0.03)
    reader = gevent.spawn(drain, pipe[0])
    writer.close()
    os.close(pipe[1])
    assert [int(line) for line in reader.get(timeout=5)] == list(range(1000))


def test_a_line_that_was_cut_by_an_error_is_written_again_on_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = b""

    def write(_fd: int, data: bytes) -> int:
        nonlocal taken
        if taken:
            raise OSError(28, "No space left on device")
        taken += bytes(data[:6])
        return 6

    monkeypatch.setattr(os, "write", write)
    rest, error = log_writer._write(1, [b"one\n", b"two\nthree\n"])
    assert error is not None
    assert taken + rest == b"one\ntw\ntwo\nthree\n"


def test_close_gives_up_on_a_pipe_that_nobody_reads(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(log_writer, "CLOSE_TIMEOUT_S", 0.05)
    writer = LogWriter(f"fd:{pipe[1]}", lost_line)
    for _ in range(1000):
        writer.write("x" * 99 + "\n")
    began_s = time.perf_counter()
    writer.close()
    assert time.perf_counter() - began_s < 1
    assert "could not be written in time and are lost" in caplog.text
    os.close(pipe[0])  # ends the thread's write


def test_a_line_that_could_not_be_made_is_counted_among_the_lost(tmp_path: Path) -> None:
    writer = LogWriter(str(tmp_path / "log"), lost_line)
    writer.write("a\n")
    writer.lose()
    writer.close()
    assert (tmp_path / "log").read_text() == 'a\n{"lost": 1}\n'


def test_a_target_that_cannot_be_opened_is_an_error_at_once(tmp_path: Path) -> None:
    for target in (str(tmp_path / "no" / "log"), "fd:12345"):
        with pytest.raises(OSError, match=r"No such file|Bad file descriptor"):
            LogWriter(target, lost_line)
