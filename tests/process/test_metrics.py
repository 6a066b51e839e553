"""What /metrics says is what happened: exact, summed over workers, never falling, bounded, and nothing secret."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.process.client import Stream, get_later, until
from tests.process.scrape import Scrape, ask_often, workers
from tests.services.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.services.tafe_server import Running

APP = "tests.process.measured:app"

pytestmark = pytest.mark.real


class Served:
    """A server and the port of its admin process."""

    def __init__(self, tafe_serve: Callable[..., Running], *options: str, env: dict[str, str] | None = None) -> None:
        self.admin = free_port()
        self.running = tafe_serve(APP, "--admin", f"127.0.0.1:{self.admin}", *options, env=env)
        self.running.wait_all_ready()
        self.port = self.running.port

    def scrape_until(self, condition: Callable[[Scrape], bool], what: str) -> Scrape:
        """Workers show themselves once a second."""
        last: list[Scrape] = []

        def met() -> bool:
            last[:] = [Scrape(self.admin)]
            return condition(last[0])

        until(met, what)
        return last[0]


def test_every_request_of_a_load_is_counted_by_route_and_status(tafe_serve: Callable[..., Running]) -> None:
    served = Served(tafe_serve, "--workers", "2")
    paths = ["/a"] * 30 + ["/users/17", "/users/18"] + [f"/status/{code}" for code in (201, 302, 404, 404, 500, 503)]
    ask_often(served.port, paths)
    ask_often(served.port, ["/a"] * 12)
    name = "tafe_requests_total"
    # Those of `is_ready`, which began before, are (health).
    seen = served.scrape_until(lambda s: s.total(name) - s.total(name, route="(health)") >= 50, "counted")
    found = {
        (s.labels["route"], s.labels["status"]): s.value
        for s in seen.samples
        if s.name == name and s.value and s.labels["route"] != "(health)"
    }
    assert found == {
        ("GET /a", "2xx"): 42,
        ("GET /users/{}", "2xx"): 2,
        ("GET /status/{}", "2xx"): 1,
        ("GET /status/{}", "3xx"): 1,
        ("GET /status/{}", "4xx"): 2,
        ("GET /status/{}", "5xx"): 2,
    }
    duration = "tafe_request_duration_seconds"
    assert seen.value(f"{duration}_count", route="GET /a") == 42
    assert seen.value(f"{duration}_bucket", route="GET /a", le="+Inf") == 42
    phases = [
        seen.value("tafe_request_phase_seconds_total", route="GET /a", phase=p)
        for p in ("running", "waiting", "queued")
    ]
    assert sum(phases) == pytest.approx(seen.value(f"{duration}_sum", route="GET /a"), rel=0.01)
    assert seen.total("tafe_request_longest_slice_seconds_count") == seen.total(f"{duration}_count") == seen.total(name)
    assert seen.total("tafe_requests_refused_total") == 0
    assert seen.value("tafe_worker_starts_total") == 2
    assert seen.value("tafe_workers", state="ready") == 2
    assert seen.values_of("tafe_worker_resident_memory_bytes", "worker") == {"1", "2"}
    assert 1e7 < seen.value("tafe_worker_resident_memory_bytes", worker="1") < 1e9


def test_waiting_is_told_from_running(tafe_serve: Callable[..., Running]) -> None:
    served = Served(tafe_serve, "--workers", "1")
    ask_often(served.port, ["/sleep/0.2", "/sleep/0.2"])
    name = "tafe_request_phase_seconds_total"
    route = "GET /sleep/0.2"
    seen = served.scrape_until(lambda s: s.total(name, route=route) > 0.3, "counted")
    assert 0.39 < seen.value(name, route=route, phase="waiting") < 0.6
    assert seen.value(name, route=route, phase="running") < 0.1
    duration = "tafe_request_duration_seconds_bucket"
    assert (seen.value(duration, route=route, le="0.1"), seen.value(duration, route=route, le="1.0")) == (0, 2)


def test_stalls_are_counted_by_line_cause_and_route_with_their_harm(tafe_serve: Callable[..., Running]) -> None:
    served = Served(tafe_serve, "--workers", "1")
    # Those that come while the first stalls are ready together, and stall one another.
    answers = [get_later(served.port, "/stall") for _ in range(8)]
    assert {answer.result(10).status for answer in answers} == {200}
    seen = served.scrape_until(lambda s: s.total("tafe_stalls_total", cause="blocking") >= 8, "counted")
    line = next(
        n
        for n, text in enumerate(Path("tests/process/measured.py").read_text().splitlines(), 1)
        if "_sleep(0.05)" in text
    )
    labels = {"site": f"tests/process/measured.py:{line} stall", "cause": "blocking"}
    assert seen.value("tafe_stalls_total", **labels) == 8
    assert 0.4 <= seen.value("tafe_stall_seconds_total", **labels) < 0.8
    assert seen.value("tafe_stall_harm_seconds_total", **labels) > 0.05
    assert seen.value("tafe_stall_victims_total", **labels) > 1
    assert seen.value("tafe_route_stalls_total", route="GET /stall") == 8
    assert seen.value("tafe_route_harm_seconds_total", route="GET /stall") == pytest.approx(
        seen.value("tafe_stall_harm_seconds_total", **labels)
    )
    assert seen.value("tafe_request_longest_slice_seconds_bucket", le="+Inf") >= 8
    assert seen.total("tafe_slow_slices_total") >= 8
    assert seen.value("tafe_hub_delay_seconds_count") > 0
    assert 0 < seen.value("tafe_hub_busy_seconds_total") <= seen.value("tafe_hub_seconds_total")


def test_what_resources_count_is_shown_summed_or_for_each_worker(tafe_serve: Callable[..., Running]) -> None:
    served = Served(tafe_serve, "--workers", "1", env={"SHELF": "1"})
    ask_often(served.port, ["/take"] * 3)
    served.scrape_until(lambda s: s.value("shelf_taken_total", shelf="first") == 3, "counted")
    os.kill(workers(served.admin)[0]["pid"], signal.SIGKILL)
    until(lambda: [w["state"] for w in workers(served.admin)] == ["ready"], "replaced")
    ask_often(served.port, ["/take"])
    seen = served.scrape_until(lambda s: s.value("shelf_taken_total", shelf="first") == 4, "counted by the next")
    assert seen.value("shelf_free", shelf="first", worker="1") == 9
    assert seen.value("shelf_wait_seconds_bucket", shelf="first", le="+Inf") == 4
    assert seen.value("shelf_wait_seconds_sum", shelf="first") == 1
    assert seen.families["shelf_wait_seconds"].type == "histogram"
    assert seen.total("tafe_requests_total") < 1000  # a resource cannot count under our names


def test_counters_never_fall_when_workers_are_killed_and_when_all_are_replaced(
    tafe_serve: Callable[..., Running],
) -> None:
    served = Served(tafe_serve, "--workers", "2")
    stream = Stream(served.port, threads=2)
    before = Scrape(served.admin)
    falls: list[str] = []

    def look() -> bool:
        nonlocal before
        now = Scrape(served.admin)
        values = now.growing()
        for key, value in before.growing().items():
            if values.get(key, -1.0) < value:
                falls.append(f"{key}: {value} -> {values.get(key)}")
        before = now
        return True

    for _ in range(2):
        seen = len(stream.answers)
        until(lambda seen=seen: look() and len(stream.answers) > seen + 300, "serving")
        os.kill(workers(served.admin)[0]["pid"], signal.SIGKILL)
        until(lambda: look() and len(workers(served.admin)) == 2, "replaced")
    served.running.signal(signal.SIGHUP)
    until(lambda: look() and "reloaded after" in served.running.log(), "reloaded")
    until(lambda: look() and len(workers(served.admin)) == 2, "rid of the old workers")
    stream.stop()
    answered = len(stream.answers)
    name = "tafe_requests_total"
    # Two workers were killed, with what each had counted since its last message.
    served.scrape_until(lambda s: look() and s.total(name, route="GET /") > answered * 0.2, "counted")
    assert falls == []
    assert before.value("tafe_worker_starts_total") == 6
    assert before.total(name, route="GET /") <= answered + len(stream.failures)


def test_a_worker_that_ends_in_good_order_leaves_exact_counts(tafe_serve: Callable[..., Running]) -> None:
    served = Served(tafe_serve, "--workers", "1")
    for _ in range(3):
        pid = workers(served.admin)[0]["pid"]
        ask_often(served.port, ["/a"] * 100)
        served.running.signal(signal.SIGHUP)
        until(lambda pid=pid: [w["pid"] == pid for w in workers(served.admin)] == [False], "replaced")
    served.scrape_until(lambda s: s.value("tafe_requests_total", route="GET /a", status="2xx") == 300, "exact")


def test_ten_thousand_paths_make_a_bounded_number_of_series_and_all_are_counted(
    tafe_serve: Callable[..., Running],
) -> None:
    served = Served(tafe_serve, "--workers", "2")
    for first in range(0, 10_000, 1000):
        ask_often(served.port, [f"/page-{number}x" for number in range(first, first + 1000)])
    name = "tafe_requests_total"
    seen = served.scrape_until(lambda s: s.total(name) - s.total(name, route="(health)") >= 10_000, "counted")
    assert seen.total(name) - seen.total(name, route="(health)") == 10_000
    routes = seen.values_of(name, "route")
    assert len(routes) <= 201
    assert seen.value(name, route="(other)", status="2xx") > 9000
    assert len(seen.samples) < 8000


def test_nothing_secret_is_shown(tafe_serve: Callable[..., Running], tmp_path: Path) -> None:
    url = "mysql://operator:hunter2@127.0.0.1:1/shop"
    source = "import os, tafe\ndb = tafe.Database.from_url(os.environ['URL'])\napp = tafe.App()\n"
    (tmp_path / "secret_app.py").write_text(source)
    admin = free_port()
    running = tafe_serve(
        "secret_app:app", "--admin", f"127.0.0.1:{admin}", "--workers", "1", cwd=tmp_path,
        env={"PYTHONPATH": f"{Path(__file__).resolve().parents[2]}", "URL": url}, wait_ready=False,
    )  # fmt: skip
    until(lambda: "is not ready" in running.log(), "waiting for its database")
    ask_often(running.port, ["/x?token=hunter2", "/y?token=hunter2"])
    until(lambda: "tafe_db_pool_size" in Scrape(admin).text and workers(admin)[0].get("reason"), "shown")
    until(lambda: Scrape(admin).total("tafe_requests_total") >= 2, "counted")
    shown = Scrape(admin).text + str(workers(admin))
    assert 'database="shop"' in shown
    assert "hunter2" not in shown
    assert "operator" not in shown


def test_openmetrics_is_given_to_who_prefers_it_and_parses(tafe_serve: Callable[..., Running]) -> None:
    from prometheus_client.openmetrics.parser import text_string_to_metric_families

    from tests.process.client import get

    served = Served(tafe_serve, "--workers", "1", env={"SHELF": "1"})
    ask_often(served.port, ["/stall", "/a"])
    served.scrape_until(lambda s: s.total("tafe_stalls_total") >= 1, "counted")
    answer = get(served.admin, "/metrics", {"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    families = {family.name: family for family in text_string_to_metric_families(answer.body)}
    assert families["tafe_requests"].type == "counter"
    assert families["tafe_request_duration_seconds"].type == "histogram"


def test_without_the_profiler_what_the_server_knows_is_shown(tafe_serve: Callable[..., Running]) -> None:
    served = Served(tafe_serve, "--workers", "1", "--no-profile")
    ask_often(served.port, ["/a"] * 5)
    served.scrape_until(lambda s: s.total("tafe_connections_accepted_total") >= 1, "counted")
    until(lambda: workers(served.admin)[0]["requests"] >= 5, "counted")


def test_what_the_profiler_counts_is_there_with_no_more_labels_than_are_bounded(
    tafe_serve: Callable[..., Running],
) -> None:
    served = Served(tafe_serve, "--workers", "1", "--objective", "GET /stall=20ms", "--objective", "*=1m")
    ask_often(served.port, ["/stall"] * 3 + ["/a"])
    seen = served.scrape_until(lambda s: s.total("tafe_requests_too_slow_total") >= 3, "counted")
    labels = {
        "tafe_hub_delay_seconds_count": set(),
        "tafe_request_longest_slice_seconds_count": set(),
        "tafe_slow_slices_total": set(),
        "tafe_worker_busy_ratio": {"worker"},
        "tafe_stalls_total": {"site", "cause"},
        "tafe_stall_seconds_total": {"site", "cause"},
        "tafe_stall_harm_seconds_total": {"site", "cause"},
        "tafe_route_stalls_total": {"route"},
        "tafe_route_stall_seconds_total": {"route"},
        "tafe_route_harm_seconds_total": {"route"},
        "tafe_profiler_overhead_seconds_total": set(),
        "tafe_profiler_dropped_total": set(),
        "tafe_profiler_unwritten_total": set(),
        "tafe_requests_too_slow_total": set(),
    }
    for name, expected in labels.items():
        samples = [sample for sample in seen.samples if sample.name == name]
        assert samples, name
        assert all(set(sample.labels) == expected for sample in samples), name
    assert seen.total("tafe_requests_too_slow_total") == 3
    assert seen.total("tafe_profiler_unwritten_total") == seen.total("tafe_profiler_dropped_total") == 0
    assert 0 < seen.total("tafe_profiler_overhead_seconds_total") < 1


def test_the_names_follow_the_conventions_and_have_help(tafe_serve: Callable[..., Running]) -> None:
    served = Served(tafe_serve, "--workers", "1")
    seen = served.scrape_until(lambda s: "tafe_worker_busy_ratio" in s.families, "shown")
    for family in seen.families.values():
        assert family.documentation
        assert re.fullmatch(r"tafe_[a-z_]+", family.name)
        assert not re.search(r"_(ms|us|ns|percent|kb|count|sum|bucket)$", family.name)
    for sample in seen.samples:
        if seen.families.get(sample.name.removesuffix("_total")) and sample.name.endswith("_total"):
            assert seen.families[sample.name.removesuffix("_total")].type == "counter"


def test_a_worker_does_not_load_the_renderer() -> None:
    probe = "import sys, tafe.worker, tafe.metrics; print('prometheus_client' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
