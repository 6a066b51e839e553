"""Histograms: how exact they are, and that adding them up loses nothing."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.histogram import BUCKETS, Histogram
from profiler.model import Span
from profiler.tally import RouteTimes, Tally, bucket, middle

# A nanosecond to three days, in seconds.
SECONDS = st.floats(min_value=1e-9, max_value=262143.0)
HISTOGRAMS = st.lists(SECONDS, max_size=20).map(lambda values: histogram_of(values))


def histogram_of(values: list[float]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    return histogram


@given(SECONDS)
def test_the_middle_of_a_bucket_is_within_two_percent_of_what_is_in_it(value: float) -> None:
    assert middle(bucket(value)) == pytest.approx(value, rel=0.02)


@given(st.lists(SECONDS, min_size=1), st.sampled_from([0.0, 0.5, 0.99, 1.0]))
def test_a_quantile_is_within_two_percent_of_the_value_of_that_rank(values: list[float], share: float) -> None:
    rank = max(0, -int(-share * len(values) // 1) - 1)
    assert histogram_of(values).quantile(share) == pytest.approx(sorted(values)[rank], rel=0.02)


@given(st.lists(SECONDS | st.sampled_from([0.0, -1e-17, 1e-12])) | st.lists(st.floats(0.0005, 0.005), min_size=2))
def test_values_counted_in_bulk_are_in_the_buckets_they_would_be_in_one_by_one(values: list[float]) -> None:
    tally = Tally()
    tally.add(values)
    assert Histogram.of(tally).count == len(values)
    # Rounding to 32 bits comes before bits are dropped: a value at a border may be in the next bucket.
    one_by_one = sorted(bucket(value) for value in values)
    in_bulk = sorted(Counter(tally.buckets()).elements())
    assert all(abs(a - b) <= 1 for a, b in zip(one_by_one, in_bulk, strict=True))


@given(st.lists(SECONDS | st.floats(0.001, 0.002), min_size=1), SECONDS | st.sampled_from([-1.0, 0.001, float("inf")]))
def test_a_request_that_takes_longer_than_what_was_asked_is_noticed_among_those_that_do_not(
    total_s: list[float], shorter_s: float
) -> None:
    for waited in (False, True):
        spans = []
        for seconds in total_s:
            span = Span()
            span.total_s, span.queued_s, span._running_s, span._longest_s = (
                seconds,
                seconds / 4,
                seconds / 2,
                seconds / 2,
            )
            span._out_s = 1.0 if waited else 0.0
            spans.append(span)
        times = RouteTimes()
        add = times.add_waited if waited else times.add_at_once
        assert add(spans, shorter_s) == any(seconds > shorter_s for seconds in total_s)
        assert sum(times.total.buckets().values()) == sum(times.queued.buckets().values()) == len(total_s)
        assert times.running_s == pytest.approx(sum(total_s) * (0.5 if waited else 0.75))


@given(HISTOGRAMS, HISTOGRAMS, HISTOGRAMS)
def test_merging_is_the_same_in_any_order(first: Histogram, second: Histogram, third: Histogram) -> None:
    one, other = Histogram(), Histogram()
    one.merge([first, second, third])
    other.merge([third, first])
    other.merge([second])
    assert one.counts == other.counts
    assert one.count == first.count + second.count + third.count


@given(HISTOGRAMS)
def test_a_stored_histogram_is_read_back_as_it_was(histogram: Histogram) -> None:
    assert Histogram.of_packed(histogram.packed()).counts == histogram.counts


@given(HISTOGRAMS)
def test_a_stored_histogram_names_only_the_buckets_after_a_gap(histogram: Histogram) -> None:
    gaps = sum(index - 1 not in histogram.counts for index in histogram.counts if index)
    assert len(histogram.packed()) == len(histogram.counts) + gaps


@pytest.mark.parametrize(
    "stored",
    [
        None, {}, "12", [1, "2"], [1, None], [1.5, 2], [True], [1, [2]], [-BUCKETS, 1], [-BUCKETS + 1, 1, 1],
        [-5000, -5000, 1], [2**60],
    ],
)  # fmt: skip
def test_what_is_no_histogram_is_refused(stored: object) -> None:
    with pytest.raises((ValueError, TypeError), match="a histogram"):
        Histogram.of_packed(stored)


def test_a_bucket_has_the_same_number_compiled_and_interpreted() -> None:
    numbers = {1e-9: 3106, 1e-6: 3425, 0.001: 3744, 0.01: 3848, 1.0: 4064, 60.0: 4252, 86_400.0: 4586}
    assert {value: bucket(value) for value in numbers} == numbers
    tally = Tally()
    tally.add(list(numbers))
    assert tally.buckets() == dict.fromkeys(numbers.values(), 1)


def test_what_takes_longer_than_three_days_is_counted_as_three_days() -> None:
    tally = Tally()
    tally.add([262144.0, 3e5, 1e30, float("inf")])
    assert tally.buckets() == {bucket(262144.0): 4}
    assert bucket(1e30) == bucket(float("inf")) == bucket(262144.0)


def test_what_is_no_number_and_less_than_any_is_nothing_and_more_than_any_is_the_longest() -> None:
    nothing, longest = [float("nan"), -float("nan"), -float("inf"), -1e300, -1.0], [float("inf"), 1e300, 1e39]
    assert {bucket(value) for value in nothing} == {0}
    assert {bucket(value) for value in longest} == {bucket(262144.0)}
    for values in ([*nothing, 1.0, *longest], [*nothing[:3], 1.0, longest[0]]):
        tally = Tally()
        tally.add(values)
        below, above = sum(value in longest for value in values), sum(value == 1.0 for value in values)
        at_least = len(values) - below - above
        assert tally.buckets() == {0: at_least, bucket(1.0): above, bucket(262144.0): below}
        assert tally.coarse([1, bucket(1.0), bucket(2.0)]) == [at_least, 0, above, below]


def test_nothing_and_less_are_zero() -> None:
    assert Histogram().quantile(0.5) == 0.0
    assert histogram_of([0.0, -1.0, 1e-12]).quantile(1.0) == 0.0
