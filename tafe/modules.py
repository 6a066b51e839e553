"""Which packages run compiled modules, and why the others do not: what `tafe serve` and `tafe config` say of it."""

from __future__ import annotations

import tafe


def describe(*, profiled: bool) -> str:
    """As `tafe compiled, profiler interpreted (not compiled)`. The profiler is loaded for it if it is `profiled`."""
    reasons = {"tafe": tafe.why_interpreted}
    if profiled:
        from tafe import profiling

        reasons["profiler"] = profiling.why_interpreted
    return ", ".join(f"{name} {f'interpreted ({why})' if why else 'compiled'}" for name, why in reasons.items())
