"""Several things at once within a request: `gather` for calls that need not wait for each other, `SingleFlight` for
identical calls of many requests.

`spawning.py` starts the greenlets of both and ends them. Nothing here knows HTTP, databases or the profiler; the
greenlets are gevent's own, so whatever follows spawned greenlets follows them.
"""

from tafe.concurrency.flights import SingleFlight
from tafe.concurrency.gathering import gather

__all__ = ["SingleFlight", "gather"]
