"""Every case against a live worker, sent whole, byte by byte and cut in two: the outcome is the same, and as wanted."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest

from tests.corpus import client
from tests.corpus.case import Case, all_cases, escape, unescape
from tests.corpus.verdict import bad_reason, differences
from tests.services.tafe_server import Running, start_tafe

pytestmark = pytest.mark.real

# Small enough for a case to go beyond it in a moment; every other limit is the default.
SERVE = ("tests.corpus.echo:app", "--workers", "1", "--no-profile", "--max-body", "256KiB")


Start = Callable[[Case], Running]


@pytest.fixture(scope="module")
def start(servers_dir: Path) -> Iterator[Start]:
    """A server with one worker for all cases of the same settings: what one does must not matter to another."""
    servers: dict[tuple[tuple[str, str], ...], tuple[Running, list[int]]] = {}

    def start(case: Case) -> Running:
        settings = tuple(case.settings)
        if settings not in servers:
            folder = Path(tempfile.mkdtemp(prefix="corpus-", dir=servers_dir))
            options = [word for name, value in settings for word in (f"--{name}", value)]
            running = start_tafe(folder, *SERVE, *options)
            servers[settings] = running, running.worker_pids()
        return servers[settings][0]

    yield start
    for running, pids in servers.values():
        assert running.worker_pids() == pids, "a case ended the worker"
        running.stop()


@pytest.mark.parametrize("case", all_cases(), ids=lambda case: case.name)
def test_a_case_comes_out_as_wanted_however_it_is_cut(start: Start, case: Case) -> None:
    address = ("127.0.0.1", start(case).port)
    first = case.steps[0].data
    ways: dict[str, client.Cut] = {"whole": client.whole, "byte by byte": client.byte_by_byte}
    ways |= {f"cut at {position}": client.in_two(position) for position in client.split_positions(first)}
    sent = {way: gevent.spawn(client.send, address, case, cut) for way, cut in ways.items()}
    outcomes = {way: greenlet.get() for way, greenlet in sent.items()}
    for way, outcome in outcomes.items():
        assert differences(case, outcome) == [], f"sent {way}: {outcome}"
        assert outcome.same() == outcomes["whole"].same(), f"sent {way} it comes out otherwise than whole"
        for answer in outcome.answers:
            if answer.status >= 400 and not answer.header("x-saw") and answer.body:
                assert bad_reason(answer) == ""


def test_there_is_a_case_for_every_rule() -> None:
    """A folder a rule; refusals need accepted neighbours, else refusing everything would pass."""
    cases = all_cases()
    assert len(cases) >= 300
    for folder in {case.folder for case in cases}:
        kinds = {case.refused for case in cases if case.folder == folder}
        assert False in kinds, f"{folder}: nothing is accepted"


def test_escapes_are_read_as_they_are_written() -> None:
    data = bytes(range(256)) + b"\r\n@x \r\n \n \\"
    assert unescape(escape(data).replace("\n", "")) == data
    assert unescape(r"\{3*ab\r}c") == b"ab\rab\rab\rc"
