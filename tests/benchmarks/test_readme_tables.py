"""The figures in the README are those of the newest result file."""

from __future__ import annotations

import json

import pytest

from benchmarks import readme


def test_the_readme_shows_the_newest_result_as_it_is() -> None:
    path = readme.newest()
    assert path is not None, "a result file is committed"
    text = readme.README.read_text()
    assert readme.replaced(text, json.loads(path.read_text())) == text, "run: python -m benchmarks.readme"


def test_a_readme_without_the_place_for_the_tables_is_an_error() -> None:
    with pytest.raises(ValueError, match="benchmark begin"):
        readme.replaced("# Nothing here\n", {})
