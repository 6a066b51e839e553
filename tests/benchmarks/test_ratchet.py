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
def test_a_hello_costs_no_more_instructions_than_the_ratchet_allows(tmp_path: Path) -> None:
    if not counters.callgrind_is_here():
        missing("valgrind (Debian package valgrind)", "apt-get install valgrind")
    stored = ratchet.stored()
    if stored is None:
        pytest.skip(f"no figure for CPython {ratchet.release()} in benchmarks/ratchet.json")
    cores = machine.two_cores()
    counted = ratchet.count(tmp_path, cores or (0, 0))
    allowed = round(stored * (1 + ratchet.SLACK))
    assert counted <= allowed, (
        f"a hello takes {counted:,} user instructions; the ratchet allows {allowed:,}, which is {stored:,} and "
        f"{ratchet.SLACK:.0%}. If the growth is wanted: python -m benchmarks --set-ratchet"
    )


def test_a_figure_is_stored_for_this_release_and_the_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ratchet.json"
    file.write_text('{"hello_instructions_user": {"3.0": 7}}')
    monkeypatch.setattr(ratchet, "FILE", file)
    assert ratchet.stored() is None
    ratchet.store(50_000)
    assert ratchet.stored() == 50_000
    monkeypatch.setattr(ratchet, "release", lambda: "3.0")
    assert ratchet.stored() == 7
