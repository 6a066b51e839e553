"""Limits of one worker."""

from __future__ import annotations

from dataclasses import fields

import pytest

from tafe.limits import Limits
from tafe.settings import Settings

# How a body is received, not what may be sent: nothing for an operator to decide.
INTERNAL = {"gathered_body_bytes", "gathered_total_bytes"}


def test_every_limit_is_a_setting_and_arrives() -> None:
    names = {field.name for field in fields(Limits)} - INTERNAL
    assert names <= {field.name for field in fields(Settings)}
    assert Settings(underscores="refuse", trailer_bytes=7).limits == Limits(underscores="refuse", trailer_bytes=7)


def test_a_negative_limit_is_an_error_that_names_it() -> None:
    with pytest.raises(ValueError, match="trailer_bytes"):
        Limits(trailer_bytes=-1)
