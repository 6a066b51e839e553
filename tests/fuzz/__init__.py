"""Property-based tests of the parsers and of a connection, with mutations of the corpus and llhttp as second opinion.

The quick profile takes the same examples each time, so that a change of the code alone decides whether it passes.
`TAFE_FUZZ_EXAMPLES=20000 pytest tests/fuzz` searches with new ones; what it finds belongs into tests/corpus as a case.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

SEARCHING = bool(os.environ.get("TAFE_FUZZ_EXAMPLES"))


def profile(quick_examples: int) -> settings:
    """Settings of one test: `quick_examples` keeps all quick ones together at about 15 s."""
    return settings(
        max_examples=int(os.environ["TAFE_FUZZ_EXAMPLES"]) if SEARCHING else quick_examples,
        derandomize=not SEARCHING,
        deadline=None,  # the machine's pace is no property of the code; a hang ends in `live.HANG_S`
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
