"""The report as it is, for programs."""

from __future__ import annotations

import json
from typing import Any


def render(report: dict[str, Any]) -> str:
    """One object, indented, with a line feed at its end."""
    return json.dumps(report, indent=1, ensure_ascii=False) + "\n"
