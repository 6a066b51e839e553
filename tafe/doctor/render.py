"""Findings for people, and for programs."""

from __future__ import annotations

import json
import textwrap

from tafe.doctor.finding import Finding
from tafe.profiling import plain

SCHEMA = "tafe.doctor/1"
_WIDTH = 100
_NEXT = (
    "This saw what is named in the source. What only shows when it runs:\n"
    "  pytest --no-stall=10ms     your tests, each failed by a line that keeps the hub\n"
    "  tafe serve {app}, then tafe report .run/profile"
)


def as_text(app: str, findings: list[Finding]) -> str:
    """A paragraph each, and what to type next."""
    lines = []
    for number, one in enumerate(findings, 1):
        place = f"{one.file}:{one.line}" + (f" in {one.function}" if one.function else "") if one.file else app
        lines.append(plain(f"{number}. {place}   {one.what}"))
        if one.source:
            lines.append(plain(f"     {one.source}"))
        lines += [*_wrapped(f"   {one.why}", "   "), *_wrapped(f"   -> {one.instead}", "      "), ""]
    if not findings:
        count = f"{app}: nothing is known to block"
    else:
        count = f"{app}: {len(findings)} {'place blocks' if len(findings) == 1 else 'places block'} a hub"
    return "\n".join([*lines, count, _NEXT.format(app=app)]) + "\n"


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(plain(text), _WIDTH, subsequent_indent=indent)


def as_json(app: str, findings: list[Finding]) -> str:
    """One object."""
    return json.dumps({"schema": SCHEMA, "app": app, "findings": [one._asdict() for one in findings]}, indent=1) + "\n"
