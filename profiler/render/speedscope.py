"""For www.speedscope.app, which also runs offline: the stacks of all sites, weighed by harm, and by time on the hub.

Format: speedscope's file-format-spec.ts, `SampledProfile`. A sample is a site, so "Left Heavy" and "Sandwich" are the
views to use; time order has no meaning here, the order is the report's. A frame is one line of a function.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from profiler.render.frames import Frame, frames_of

SCHEMA = "https://www.speedscope.app/file-format-schema.json"  # the format wants its name; nothing is loaded from there


def render(report: dict[str, Any]) -> str:
    """One JSON object with two profiles over the same frames."""
    indexes: dict[Frame, int] = {}
    stacks = [[indexes.setdefault(frame, len(indexes)) for frame in frames_of(site)] for site in report["sites"]]

    def profile(name: str, weight: Callable[[dict[str, Any]], float]) -> dict[str, Any]:
        weights = [weight(site) for site in report["sites"]]
        return {
            "type": "sampled",
            "name": name,
            "unit": "milliseconds",
            "startValue": 0,
            "endValue": sum(weights),
            "samples": stacks,
            "weights": weights,
        }

    document = {
        "$schema": SCHEMA,
        "exporter": report["schema"],
        "name": f"{report['window']['start']} to {report['window']['end']}",
        "activeProfileIndex": 0,
        "profiles": [
            profile("harm: delay given to other requests", lambda site: float(site["harm_ms"])),
            profile("busy: time on the hub", lambda site: float(site["busy_ms"]["total"])),
        ],
        "shared": {"frames": [_described(frame) for frame in indexes]},
    }
    return json.dumps(document, ensure_ascii=False) + "\n"


def _described(frame: Frame) -> dict[str, Any]:
    if not frame.file:
        return {"name": frame.function}
    name = f"{frame.function} {os.path.basename(frame.file)}:{frame.line}"  # the line is what is looked for
    return {"name": name, "file": frame.file, "line": frame.line}
