"""What the README names exists: scripts, files, applications and subcommands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tafe.cli import cli

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def readme() -> str:
    return (ROOT / "README.md").read_text()


def code_of(markdown: str) -> list[str]:
    """The fenced blocks and the spans in backticks."""
    blocks = re.findall(r"^```.*?\n(.*?)^```", markdown, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```.*?^```", "", markdown, flags=re.MULTILINE | re.DOTALL)
    return blocks + re.findall(r"`([^`\n]+)`", rest)


def test_paths_of_the_tree_that_the_readme_names_exist(readme: str) -> None:
    pattern = r"(?<![\w/.])(?:scripts|conf|benchmarks|apps|profiler|tafe|tests)/[\w./-]*\w"
    named = {path for code in code_of(readme) for path in re.findall(pattern, code)}
    assert {"scripts/serve", "scripts/test"} <= named, "the two commands of a newcomer"
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_applications_that_the_readme_serves_from_this_tree_exist(readme: str) -> None:
    named = {module for code in code_of(readme) for module in re.findall(r"\b(apps\.\w+):app\b", code)}
    assert named
    for module in named:
        place = ROOT.joinpath(*module.split("."))
        assert place.with_suffix(".py").is_file() or (place / "__init__.py").is_file(), module


def test_subcommands_that_the_readme_names_exist(readme: str) -> None:
    pattern = r"(?:^|[$/ ])tafe ([a-z]+)\b"
    named = {name for code in code_of(readme) for name in re.findall(pattern, code, re.MULTILINE)}
    assert {"serve", "report"} <= named
    assert named <= set(cli.commands), "each is a subcommand"


def test_code_is_found_in_blocks_and_spans() -> None:
    assert code_of("text `a b`\n```sh\n$ tafe serve\n```\nand `c`\n") == ["$ tafe serve\n", "a b", "c"]
