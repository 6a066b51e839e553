"""`tafe top` as somebody at a terminal meets it, and as a pipe does."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.test_commands import CLEAN, ROOT
from tests.process.client import get, get_later, until
from tests.process.scrape import workers
from tests.services.ports import free_port

if TYPE_CHECKING:
    from tests.services.tafe_server import Running

APP = "tests.process.measured:app"
COMMAND = [sys.executable, "-m", "tafe", "top"]


def top(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=ROOT,
        env={**CLEAN, **environ},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.fixture(scope="module")
def served(servers_dir: Path) -> Iterator[Running]:
    from tests.services.tafe_server import start_tafe

    folder = servers_dir / "top"
    folder.mkdir()
    running = start_tafe(folder, APP, "--admin", f"127.0.0.1:{free_port()}", "--workers", "2")
    running.wait_all_ready()
    yield running
    running.stop()


class Screen:
    """`tafe top` on a terminal of its own."""

    def __init__(self, where: str, environ: Mapping[str, str] | None = None) -> None:
        self._pid, self.fd = pty.fork()
        if not self._pid:
            os.chdir(ROOT)
            os.execve(sys.executable, [*COMMAND, where], {**CLEAN, "TERM": "xterm", **(environ or {})})
        self.resize(24, 100)
        self.text = ""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def wait_for(self, pattern: str) -> None:
        end_s = time.monotonic() + 15
        while not re.search(pattern, self.text):
            assert time.monotonic() < end_s, self.text
            if select.select([self.fd], [], [], 0.2)[0]:
                self.text += os.read(self.fd, 100_000).decode()

    def type(self, keys: bytes) -> None:
        os.write(self.fd, keys)

    def end(self) -> int:
        """The rest is read, so that it can be written; the exit status."""
        try:
            while data := os.read(self.fd, 100_000):
                self.text += data.decode()
        except OSError:  # as Linux says that the other side is closed
            pass
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])


@pytest.mark.real
def test_who_does_not_read_what_it_prints_makes_no_error(served: Running) -> None:
    unread, end = os.pipe()
    os.close(unread)
    with open(end, "wb") as nobody:
        done = subprocess.run(
            [*COMMAND, str(served.run_dir), "--once"],
            cwd=ROOT,
            env=CLEAN,
            stdout=nobody,
            stderr=subprocess.PIPE,
            timeout=30,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.real
def test_once_prints_a_row_a_worker_and_ends(served: Running) -> None:
    for _ in range(3):
        assert get(served.port, "/a").status == 200
    done = top(str(served.run_dir), "--once")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[0] for row in rows[3:6]] == ["1", "2", "all"]
    assert {int(row[1]) for row in rows[3:5]} < set(served.worker_pids())
    assert all(re.fullmatch(r"\d+%", row[7]) for row in rows[3:5]), done.stdout


@pytest.mark.real
def test_a_terminal_is_drawn_over_until_q_and_is_as_before_afterwards(served: Running) -> None:
    screen = Screen(str(served.run_dir))
    screen.wait_for(r"\d%(?s:.*)\x1b\[H(?s:.*)\d%")  # the second with figures
    modes: list[Any] = termios.tcgetattr(screen.fd)
    assert not modes[3] & termios.ICANON
    screen.type(b"xq")
    assert screen.end() == 0
    assert screen.text.count("\x1b[?1049h") == screen.text.count("\x1b[?1049l") == 1
    assert screen.text.rstrip().endswith("\x1b[?1049l")
    assert "\x1b[1m" in screen.text


def modes_of(fd: int) -> list[Any]:
    return list(termios.tcgetattr(fd))


@pytest.fixture
def held() -> Iterator[tuple[int, int]]:
    """Both sides of a terminal that is there before the program and after it."""
    ours, its = pty.openpty()
    yield ours, its
    os.close(ours)
    os.close(its)


def on_terminal(where: str, its: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, where], cwd=ROOT, env={**CLEAN, "TERM": "xterm"}, stdin=its, stdout=its, stderr=its,
        start_new_session=True,
    )  # fmt: skip


def seen(ours: int, pattern: bytes) -> bytes:
    text = b""
    end_s = time.monotonic() + 15
    while not re.search(pattern, text):
        assert time.monotonic() < end_s, text
        if select.select([ours], [], [], 0.2)[0]:
            text += os.read(ours, 100_000)
    return text


@pytest.mark.real
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGINT])
def test_a_signal_that_ends_it_leaves_the_terminal_as_it_was(
    served: Running, held: tuple[int, int], number: signal.Signals
) -> None:
    ours, its = held
    before = modes_of(its)
    started = on_terminal(str(served.run_dir), its)
    seen(ours, rb"ready")
    assert modes_of(its) != before
    started.send_signal(number)
    assert started.wait(10) == 128 + number
    assert modes_of(its) == before
    assert b"Traceback" not in seen(ours, rb"\x1b\[\?1049l")


@pytest.mark.real
def test_suspended_it_gives_the_terminal_back_and_takes_it_again(served: Running, held: tuple[int, int]) -> None:
    ours, its = held
    before = modes_of(its)
    started = on_terminal(str(served.run_dir), its)
    seen(ours, rb"ready")
    during = modes_of(its)
    started.send_signal(signal.SIGTSTP)
    # Without a shell, whose child it would be, the kernel lets it go on at once.
    seen(ours, rb"\x1b\[\?1049l(?s:.*)\x1b\[\?1049h(?s:.*)ready")
    assert modes_of(its) == during != before
    os.write(ours, b"q")
    assert started.wait(10) == 0
    assert modes_of(its) == before


@pytest.mark.real
def test_without_a_keyboard_it_goes_on_until_it_is_ended(served: Running) -> None:
    command = ["sh", "-c", f"exec {' '.join(COMMAND)} {served.run_dir} <&-"]
    with subprocess.Popen(command, cwd=ROOT, env=CLEAN, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as started:
        assert started.stdout is not None
        assert started.stdout.readline().startswith(b"tafe top ")
        started.send_signal(signal.SIGTERM)
        assert started.communicate(timeout=10)[1] == b""
    assert started.returncode == 143


@pytest.mark.real
def test_a_new_size_is_obeyed(served: Running) -> None:
    screen = Screen(str(served.run_dir))
    screen.wait_for("in flight  conns")
    screen.resize(6, 30)
    line = r"(?:\x1b\[\d*m)?[^\r\n\x1b]{0,30}(?:\x1b\[0m)?\x1b\[K"
    screen.wait_for(rf"\x1b\[H(?:{line}\r\n){{5}}{line}\x1b\[J")
    screen.type(b"q")
    assert screen.end() == 0


@pytest.mark.real
@pytest.mark.parametrize(("environ", "drawn_over"), [({"NO_COLOR": "1"}, True), ({"TERM": "dumb"}, False)])
def test_no_colours_and_no_cleverness_where_they_are_not_wanted(
    served: Running, environ: dict[str, str], drawn_over: bool
) -> None:
    screen = Screen(str(served.run_dir), environ)
    screen.wait_for(r"\d%")
    screen.type(b"q")
    assert screen.end() == 0
    assert not re.search(r"\x1b\[\d*m", screen.text)
    assert ("\x1b" in screen.text) == drawn_over


@pytest.mark.real
def test_a_server_that_stops_ends_it_with_a_message_on_the_own_screen(tafe_serve: Callable[..., Running]) -> None:
    running = tafe_serve(APP, "--admin", f"127.0.0.1:{free_port()}", "--workers", "1")
    screen = Screen(str(running.run_dir))
    screen.wait_for("ready")
    running.stop()
    assert screen.end() == 2
    assert "tafe: nobody answers at http://127.0.0.1:" in screen.text.rpartition("\x1b[?1049l")[2]


@pytest.mark.real
def test_a_line_that_keeps_a_hub_is_shown_and_so_is_who_is_stuck(tafe_serve: Callable[..., Running]) -> None:
    admin = free_port()
    running = tafe_serve(APP, "--admin", f"127.0.0.1:{admin}", "--workers", "1")
    screen = Screen(f"http://127.0.0.1:{admin}")
    screen.wait_for("no line has kept a hub")
    for _ in range(3):
        get(running.port, "/stall")
    screen.wait_for(r"tests/process/measured\.py:\d+ stall   \[blocking\]")
    stuck = get_later(running.port, "/spin/4")
    until(lambda: "stuck" in workers(admin)[0], "stuck")
    screen.wait_for(r"stuck for \d\.\d s at tests/process/measured\.py:\d+ spin \(GET /spin/\{\}\)")
    screen.type(b"q")
    assert screen.end() == 0
    stuck.result(10)


def test_ctrl_c_is_an_end_and_no_traceback(served: Running) -> None:
    started = subprocess.Popen(
        [*COMMAND, str(served.run_dir)], cwd=ROOT, env=CLEAN, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    assert started.stdout is not None
    assert started.stdout.readline().startswith(b"tafe top ")
    started.send_signal(signal.SIGINT)
    _, said = started.communicate(timeout=10)
    assert (started.returncode, said.strip()) == (130, b"")


def test_nothing_that_runs_is_an_error_that_says_how_to_start_it(tmp_path: Path) -> None:
    done = top(str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == (
        f"tafe: no server that can be asked runs with the run directory {tmp_path}\n"
        "  allowed:  the run directory of a server with --admin, or its admin address\n"
        "  try:      tafe serve --admin 127.0.0.1:9102 MODULE:APP\n"
    )
    port = free_port()
    (tmp_path / "admin").write_text(f"http://127.0.0.1:{port}")
    left = top(str(tmp_path), "--once").stderr
    assert f"nobody answers at http://127.0.0.1:{port}: Connection refused" in left
    assert f"set by:   {tmp_path}/admin, which a server has left that was killed" in left
    assert "'nowhere' is no directory, and as an address it has no port" in top("nowhere").stderr


@pytest.mark.real
def test_what_is_no_admin_address_is_said_so(served: Running) -> None:
    assert "is not the admin address of a tafe server" in top(f"127.0.0.1:{served.port}").stderr
