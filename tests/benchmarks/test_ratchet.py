"""A hello may not grow dearer unnoticed: its instructions, counted by callgrind, against the stored figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks import counters, machine, ratchet
from tests.services.requirements import missing

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("mode", ratchet.MODES)
def test_a_hello_costs_no_more_instructions_than_the_ratchet_allows(mode: str, tmp_path: Path) -> None:
    if not counters.callgrind_is_here():
        missing("valgrind (Debian package valgrind)", "apt-get install valgrind")
    if reason := ratchet.why_not(mode):
        missing(f"the {mode} mode ({reason})", "python -m scripts.compiled")
    stored = ratchet.stored(mode)
    if stored is None:
        pytest.skip(f"no figure for CPython {ratchet.release()}, {mode}, in benchmarks/ratchet.json")
    cores = machine.two_cores()
    counted = ratchet.count(mode, tmp_path, cores or (0, 0))
    allowed = round(stored * (1 + ratchet.SLACK))
    assert counted <= allowed, (
        f"a hello, {mode}, takes {counted:,} user instructions; the ratchet allows {allowed:,}, which is {stored:,} "
        f"and {ratchet.SLACK:.0%}. If the growth is wanted: python -m benchmarks --set-ratchet"
    )


def test_a_figure_is_stored_for_this_release_and_mode_and_the_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ratchet.json"
    file.write_text('{"hello_instructions_user": {"3.0": {"compiled": 7}}}')
    monkeypatch.setattr(ratchet, "FILE", file)
    assert ratchet.stored("compiled") is None
    ratchet.store("compiled", 50_000)
    ratchet.store("interpreted", 60_000)
    assert (ratchet.stored("compiled"), ratchet.stored("interpreted")) == (50_000, 60_000)
    monkeypatch.setattr(ratchet, "release", lambda: "3.0")
    assert (ratchet.stored("compiled"), ratchet.stored("interpreted")) == (7, None)


def test_a_mode_that_cannot_run_here_is_not_measured_and_the_reason_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ratchet, "FILE", tmp_path / "ratchet.json")
    monkeypatch.setattr(ratchet.environment, "interpreted", lambda: {"profiler": "not compiled", "tafe": ""})
    monkeypatch.setattr(ratchet, "count", lambda mode, directory, cores: 60_000)
    ratchet.measure_all(tmp_path, (0, 1))
    assert (ratchet.stored("compiled"), ratchet.stored("interpreted")) == (None, 60_000)
    assert capsys.readouterr().err == "compiled: not measured: profiler: not compiled\n"
