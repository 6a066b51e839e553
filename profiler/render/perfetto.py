"""For ui.perfetto.dev and chrome://tracing: slow requests in time, with arrows from culprits to victims.

Format: JSON Object Format of the Trace Event Format. A worker is a process; its first track is the hub: the slow slices
that the slowest requests were delayed by, and all slices but the shortest of the moments that were stored. Each
further track is a request: the slowest, and those that a moment tells of. Inside a request stand its own slow slices
and the times it was ready, but queued behind another's; there the arrow ends. What else a request did has sums only
(its arguments): other slices, and other requests, are not in the files.
The table of sites, which is not in time, is in `otherData`.
Times count from the earliest event, so that a viewer's microseconds keep their precision.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from profiler.render.words import excused

_SAME_SLICE_S = 0.0005  # slow slices of one worker do not overlap, and none is shorter than a millisecond
_SLICES_TRACK = 1

Event = dict[str, Any]


def render(report: dict[str, Any]) -> str:
    """One JSON object."""
    requests = _requests(report)
    ran = [ran for moment in report["moments"] for ran in moment["slices"]]
    began_s = [_seconds(one["started"]) for one in (*requests, *ran)] + [
        _seconds(by["started"]) for request in requests for by in request["blamed"] if by["started"]
    ]
    zero_s = min(began_s, default=_seconds(report["window"]["start"]))
    workers: dict[tuple[str, int], _Worker] = {}
    events: list[Event] = []
    for request in requests:
        name = (request["host"], request["pid"])
        if name not in workers:
            workers[name] = _Worker(len(workers) + 1, zero_s)
            events += workers[name].begin(f"{request['host']} {request['pid']}")
    for moment in report["moments"]:
        of = moment["request"]
        events += workers[of["host"], of["pid"]].hub(moment["slices"])
    for request in requests:
        events += workers[request["host"], request["pid"]].request(request)
    document = {
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {
            "schema": report["schema"],
            "start": report["window"]["start"],
            "end": report["window"]["end"],
            "shows": "the slowest requests, the slow slices that delayed them, and what the hub did in the moments"
            " that were stored; the sites are of the whole window",
            "sites": [_site(site) for site in report["sites"]],
        },
    }
    return json.dumps(document, ensure_ascii=False) + "\n"


def _requests(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The slowest, and those of moments, each once and in order."""
    told = [request for moment in report["moments"] for request in (moment["request"], *moment["waited"])]
    by_name: dict[tuple[str, int, str, tuple[float, ...]], dict[str, Any]] = {}
    for request in (*report["slowest"], *told):
        # Not by its start, which is worked out from two clocks each time it is stored.
        times = (request["total_ms"], request["running_ms"], request["queued_ms"])
        name = (request["host"], request["pid"], request["request_id"], times)
        by_name.setdefault(name, request)
    return sorted(by_name.values(), key=lambda request: _seconds(request["started"]))


class _Worker:
    """The tracks of one process."""

    def __init__(self, number: int, zero_s: float) -> None:
        self._number = number
        self._zero_s = zero_s
        self._tracks = _SLICES_TRACK
        self._slices: list[float] = []  # when the culprits drawn already began
        self._arrows = 0

    def begin(self, name: str) -> list[Event]:
        """Its names."""
        return [
            self._name("process_name", _SLICES_TRACK, name),
            self._name("thread_name", _SLICES_TRACK, "the hub: slices that did not yield"),
        ]

    def hub(self, slices: list[dict[str, Any]]) -> Iterator[Event]:
        """Who had the hub in a moment, but for what other moments have shown."""
        for ran in slices:
            began_s, length_s = _seconds(ran["started"]), ran["length_ms"] / 1000
            if self._drawn(began_s, min(_SAME_SLICE_S, length_s / 2)) is None:
                name = f"until {_where(ran)}" if ran["yielded"] and ran["file"] else _where(ran)
                yield self._culprit(ran, name, began_s, began_s + length_s)

    def request(self, request: dict[str, Any]) -> Iterator[Event]:
        """A request on a track of its own, and what it is blamed on."""
        self._tracks += 1
        track, start_s = self._tracks, _seconds(request["started"])
        end_s = start_s + request["total_ms"] / 1000
        yield self._name("thread_name", track, f"{request['route']}  {request['request_id']}")
        yield self._slice(track, request["route"], "request", (start_s, end_s), _told(request))
        drawn_to_s = start_s
        placed = [by for by in request["blamed"] if by["started"] is not None]
        for by in sorted(placed, key=lambda by: _seconds(by["started"])):
            began_s = _seconds(by["started"])
            drawn_s = self._drawn(began_s, _SAME_SLICE_S)
            began_s = began_s if drawn_s is None else drawn_s  # one slice's wall-clock time, worked out twice, varies
            ended_s = began_s + by["length_ms"] / 1000
            if drawn_s is None:
                yield self._culprit(by, _where(by), began_s, ended_s)
            # It waited to the end of the slice. Clipped to the request, and to what is drawn: in one track slices nest.
            cost_s = max(ended_s - by["ms"] / 1000, drawn_to_s)
            drawn_to_s = max(cost_s, min(ended_s, end_s))
            if drawn_to_s <= cost_s:
                continue
            where = _where(by)
            name, kind = (f"ran {where}", "own") if by["own"] else (f"queued behind {where}", "queued")
            yield self._slice(track, name, kind, (cost_s, drawn_to_s), {"ms": by["ms"], "of": by["route"]})
            if not by["own"]:
                yield from self._arrow(track, max(cost_s, began_s))

    def _drawn(self, began_s: float, within_s: float) -> float | None:
        """When the slice began, as it is drawn already."""
        nearest_s = min(self._slices, key=lambda other_s: abs(other_s - began_s), default=None)
        return nearest_s if nearest_s is not None and abs(nearest_s - began_s) < within_s else None

    def _culprit(self, by: dict[str, Any], name: str, began_s: float, ended_s: float) -> Event:
        self._slices.append(began_s)
        told = {"file": by["file"], "line": by["line"], "route": by["route"], "ms": by["length_ms"]}
        told |= {key: by[key] for key in ("kind", "request_id") if key in by}
        return self._slice(_SLICES_TRACK, name, "culprit", (began_s, ended_s), told)

    def _arrow(self, track: int, at_s: float) -> Iterator[Event]:
        self._arrows += 1
        both = {
            "name": "delays",
            "cat": "harm",
            "id": self._number * 1_000_000 + self._arrows,
            "pid": self._number,
            "ts": self._us(at_s),
        }
        yield {**both, "ph": "s", "tid": _SLICES_TRACK}
        yield {**both, "ph": "f", "bp": "e", "tid": track}

    def _slice(self, track: int, name: str, kind: str, span_s: tuple[float, float], told: dict[str, Any]) -> Event:
        start_us, end_us = (self._us(at_s) for at_s in span_s)
        return {
            "name": name,
            "cat": kind,
            "ph": "X",
            "ts": start_us,
            "dur": end_us - start_us,
            "pid": self._number,
            "tid": track,
            "args": told,
        }

    def _name(self, what: str, track: int, name: str) -> Event:
        return {"name": what, "ph": "M", "pid": self._number, "tid": track, "args": {"name": name}}

    def _us(self, at_s: float) -> int:
        return round((at_s - self._zero_s) * 1e6)


def _told(request: dict[str, Any]) -> dict[str, Any]:
    return {
        key: request[key]
        for key in ("request_id", "started", "total_ms", "running_ms", "waiting_ms", "queued_ms", "blamed")
    }


def _site(site: dict[str, Any]) -> dict[str, Any]:
    keys = ("rank", "file", "line", "function", "cause", "innocent", "count", "harm_ms", "victims", "advice")
    return {**{key: site[key] for key in keys}, "busy_ms": site["busy_ms"]["total"]}


def _where(by: dict[str, Any]) -> str:
    place = f"{os.path.basename(by['file'])}:{by['line']}" if by["file"] else "a line that was not seen"
    return place + excused(by)


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
