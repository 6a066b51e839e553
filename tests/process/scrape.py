"""Reading /metrics as Prometheus does, with its library's own parser."""

from __future__ import annotations

import http.client
import json
from contextlib import closing
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.process.client import get


class Scrape:
    """All samples of one answer."""

    def __init__(self, port: int) -> None:
        answer = get(port, "/metrics")
        assert answer.status == 200
        self.text = answer.body
        self.families = {family.name: family for family in text_string_to_metric_families(self.text)}
        self.samples = [sample for family in self.families.values() for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """The one sample of this name with these labels, perhaps with others besides; 0.0 if there is none."""
        found = [s.value for s in self.samples if s.name == name and labels.items() <= s.labels.items()]
        assert len(found) <= 1, found
        return found[0] if found else 0.0

    def total(self, name: str, **labels: str) -> float:
        """All samples of this name with these labels."""
        return sum(s.value for s in self.samples if s.name == name and labels.items() <= s.labels.items())

    def values_of(self, name: str, label: str) -> set[str]:
        """What a label can be."""
        return {s.labels[label] for s in self.samples if s.name == name}

    def growing(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """The samples that must never fall."""
        kinds = {"counter", "histogram"}
        families = [family for family in self.families.values() if family.type in kinds]
        return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def workers(port: int) -> list[dict[str, Any]]:
    """What /workers tells."""
    found: list[dict[str, Any]] = json.loads(get(port, "/workers").body)["workers"]
    return found


def ask_often(port: int, paths: list[str]) -> None:
    """One connection, one request after the other."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        for path in paths:
            connection.request("GET", path)
            connection.getresponse().read()
