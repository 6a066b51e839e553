"""`tafe top` and `tafe profile` where something is wrong: what is typed, who answers, where it is written."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tafe import asking
from tafe.errors import UsageError
from tests.cli.test_commands import CLEAN, ROOT

TAFE = f"{shlex.quote(sys.executable)} -m tafe"


def tafe(typed: str) -> subprocess.CompletedProcess[str]:
    """By a shell, for its redirections."""
    command = ["sh", "-c", f"{TAFE} {typed}"]
    return subprocess.run(command, cwd=ROOT, env=CLEAN, capture_output=True, text=True, timeout=40, check=False)


@contextmanager
def stranger(body: bytes, status: int = 200, length: int | None = None) -> Iterator[str]:
    """The address of something that answers everything so; `length`: what it says of the body."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body) if length is None else length))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - the library's name

        def log_message(self, *_args: object) -> None:
            """Not on the tests' output."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("--seconds nan", "--seconds: nan is out of bounds"),
        ("--seconds inf", "--seconds: inf is out of bounds"),
        ("--seconds 1e12", "--seconds: 1e+12 is out of bounds"),
        ("--seconds 61", "--seconds: 61 is out of bounds\n  allowed:  0.1 to 60\n"),
        ("--seconds=-100", "--seconds: -100 is out of bounds"),
        ("--clock foo", "--clock: 'foo' is not known\n  allowed:  cpu, wall\n"),
        ("--format html", "--format: 'html' is not known\n  allowed:  pstats, callgrind, speedscope\n"),
        ("-o ''", "-o: cannot write ''"),
    ],
)
def test_what_no_server_would_take_is_a_mistake_in_typing(typed: str, said: str) -> None:
    done = tafe(f"profile nowhere:1 {typed}")
    assert done.returncode == 2
    assert done.stderr.startswith(f"tafe: {said}")


@pytest.mark.parametrize(
    ("note", "said"),
    [
        (b"\xff\xfe", "admin holds no address"),
        (b"http://[::1", "'http://[::1' is no directory, and as an address it"),
        (b"unix:a\0b", "nobody answers at unix:a"),
        (b"http://" + b"x" * 300 + b":1", "nobody answers at http://x"),
        (b"", "'' is no directory, and as an address it has no port"),
        (b"fd:3", "'fd:3' is a descriptor of the server's, which nobody can ask"),
        (None, "admin holds no address"),
    ],
)
@pytest.mark.parametrize("command", ["top --once", "profile"])
def test_a_run_directory_that_holds_something_else_is_said_so(
    command: str, note: bytes | None, said: str, tmp_path: Path
) -> None:
    if note is None:
        os.mkfifo(tmp_path / "admin")  # which nobody writes to
    else:
        (tmp_path / "admin").write_bytes(note)
    done = tafe(f"{command} {tmp_path}")
    assert said in done.stderr
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)


@pytest.mark.parametrize(
    "body",
    [
        b'{"bounds_s": 1, "workers": 1, "sites": 1}',
        b'{"bounds_s": [], "workers": [{}], "sites": []}',
        b'{"bounds_s": [], "workers": [], "sites": [{}]}',
        b"[" * 100_000,
        b"[]",
        b"\xff",
    ],
)
def test_an_answer_of_another_shape_is_said_to_be_somebody_elses(body: bytes) -> None:
    with stranger(body) as address:
        done = tafe(f"top --once {address}")
    assert done.stderr.startswith(f"tafe: http://{address} is not the admin address of a tafe server\n")
    assert done.returncode == 2


def test_an_answer_that_ends_too_early_is_no_answer() -> None:
    with stranger(b"half", length=8) as address:
        done = tafe(f"profile {address} | cat")
    assert f"nobody answers at http://{address}: IncompleteRead" in done.stderr


@contextmanager
def trickling(piece: bytes, pieces: int) -> Iterator[str]:
    """The address of something that answers a piece at a time, each long before anybody gives up."""

    def answer() -> None:
        asker, _ = listener.accept()
        with asker, suppress(OSError):
            asker.sendall(b"HTTP/1.1 200 OK\r\n")
            for _ in range(pieces):
                asker.sendall(piece)
                gone.wait(0.03)

    gone = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            gone.set()
            thread.join()


@pytest.mark.parametrize("piece", [b"X: y\r\n", b"x"], ids=["headers", "a header"])
def test_who_answers_a_little_at_a_time_is_not_waited_for_longer(piece: bytes) -> None:
    with trickling(piece, 90) as address, pytest.raises(UsageError, match=r"has not answered for 0\.3 s"):
        asking.Admin(address).ask("GET", "/figures", 0.3)


def test_of_an_answer_without_end_no_more_is_read_than_a_worker_can_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "_LARGEST_BYTES", 1 << 20)
    with stranger(b"x" * (1 << 20)) as address:
        assert len(asking.Admin(address).get("/figures")) == 1 << 20
    with stranger(b"x" * (1 << 20) + b"x") as address, pytest.raises(UsageError, match="longer than 1 MiB"):
        asking.Admin(address).get("/figures")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("worker 7 is\x1b[2J busy\nask\x07 again", "tafe: worker 7 is?[2J busy\nask? again\n"),
        ({"status": 503, "message": "too many requests", "request_id": "r"}, "tafe: too many requests\n"),
        (["no"], "tafe: ['no']\n"),
    ],
)
def test_what_the_server_says_is_shown_as_text(error: object, said: str) -> None:
    with stranger(json.dumps({"error": error}).encode(), 503) as address:
        done = tafe(f"profile {address} | cat")
    assert done.stderr == said


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"[" * 100_000, b"\xff"])
def test_a_refusal_without_a_reason_is_told_by_its_status(body: bytes) -> None:
    with stranger(body, 502) as address:
        done = tafe(f"profile {address} -o never-written")
    assert (done.returncode, done.stderr) == (1, "tafe: the server answers 502\n")


@pytest.mark.parametrize("command", ["top --once nowhere:1", "top nowhere:1", "profile nowhere:1", "report ."])
def test_a_standard_output_that_is_closed_is_said_so(command: str) -> None:
    done = tafe(f"{command} >&-")
    assert (done.returncode, done.stderr.splitlines()[0]) == (1, "tafe: standard output is closed")


def test_the_answer_goes_to_a_pipe_and_to_a_device_which_stay_what_they_are(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o644)
    pipe.chmod(0o644)
    with stranger(b"the functions") as address:
        unread = tafe(f"profile {address} -o {pipe}")
        with open(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK), "rb") as reader:
            assert tafe(f"profile {address} -o {pipe}").returncode == 0
            assert reader.read() == b"the functions"
        full = tafe(f"profile {address} -o /dev/full")
        printed = tafe(f"profile {address} >/dev/full")
    assert (unread.returncode, unread.stderr.splitlines()[0]) == (
        1,
        f"tafe: cannot write '{pipe}': No such device or address",
    )
    # As it would be of /dev/null, which a test for root had better not try.
    assert pipe.stat().st_mode & 0o777 == 0o644
    assert (full.returncode, full.stderr.splitlines()[0]) == (
        1,
        "tafe: cannot write '/dev/full': No space left on device",
    )
    assert (printed.returncode, printed.stderr) == (
        1,
        "tafe: cannot write to standard output: No space left on device\n",
    )
