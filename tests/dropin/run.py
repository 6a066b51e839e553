"""Run one of gevent's own test modules for pywsgi with `tafe.WSGIServer` in place of pywsgi's.

A process of its own: the modules patch the standard library, or demand that nothing did. Prints one JSON object:
the identifier of each test -> "ok", "skipped" or the text of what went wrong.
"""

from __future__ import annotations

import importlib
import io
import json
import sys
import unittest
from typing import Any

import gevent.pywsgi

from tafe.body import ChunkedSource, ClientGone, LengthSource, StreamInput
from tafe.limits import Limits
from tafe.server import WSGIServer


def make_input(rfile: io.BytesIO, content_length: int | None = None, *, chunked_input: bool = False) -> StreamInput:
    """Our `wsgi.input`, from what pywsgi's is made from."""

    def receive(size: int) -> bytes:
        data = rfile.read(size)
        if not data:
            raise ClientGone("the body broke off")
        return data

    if chunked_input:
        return StreamInput(ChunkedSource(receive, lambda _rest: None, Limits()))
    return StreamInput(LengthSource(receive, content_length or 0))


class Results(unittest.TestResult):
    """What became of each test."""

    def __init__(self) -> None:
        super().__init__()
        self.by_test: dict[str, str] = {}

    def stopTest(self, test: unittest.TestCase) -> None:
        self.by_test.setdefault(_name(test), "ok")
        super().stopTest(test)

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        super().addError(test, err)
        self.by_test[_name(test)] = self.errors[-1][1]

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        super().addFailure(test, err)
        self.by_test[_name(test)] = self.failures[-1][1]

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        super().addSkip(test, reason)
        self.by_test[_name(test)] = "skipped"


def _name(test: unittest.TestCase) -> str:
    return ".".join(test.id().split(".")[-2:])


def main(module_name: str, excluded: list[str]) -> None:
    """Run every test of the module but the excluded ones; or, for `--list`, name them."""
    gevent.pywsgi.WSGIServer = WSGIServer
    gevent.pywsgi.Input = make_input
    module = importlib.import_module(module_name)
    tests = _flat(unittest.defaultTestLoader.loadTestsFromModule(module))
    if excluded == ["--list"]:
        print(json.dumps([_name(test) for test in tests]))
        return
    results = Results()
    unittest.TestSuite(test for test in tests if _name(test) not in excluded).run(results)
    print(json.dumps(results.by_test))


def _flat(suite: Any) -> list[Any]:
    if isinstance(suite, unittest.TestCase):
        return [suite]
    return [test for part in suite for test in _flat(part)]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
