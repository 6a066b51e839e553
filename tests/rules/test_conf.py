"""The files in conf/ agree with the settings' defaults where one side relies on the other."""

from __future__ import annotations

import re
from pathlib import Path

from tafe.exposition import COUNTERS, GAUGES, HISTOGRAMS, LIVE
from tafe.settings import BY_NAME, TABLE

CONF = Path(__file__).resolve().parents[2] / "conf"


def seconds(file: str, pattern: str) -> float:
    """The one number of seconds that `pattern` finds in a file of conf/."""
    (found,) = re.findall(pattern, (CONF / file).read_text(), re.MULTILINE)
    return float(found)


def test_balancers_close_idle_connections_before_tafe_does() -> None:
    keep_alive_s = BY_NAME["keep_alive"].default
    assert seconds("nginx.conf", r"^        keepalive_timeout (\d+)s;") < keep_alive_s
    assert seconds("haproxy.cfg", r"pool-purge-delay (\d+)s$") < keep_alive_s


def test_systemd_kills_only_after_tafe_has_given_up_by_itself() -> None:
    assert seconds("tafe.service", r"^TimeoutStopSec=(\d+)s$") > BY_NAME["graceful_timeout"].default


def test_the_unit_starts_tafe_with_options_that_exist() -> None:
    unit = (CONF / "tafe.service").read_text().replace("\\\n", " ")
    (command,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    options = re.findall(r"--[a-z-]+", command)
    assert options
    assert set(options) <= {setting.flag for setting in TABLE}


def test_both_balancers_hide_the_health_routes() -> None:
    prefix = BY_NAME["health_path"].default
    assert f"location ^~ {prefix} {{" in (CONF / "nginx.conf").read_text()
    haproxy = (CONF / "haproxy.cfg").read_text()
    assert f"path_beg {prefix} }}" in haproxy
    assert f"uri {prefix}ready " in haproxy


def test_what_prometheus_is_to_ask_for_is_served() -> None:
    rules = (CONF / "prometheus-rules.yml").read_text()
    served = {*COUNTERS, *GAUGES, *LIVE, "tafe_workers", "tafe_worker_starts_total", "tafe_db_pool_wait_seconds_bucket"}
    served |= {f"{name}_bucket" for name in HISTOGRAMS}
    asked = set(re.findall(r"\btafe_[a-z_]+", rules))
    assert len(asked) > 8
    assert asked <= served


def test_the_example_of_an_admin_address_is_the_same_everywhere() -> None:
    (target,) = re.findall(r'targets: \["(.*)"\]', (CONF / "prometheus.yml").read_text())
    assert target in BY_NAME["admin"].why
