"""Which source file was saved, for `--reload`: looks at modification times, twice a second, from the arbiter.

The workers are not asked what they have imported: a file that cannot be imported because of an error in it is in
nobody's list, and saving it is just what one waits for. So everything that ends with .py under the working directory
and the application's own directory is looked at, and the settings file. Limits: thousands of files take milliseconds;
installed packages and hidden directories are left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from tafe import load
from tafe.settings import Settings

_LEFT_OUT = {"__pycache__", "node_modules", "site-packages"}


class SourceWatcher:
    """`changed` tells of one change since the last call."""

    def __init__(self, settings: Settings) -> None:
        self._roots = _roots(settings.app)
        self._files = [settings.config] if settings.config else []
        self._seen = dict(self._look())

    def changed(self) -> str | None:
        """A file that was saved, added or removed since the last call; None if there is none."""
        now = dict(self._look())
        before, self._seen = self._seen, now
        if now == before:
            return None
        differing = [path for path in now.keys() | before.keys() if now.get(path) != before.get(path)]
        return os.path.relpath(min(differing))

    def _look(self) -> Iterator[tuple[str, int]]:
        for path in self._files:
            try:
                yield path, os.stat(path).st_mtime_ns
            except OSError:
                continue
        for root in self._roots:
            yield from _sources(root)


def _roots(app: str) -> list[str]:
    """The working directory, and the application's if it lies elsewhere."""
    here = os.getcwd()
    origin = load.find(load.parse(app)).origin
    folder = os.path.dirname(os.path.abspath(origin)) if origin else here
    return [here] if os.path.commonpath([here, folder]) == here else [here, folder]


def _sources(folder: str) -> Iterator[tuple[str, int]]:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        try:
            if entry.name.endswith(".py"):
                yield entry.path, entry.stat().st_mtime_ns
            elif entry.name[0] != "." and entry.name not in _LEFT_OUT and entry.is_dir(follow_symlinks=False):
                yield from _sources(entry.path)
        except OSError:  # it went away while we looked
            continue
