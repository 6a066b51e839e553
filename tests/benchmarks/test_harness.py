"""The harness, in its short form, on what is measured most: ourselves."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from benchmarks import contestants, counters, environment, machine, measure, scenarios, serving
from tests.services.requirements import missing, program

if TYPE_CHECKING:
    from pathlib import Path

_WRONG_ANSWER = """
import http.server

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'{"message":"Hello, world!"}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.HTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
"""


def _cores() -> tuple[int, int]:
    cores = machine.two_cores()
    if cores is None:
        pytest.skip("two cores are needed")
    return cores


@pytest.mark.real
def test_a_contestant_that_answers_something_else_is_refused(tmp_path: Path) -> None:
    def argv(launch: contestants.Launch) -> list[str]:
        return [sys.executable, "-c", _WRONG_ANSWER.replace("PORT", str(launch.port))]

    wrong = contestants.Contestant("wrong", (), "", argv)
    with pytest.raises(serving.WrongAnswerError, match=r"wrong: /hello: 200 application/json .*Hello, world!"):
        serving.Contender(wrong, tmp_path, _cores()[0], database_url=None)


@pytest.mark.real
@pytest.mark.slow
def test_one_quick_run_measures_us_in_every_scenario(tmp_path: Path) -> None:
    for needed in ("mariadbd", "wrk", "ab"):
        program(needed)
    _cores()
    output = tmp_path / "result.json"
    command = [sys.executable, "-m", "benchmarks", "--sections", "table", "--quick", "--no-callgrind"]
    done = subprocess.run(
        [*command, "--only", contestants.OURS, "-o", str(output)],
        cwd=environment.ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(output.read_text())["sections"]["table"]
    figures = {figure["scenario"]: figure for figure in result["figures"]}
    assert set(figures) == {scenario.name for scenario in scenarios.SCENARIOS}
    for scenario, figure in figures.items():
        assert figure["errors"] == 0, scenario
        assert figure["requests"] > 500, scenario  # in a second; the slowest peer on a shared machine does 1,400
        assert figure["cpu_us"]["median"] > 5, scenario  # nginx's own floor for a fixed answer is about that
        assert figure["kept_alive_ratio"] in (None, 1.0), scenario
        if counters.perf_counts_syscalls():
            assert figure["system_calls"] >= 2, scenario  # one to read, one to write
    assert "### query" in done.stdout


@pytest.mark.real
@pytest.mark.slow
def test_callgrind_counts_a_server_s_requests_alike_each_time(tmp_path: Path) -> None:
    """A stand-in server, so that the counting is proven by itself: samples agree, and work is counted."""
    if not counters.callgrind_is_here():
        missing("valgrind (Debian package valgrind)", "apt-get install valgrind")
    costs = {}
    for turns in (2_000, 4_000, 6_000):
        source = _STAND_IN.replace("TURNS", str(turns))
        stand_in = contestants.Contestant(
            "stand-in", (), "", lambda launch, source=source: [sys.executable, "-S", "-c", source, str(launch.port)]
        )
        scenario = dataclasses.replace(scenarios.HELLO, counted_requests=100)
        plan = measure.Plan(
            rounds=0, seconds=0, server_core=_cores()[0], load_core=_cores()[1], scenarios=(scenario,), samples=2
        )
        (counted,) = measure.callgrind(stand_in, plan, tmp_path / str(turns), database_url=None)
        first, second = counted.instructions_user
        assert second == pytest.approx(first, rel=0.03)
        costs[turns] = second
    assert costs[4_000] - costs[2_000] > 2_000 * 5  # a turn of an interpreted loop takes more than five instructions
    assert costs[6_000] - costs[4_000] == pytest.approx(costs[4_000] - costs[2_000], rel=0.05)


_STAND_IN = """
import selectors, socket, sys
BODY = b'{"message":"Hello, World!"}'
HEAD = b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: 27\\r\\n\\r\\n"
def work():
    for _ in range(TURNS):
        pass
selector = selectors.DefaultSelector()
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=128)
selector.register(listener, selectors.EVENT_READ)
while True:
    for key, _ in selector.select():
        if key.fileobj is listener:
            selector.register(listener.accept()[0], selectors.EVENT_READ)
        elif key.fileobj.recv(65536):
            work()
            key.fileobj.sendall(HEAD + BODY)
        else:
            selector.unregister(key.fileobj)
            key.fileobj.close()
"""
