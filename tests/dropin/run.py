"""Run one of gevent's own test modules for pywsgi with `tafe.WSGIServer` in place of pywsgi's.

A process of its own: the modules patch the standard library, or demand that nothing did. Prints one JSON object:
the identifier of each test -> "ok", "skipped" or the text of what went wrong.

Two things are put in the place of others: `wsgi.input` (pywsgi's `Input` becomes ours), and a `handler_class` that
overrides nothing but a name with an underscore, which its base stands in for: what else its tests ask is asked.
With `--with-host` each HTTP/1.1 request of the module that has no Host gets one, as it is read.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import json
import re
import sys
import unittest
from importlib.machinery import SourceFileLoader
from types import ModuleType
from typing import Any, Final

import gevent.pywsgi

from tafe.body import ChunkedSource, ClientGone, LengthSource, StreamInput
from tafe.limits import Limits
from tafe.server import WSGIServer

_WITHOUT_HOST: Final = re.compile(rb" HTTP/1\.1\\r\\n(?!Host)")  # as it is written in a test: \r\n are escapes


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


class WithHost(SourceFileLoader):
    """Reads a test module, and gives its requests a Host."""

    def get_data(self, path: str) -> bytes:
        data = super().get_data(path)
        return _WITHOUT_HOST.sub(rb" HTTP/1.1\\r\\nHost: localhost\\r\\n", data) if path.endswith(".py") else data

    def path_stats(self, path: str) -> Any:
        raise OSError("not from the cache of compiled modules, nor into it")


def load(name: str, *, with_host: bool) -> ModuleType:
    """Import the module, with our server in place."""
    gevent.pywsgi.WSGIServer = WSGIServer
    gevent.pywsgi.Input = make_input
    if not with_host:
        return importlib.import_module(name)
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    spec.loader = WithHost(name, spec.origin)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def drop_private_overrides(module: ModuleType) -> None:
    """Let the base stand in for a handler class that overrides private names only; see above."""
    for case in vars(module).values():
        handler = vars(case).get("handler_class") if isinstance(case, type) else None
        if isinstance(handler, type):
            own = [name for name in vars(handler) if not name.startswith("__")]
            if own and all(name.startswith("_") for name in own):
                case.handler_class = handler.__base__


def main(module_name: str, options: list[str], excluded: list[str]) -> None:
    """Run every test of the module but the excluded ones; with `--only` just those; with `--list` name them all."""
    module = load(module_name, with_host="--with-host" in options)
    drop_private_overrides(module)
    tests = _flat(unittest.defaultTestLoader.loadTestsFromModule(module))
    if "--list" in options:
        print(json.dumps([_name(test) for test in tests]))
        return
    results = Results()
    only = "--only" in options
    unittest.TestSuite(test for test in tests if (_name(test) in excluded) is only).run(results)
    print(json.dumps(results.by_test))


def _flat(suite: Any) -> list[Any]:
    if isinstance(suite, unittest.TestCase):
        return [suite]
    return [test for part in suite for test in _flat(part)]


if __name__ == "__main__":
    main(
        sys.argv[1],
        [word for word in sys.argv[2:] if word.startswith("--")],
        [word for word in sys.argv[2:] if not word.startswith("--")],
    )
