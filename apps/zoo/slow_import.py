"""A module that is busy for a while when it is loaded, as many that build tables or compile patterns are."""

from __future__ import annotations

import os
import time

_DURATION = "ZOO_IMPORT_MS"  # in the environment, because the module is not there yet when it is to be known


def take_ms(ms: int) -> None:
    """Make the next import last that long."""
    os.environ[_DURATION] = str(ms)


_until_s = time.perf_counter() + int(os.environ.pop(_DURATION, "0")) / 1000
while time.perf_counter() < _until_s:  # stalls
    pass
