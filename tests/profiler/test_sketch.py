"""Quantiles of what many files tell: within a stated error, the same however it was divided, in bounded memory."""

from __future__ import annotations

import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.histogram import BUCKETS, Histogram
from profiler.report.sketch import MAX_BUCKETS, Sketch

SECONDS = st.floats(1e-9, 262_144.0)
RELATIVE_ERROR = 1 / 64  # half of a bucket, of which 32 share an octave


def sketch_of(*histograms: Histogram) -> Sketch:
    sketch = Sketch()
    for histogram in histograms:
        sketch.add(histogram)
    return sketch


def histogram_of(values_s: list[float]) -> Histogram:
    histogram = Histogram()
    for value_s in values_s:
        histogram.add(value_s)
    return Histogram.of_packed(histogram.packed())


@given(st.lists(SECONDS, min_size=1, max_size=50), st.sampled_from([0.01, 0.5, 0.9, 0.99, 1.0]))
def test_a_quantile_is_within_its_stated_error_of_the_exact_one(values_s: list[float], share: float) -> None:
    exact_s = sorted(values_s)[math.ceil(share * len(values_s)) - 1]
    assert sketch_of(histogram_of(values_s)).quantile(share) == pytest.approx(exact_s, rel=RELATIVE_ERROR * 1.001)


@given(st.lists(st.lists(st.one_of(SECONDS, st.just(0.0)), max_size=8), min_size=1, max_size=6), st.randoms())
def test_a_merged_sketch_is_that_of_all_values_whatever_the_parts_and_their_order(
    parts: list[list[float]], random: object
) -> None:
    whole = sketch_of(histogram_of([value_s for part in parts for value_s in part]))
    shuffled = parts[:]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one_by_one, of_sketches = Sketch(), Sketch()
    for part in shuffled:
        one_by_one.add(histogram_of(part))
        of_sketches.merge(sketch_of(histogram_of(part)))
    for share in (0.0, 0.25, 0.5, 0.99, 1.0):
        assert one_by_one.quantile(share) == of_sketches.quantile(share) == whole.quantile(share)
    assert one_by_one.count == of_sketches.count == whole.count
    assert one_by_one.total_s == pytest.approx(whole.total_s)


def test_no_sketch_has_more_than_its_buckets_whatever_a_file_tells() -> None:
    sketch = sketch_of(Histogram(dict.fromkeys(range(BUCKETS + 1), 1)))
    assert sketch.buckets == MAX_BUCKETS
    assert sketch.count == BUCKETS + 1, "what is beyond is in the first and the last"
    assert sys.getsizeof(sketch._counts) < 14_000


def test_counts_that_no_clock_can_have_made_do_not_overflow() -> None:
    sketch = Sketch()
    for _ in range(3000):
        sketch.add(Histogram({4000: 2**53}))
    assert sketch.quantile(0.5) > 0.0


def test_an_empty_sketch_has_no_time() -> None:
    assert (Sketch().quantile(0.99), Sketch().count, Sketch().total_s) == (0.0, 0, 0.0)
