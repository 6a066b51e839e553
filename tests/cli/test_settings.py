"""Settings: where they come from, what is accepted, and what is said about the rest."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tafe import values
from tafe.errors import UsageError
from tafe.limits import Limits
from tafe.resolve import example, render, resolve
from tafe.server import TRUSTED_PEERS
from tafe.settings import TABLE, Settings

ROOT = Path(__file__).resolve().parents[2]


def _file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "tafe.toml"
    path.write_text(text)
    return str(path)


def _refusal(flags: dict[str, Any], environ: dict[str, str] | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        resolve(flags, environ or {})
    return str(caught.value)


def test_a_flag_wins_over_a_variable_and_that_over_the_file_and_that_over_the_default(tmp_path: Path) -> None:
    path = _file(tmp_path, 'workers = 3\nbacklog = 100\ntimeout = "9s"\n')
    environ = {"TAFE_WORKERS": "4", "TAFE_BACKLOG": "200", "TAFE_CONFIG": path}
    resolved = resolve({"workers": "5", "backlog": None}, environ)
    settings = resolved.settings
    assert (settings.workers, settings.backlog, settings.timeout_s, settings.drain_delay_s) == (5, 200, 9.0, 0.0)
    asked = ("workers", "backlog", "timeout", "drain_delay")
    assert [resolved.origins[name] for name in asked] == ["--workers", "TAFE_BACKLOG", path, "default"]


def test_a_value_that_cannot_be_read_is_explained_in_full() -> None:
    assert _refusal({"app": "apps.hello:app"}, {"TAFE_WORKERS": "four"}) == (
        "--workers: 'four' is not a whole number\n"
        "  set by:   TAFE_WORKERS\n"
        "  allowed:  1 to 512\n"
        "  try:      tafe serve --workers 2 apps.hello:app"
    )


@pytest.mark.parametrize(
    ("flags", "complaint", "allowed", "try_"),
    [
        ({"workers": "0"}, "'0' is too small", "1 to 512", "tafe serve --workers 1 MODULE:APP"),
        ({"workers": "9999"}, "'9999' is too large", "1 to 512", "tafe serve --workers 512 MODULE:APP"),
        ({"slow_slice": "10"}, "'10' is too large", "1ms to 1s", "tafe serve --slow-slice 1s MODULE:APP"),
        ({"timeout": "soon"}, "'soon' is not a duration such as 10ms, 1.5s or 2m", "1s to 1h", "--timeout 30s"),
        ({"timeout": "-5s"}, "'-5s' is not a duration", "1s to 1h", "--timeout 30s"),
        ({"max_body": "10 apples"}, "'10 apples' is not a size such as", "0B to 1024GiB", "--max-body 1GiB"),
        ({"bind": ("8000",)}, "'8000' has no port from 0 to 65535", "HOST:PORT", "--bind 127.0.0.1:8000"),
        ({"bind": ("a:1", "h:70000")}, "'a:1, h:70000' has no port", "unix:PATH", "--bind 127.0.0.1:8000"),
        ({"bind": ("a:1", "b:1", "a:1")}, "'a:1, b:1, a:1' names a:1 twice", "HOST:PORT", "--bind 127.0.0.1:8000"),
        ({"bind": (":80,0.0.0.0:80",)}, "names 0.0.0.0:80 twice", "HOST:PORT", "--bind 127.0.0.1:8000"),
        ({"bind": ("::1:80",)}, "'::1:80' is an IPv6 address without brackets", "[IPV6]:PORT", "--bind"),
        ({"health_path": "health"}, "'health' does not begin and end with a slash", "/PATH/", "--health-path /-/"),
    ],
)
def test_a_value_out_of_bounds_or_shape_is_refused(
    flags: dict[str, Any], complaint: str, allowed: str, try_: str
) -> None:
    message = _refusal(flags)
    assert complaint in message
    assert allowed in message.partition("allowed:")[2]
    assert try_ in message.partition("try:")[2]


def test_a_wrong_value_in_the_file_is_corrected_in_the_file(tmp_path: Path) -> None:
    path = _file(tmp_path, "workers = 0\n")
    message = _refusal({"config": path})
    assert f"set by:   {path}" in message
    assert f"try:      workers = 1   in {path}" in message
    number = _refusal({"config": _file(tmp_path, "bind = 8000\n")})
    assert "--bind: 8000 is neither text nor a list of texts" in number
    assert 'try:      bind = ["127.0.0.1:8000"]   in ' in number
    switch = _refusal({"config": _file(tmp_path, 'reload = "maybe"\n')})
    assert "--reload: 'maybe' is neither true nor false" in switch


def test_a_switch_in_a_variable_is_corrected_with_its_flag() -> None:
    assert "try:      tafe serve --profile MODULE:APP" in _refusal({}, {"TAFE_PROFILE": "maybe"})
    assert resolve({}, {"TAFE_PROFILE": "off"}).settings.profile is False
    assert resolve({"profile": True}, {"TAFE_PROFILE": "0"}).settings.profile is True


def test_an_unknown_key_or_variable_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    path = _file(tmp_path, "wokers = 3\n")
    message = _refusal({"config": path})
    assert message.startswith(f"{path}: 'wokers' is not a setting")
    assert "try:      workers" in message
    message = _refusal({}, {"TAFE_WORKER": "3"})
    assert message.startswith("TAFE_WORKER is not a setting")
    assert "try:      TAFE_WORKERS" in message
    assert "'config' is not a setting" in _refusal({"config": _file(tmp_path, 'config = "other.toml"\n')})


def test_a_variable_that_is_spelled_like_no_setting_is_ignored_and_remembered() -> None:
    assert resolve({}, {"TAFE_XYZZY": "3", "XYZZY": "3", "TAFE_WORKERS": "3"}).ignored == ("TAFE_XYZZY",)


@pytest.mark.parametrize("service", ["TAFE", "TAFE_WEB", "TAFE_WORKER"])
def test_the_variables_that_kubernetes_sets_for_a_service_are_nobodys_mistake(service: str) -> None:
    environ = {
        f"{service}_SERVICE_HOST": "10.0.0.9",
        f"{service}_SERVICE_PORT": "80",
        f"{service}_SERVICE_PORT_HTTP": "80",
        f"{service}_PORT": "tcp://10.0.0.9:80",
        f"{service}_PORT_80_TCP": "tcp://10.0.0.9:80",
        f"{service}_PORT_80_TCP_PROTO": "tcp",
        f"{service}_PORT_80_TCP_PORT": "80",
        f"{service}_PORT_80_TCP_ADDR": "10.0.0.9",
    }
    resolved = resolve({}, environ)
    assert resolved.ignored == ()
    assert resolved.settings == Settings()


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.toml")
    assert f"cannot read {missing}: No such file or directory" in _refusal({}, {"TAFE_CONFIG": missing})
    assert "is not valid TOML" in _refusal({"config": _file(tmp_path, "workers = = 2")})


def test_a_drain_delay_must_leave_time_for_requests_in_flight() -> None:
    message = _refusal({"drain_delay": "30s", "graceful_timeout": "30s"})
    assert "30s leaves no time for requests in flight" in message
    assert "allowed:  less than --graceful-timeout, which is 30s" in message
    assert resolve({"drain_delay": "29s", "graceful_timeout": "30s"}, {}).settings.drain_delay_s == 29
    assert resolve({"graceful_timeout": "0"}, {}).settings.graceful_timeout_s == 0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10ms", 0.01),
        ("1.5s", 1.5),
        ("2m", 120),
        ("1h", 3600),
        ("250us", 0.00025),
        ("7", 7),
        (7, 7),
        (0.5, 0.5),
        ("0", 0),
    ],
)
def test_durations(text: Any, seconds: float) -> None:
    assert values.read_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "1 day", "1e3s", "nan", "inf", True, None, [1], "1,5s", float("nan")])
def test_what_is_no_duration(text: Any) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        values.read_duration(text)


@pytest.mark.parametrize(
    ("text", "count"), [("512B", 512), ("64KiB", 65536), ("1.5 MiB", 1572864), ("1GiB", 1 << 30), (9, 9)]
)
def test_sizes(text: Any, count: int) -> None:
    assert values.read_size(text) == count


@pytest.mark.parametrize("seconds", [0, 0.01, 0.0005, 1, 1.5, 25, 75, 90, 120, 3600, 86400, 12.34567])
def test_a_duration_that_was_shown_reads_back(seconds: float) -> None:
    assert values.read_duration(values.show_duration(seconds)) == pytest.approx(seconds)


@pytest.mark.parametrize("count", [0, 1, 512, 1000, 1024, 65536, 1 << 30, 3 << 20])
def test_a_size_that_was_shown_reads_back(count: int) -> None:
    assert values.read_size(values.show_size(count)) == count


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        (":80", "http://0.0.0.0:80"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("unix:/run/a.sock", "unix:/run/a.sock"),
        ("unix:///run/a.sock", "unix:/run/a.sock"),
        ("fd:3", "fd:3"),
        ("fd://3", "fd:3"),
        ("localhost:0", "http://localhost:0"),
    ],
)
def test_addresses(text: str, shown: str) -> None:
    assert str(values.parse_address(text)) == shown


@pytest.mark.parametrize("text", ["", "8000", "host:", "host:x", "host:65536", "unix:", "fd:x", "a:b:1"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"has no port|names no|is an IPv6 address"):
        values.parse_address(text)


def test_several_addresses_come_from_a_repeated_flag_a_list_or_commas(tmp_path: Path) -> None:
    both = ("127.0.0.1:1", "unix:/a")
    assert resolve({"bind": both}, {}).settings.bind == both
    assert resolve({}, {"TAFE_BIND": "127.0.0.1:1,unix:/a"}).settings.bind == both
    path = _file(tmp_path, 'bind = ["127.0.0.1:1", "unix:/a"]\n')
    assert resolve({"config": path}, {}).settings.bind == both


def test_proxies_are_addresses_or_unix_sockets_or_nobody() -> None:
    assert resolve({}, {}).settings.trusted_peers == set(TRUSTED_PEERS)
    assert resolve({"trusted_proxies": ("10.0.0.1,::1", "unix")}, {}).settings.trusted_peers == {"10.0.0.1", "::1", ""}
    assert resolve({}, {"TAFE_TRUSTED_PROXIES": ""}).settings.trusted_peers == frozenset()
    message = _refusal({"trusted_proxies": ("10.0.0.0/8",)})
    assert "holds '10.0.0.0/8', which is not an IP address" in message
    assert "try:      tafe serve --trusted-proxies 127.0.0.1,::1,unix MODULE:APP" in message


# -- the table


def test_names_flags_and_variables_are_unique_and_follow_from_the_name() -> None:
    assert len({setting.name for setting in TABLE}) == len(TABLE) == len(dataclasses.fields(Settings))
    for setting in TABLE:
        assert re.fullmatch(r"[a-z][a-z_]*", setting.name)
        assert (setting.flag, setting.env) == (f"--{setting.name.replace('_', '-')}", f"TAFE_{setting.name.upper()}")


@pytest.mark.parametrize("setting", TABLE, ids=lambda setting: setting.name)
def test_every_default_is_within_its_bounds_and_reads_back_as_itself(setting: Any) -> None:
    assert setting.help.endswith(".")
    assert setting.why
    assert not setting.why.endswith(".")
    if setting.default == "":
        return
    shown = tomllib.loads(f"value = {setting.kind.show(setting.default)}")["value"]
    assert setting.kind.read(shown) == setting.default
    if isinstance(setting.default, int | float) and not isinstance(setting.default, bool):
        assert setting.low <= setting.default <= setting.high


def test_the_limits_take_their_defaults_from_the_server_s() -> None:
    assert resolve({}, {}).settings.limits == Limits()
    assert resolve({"max_headers": "7", "keep_alive": "5s"}, {}).settings.limits == Limits(
        header_count=7, idle_timeout_s=5.0
    )


def test_the_profile_lies_in_the_run_directory_unless_told_otherwise() -> None:
    assert resolve({"run_dir": "/run/a"}, {}).settings.profile_path == "/run/a/profile"
    assert resolve({"run_dir": "/run/a", "profile_dir": "/p"}, {}).settings.profile_path == "/p"
    assert resolve({"profile": False, "profile_dir": "/p"}, {}).settings.profile_path is None


def test_the_example_file_in_conf_is_made_from_the_table() -> None:
    assert (ROOT / "conf" / "tafe.toml").read_text() == example(), "write example() to conf/tafe.toml"


def test_the_example_file_says_the_defaults_and_nothing_else(tmp_path: Path) -> None:
    text = example()
    assert tomllib.loads(text) == {}
    stated = "\n".join(line[1:] for line in text.splitlines() if re.match(r"#[a-z_]+ = ", line))
    settings = resolve({"config": _file(tmp_path, stated)}, {}).settings
    expected = dataclasses.replace(Settings(), app="apps.hello:app", config=settings.config)
    assert settings == expected
    assert max(len(line) for line in text.splitlines()) <= 120


def test_what_tafe_config_prints_is_a_settings_file_that_means_the_same(tmp_path: Path) -> None:
    flags = {
        "app": "a:b",
        "bind": ("127.0.0.1:1", "unix:/a b"),
        "slow_slice": "3ms",
        "reload": True,
        "max_body": "5MiB",
    }
    resolved = resolve(flags, {"TAFE_WORKERS": "7"})
    text = render(resolved)
    assert re.search(r"(?m)^workers = 7 +# TAFE_WORKERS$", text)
    assert re.search(r"(?m)^backlog = 2048 +# default$", text)
    path = _file(tmp_path, text)
    again = resolve({"config": path}, {}).settings
    assert dataclasses.replace(again, config="") == resolved.settings
