"""`python -m profiler report DIR...`: the report without a server."""

from __future__ import annotations

import sys

from profiler.report import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
