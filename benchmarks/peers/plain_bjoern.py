"""The plain WSGI application on bjoern: `python -m benchmarks.peers.plain_bjoern PORT`, as its documentation shows."""

from __future__ import annotations

import sys

import bjoern  # type: ignore[import-not-found]  # of the peers' environment only

from benchmarks.peers.plain_wsgi import app

if __name__ == "__main__":
    bjoern.run(app, "127.0.0.1", int(sys.argv[1]))
