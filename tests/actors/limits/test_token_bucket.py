import math
from itertools import accumulate

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.limits.token_bucket import Grant, TokenBucket
from tests.proofs import repeated

rates = st.floats(min_value=0.01, max_value=1e4)
bursts = st.integers(min_value=1, max_value=20)


def assert_never_over(used: list[tuple[float, int]], rate: float, burst: int) -> None:
    """Assert that in every span between two of these grants no more than burst + rate * t tokens were used."""
    used = sorted(used)
    sums = [0, *accumulate(weight for _, weight in used)]
    for first, (begin, _) in enumerate(used):
        for last in range(first, len(used)):
            assert sums[last + 1] - sums[first] <= burst + rate * (used[last][0] - begin) + 1e-4


def test_a_full_bucket_grants_its_burst_at_once_and_then_says_how_long_to_wait():
    bucket = TokenBucket(rate=5.0, burst=3)
    for _ in range(3):
        taken = bucket.take(now=7.0)
        assert isinstance(taken, tuple)
        bucket, grant = taken
        assert grant.at == 7.0
    assert bucket.take(now=7.0) == pytest.approx(0.2)
    assert bucket.take(now=7.1, weight=3) == pytest.approx(0.5)


def test_a_thousand_callers_at_five_per_second_take_two_hundred_seconds():
    bucket, grants = TokenBucket(rate=5.0, burst=5), []
    for _ in range(1000):
        bucket, grant = bucket.reserve(now=0.0)
        grants.append(grant.at)
    assert grants == sorted(grants)
    assert grants[-1] == pytest.approx(995 / 5)


@given(
    rates,
    bursts,
    st.lists(st.tuples(st.integers(1, 20), st.floats(min_value=0, max_value=3), st.booleans()), max_size=60),
)
def test_no_span_of_time_sees_more_than_burst_plus_rate_times_its_length(rate, burst, steps):
    bucket, now, used = TokenBucket(rate=rate, burst=burst), 1000.0, []
    for weight, passed, reserving in steps:
        now += passed / rate
        wanted = min(weight, burst)
        taken = bucket.reserve(now, wanted) if reserving else bucket.take(now, wanted)
        if isinstance(taken, tuple):
            bucket, grant = taken
            used.append((grant.at, wanted))
            assert grant.at >= now
    assert_never_over(used, rate, burst)


@given(rates, bursts, st.data())
@settings(max_examples=repeated(300))
def test_refunds_never_let_the_rate_be_exceeded(rate, burst, data):
    bucket, now = TokenBucket(rate=rate, burst=burst), 1000.0
    grants: list[Grant] = []
    used: dict[int, int] = {}
    for _ in range(data.draw(st.integers(0, 40))):
        now += data.draw(st.sampled_from([0.0, 0.1, 0.5, 1.0, 2.5, 30.0])) / rate
        step = data.draw(st.sampled_from(["take", "reserve", "refund"]))
        if step != "refund":
            weight = data.draw(st.integers(1, burst))
            taken = bucket.take(now, weight) if step == "take" else bucket.reserve(now, weight)
            if isinstance(taken, tuple):
                bucket, grant = taken
                grants.append(grant)
                used[grant.serial] = grant.weight
        elif open_grants := [grant for grant in grants if used[grant.serial] == grant.weight]:
            grant = data.draw(st.sampled_from(open_grants))
            unused = data.draw(st.integers(1, grant.weight))
            bucket = bucket.refund(grant, unused)
            used[grant.serial] -= unused
    assert_never_over([(grant.at, used[grant.serial]) for grant in grants], rate, burst)


@given(rates, bursts, st.integers(1, 50), st.floats(min_value=0, max_value=1e6))
def test_the_wait_it_names_is_long_enough_and_no_longer(rate, burst, grants, now):
    bucket = TokenBucket(rate=rate, burst=burst)
    for _ in range(burst + grants):
        bucket, _ = bucket.reserve(now)
    wait = bucket.take(now)
    assert isinstance(wait, float)
    assert wait == pytest.approx((grants + 1) / rate, rel=1e-3, abs=1e-6)
    assert isinstance(bucket.take(now + wait + 1e-9), tuple)


@given(rates, bursts, st.integers(1, 20), st.floats(min_value=0, max_value=1e6))
def test_taking_back_the_latest_grant_leaves_no_trace(rate, burst, weight, now):
    bucket, _ = TokenBucket(rate=rate, burst=burst).reserve(now)
    after, grant = bucket.reserve(now, min(weight, burst))
    undone = after.refund(grant)
    assert undone.reserve(now)[1].at == bucket.reserve(now)[1].at


def test_a_reservation_cancelled_in_the_middle_is_not_given_to_two():
    bucket = TokenBucket(rate=1.0, burst=1)
    bucket, _ = bucket.reserve(now=0.0)
    bucket, cancelled = bucket.reserve(now=0.0)
    bucket, promised = bucket.reserve(now=0.0)
    bucket = bucket.refund(cancelled)
    _, newcomer = bucket.reserve(now=0.0)
    assert (promised.at, newcomer.at) == (2.0, 3.0)


def test_an_estimate_that_was_too_high_gives_the_rest_back_while_the_bucket_is_busy():
    bucket = TokenBucket(rate=100.0, burst=1000)
    bucket, estimate = bucket.reserve(now=0.0, weight=600)
    bucket, _ = bucket.reserve(now=0.0, weight=300)
    bucket = bucket.refund(estimate, 200)
    assert isinstance(bucket.take(now=0.0, weight=300), tuple)
    assert bucket.take(now=0.0, weight=301) == pytest.approx(0.01)


def test_a_bucket_that_is_always_busy_loses_nothing_of_what_comes_back():
    bucket, now, served = TokenBucket(rate=100.0, burst=1000), 0.0, 0
    while now < 600:
        taken = bucket.take(now, 100)
        if isinstance(taken, tuple):
            # Each call turns out to have used 70 of the 100 tokens that it was taken for.
            bucket, grant = taken
            bucket, served = bucket.refund(grant, 30), served + 70
        else:
            now += taken
    assert served == pytest.approx(1000 + 100 * 600, abs=100)


def test_tokens_that_come_back_to_a_bucket_that_was_full_since_are_gone():
    bucket, grant = TokenBucket(rate=1.0, burst=1).reserve(now=0.0)
    bucket, _ = bucket.reserve(now=5.0)
    assert bucket.refund(grant).take(now=5.2) == pytest.approx(0.8)


@pytest.mark.parametrize("burst", [1, 10])
def test_a_million_grants_do_not_drift(burst):
    rate, start = 3.0, 12_345.678
    bucket = TokenBucket(rate=rate, burst=burst)
    grants, grant = repeated(1_000_000), None
    for _ in range(grants):
        bucket, grant = bucket.reserve(start)
    assert grant is not None
    assert abs(grant.at - (start + (grants - burst) / rate)) <= math.ulp(grant.at)


@pytest.mark.parametrize("weight", [0, -1, 4])
def test_a_weight_that_could_never_be_granted_is_refused(weight):
    with pytest.raises(ValueError, match=f"from 1 to the burst of 3 tokens, got {weight}"):
        TokenBucket(rate=1.0, burst=3).take(now=0.0, weight=weight)


@pytest.mark.parametrize("weight", [-1, 3])
def test_a_refund_is_of_no_more_than_was_granted(weight):
    bucket, grant = TokenBucket(rate=1.0, burst=3).reserve(now=0.0, weight=2)
    with pytest.raises(ValueError, match="from 0 to the 2 tokens"):
        bucket.refund(grant, weight)


@pytest.mark.parametrize("setting", [{"rate": 0.0}, {"rate": math.inf}, {"rate": math.nan}, {"burst": 0}], ids=str)
def test_an_impossible_bucket_is_refused_by_name(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        TokenBucket(**{"rate": 1.0, "burst": 1} | setting)


def test_a_bucket_in_use_survives_the_way_over_the_wire():
    bucket, _ = TokenBucket(rate=3.0, burst=2).reserve(now=1.5)
    bucket, _ = bucket.reserve(now=1.5)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(bucket), type=TokenBucket) == bucket
