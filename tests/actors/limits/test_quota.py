"""Several limits drawn on together: all or nothing, debts, and what comes back."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.limits.quota import Quota, QuotaGrant, QuotaRefusal, RateLimit, per_minute, quota_of
from tests.proofs import repeated

rates = st.floats(min_value=0.1, max_value=1e3)
bursts = st.integers(min_value=1, max_value=50)
DIMENSIONS = ("requests", "tokens", "cost")
limit_sets = st.lists(
    st.builds(
        lambda name, rate, burst: RateLimit(dimension=name, rate=rate, burst=burst),
        st.sampled_from(DIMENSIONS),
        rates,
        bursts,
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda limit: limit.dimension,
)


def taken(quota: Quota, now: float, **weights: int) -> tuple[Quota, QuotaGrant]:
    result = quota.take(now, weights)
    assert not isinstance(result, QuotaRefusal), result
    return result


def refused(quota: Quota, now: float, **weights: int) -> QuotaRefusal:
    result = quota.take(now, weights)
    assert isinstance(result, QuotaRefusal)
    return result


def assert_never_over(used: list[tuple[float, int]], rate: float, burst: int) -> None:
    used = sorted(used)
    for first, (begin, _) in enumerate(used):
        total = 0
        for end, weight in used[first:]:
            total += weight
            assert total <= burst + rate * (end - begin) + 1e-4


@given(limit_sets, st.data())
@settings(max_examples=repeated(300))
def test_no_dimension_is_ever_over_its_rate_whatever_is_taken_refunded_or_corrected_downwards(limits, data):
    quota, now = quota_of(*limits), 1000.0
    grants: list[QuotaGrant] = []
    used: list[tuple[float, dict[str, int]]] = []
    for _ in range(data.draw(st.integers(0, 30))):
        now += data.draw(st.sampled_from([0.0, 0.0, 0.01, 0.3, 2.0, 60.0]))
        step = data.draw(st.sampled_from(["take", "take", "refund", "correct"]))
        if step == "take":
            weights = {limit.dimension: data.draw(st.integers(0, limit.burst)) for limit in limits}
            result = quota.take(now, weights)
            if not isinstance(result, QuotaRefusal):
                quota, grant = result
                grants.append(grant)
                used.append((now, weights))
        elif grants:
            number = data.draw(st.integers(0, len(grants) - 1))
            grant, (at, weights) = grants[number], used[number]
            if all(weight == grant.weight_of(dimension) for dimension, weight in weights.items()) and any(
                weights.values()
            ):
                actual = {
                    name: 0 if step == "refund" else data.draw(st.integers(0, one)) for name, one in weights.items()
                }
                quota = quota.refund(grant) if step == "refund" else quota.correct(grant, actual, now)
                used[number] = (at, actual)
                grants[number] = QuotaGrant(0.0, (), ())  # Settled once.
    for limit in limits:
        assert_never_over([(at, weights[limit.dimension]) for at, weights in used], limit.rate, limit.burst)


@given(limit_sets, st.data())
def test_all_is_taken_or_nothing_and_the_wait_it_names_is_enough_and_no_more(limits, data):
    quota, now = quota_of(*limits), 10.0
    for _ in range(data.draw(st.integers(1, 20))):
        weights = {limit.dimension: data.draw(st.integers(0, limit.burst)) for limit in limits}
        result = quota.take(now, weights)
        if isinstance(result, QuotaRefusal):
            short = next(limit for limit in limits if limit.dimension == result.dimension)
            assert 0 < result.wait <= 2 * short.burst / short.rate
            assert isinstance(quota.take(now + result.wait * 0.999 - 1e-9, weights), QuotaRefusal)
            now += result.wait + 1e-9
            result = quota.take(now, weights)
        assert not isinstance(result, QuotaRefusal)
        quota, grant = result
        assert {limit.dimension: grant.weight_of(limit.dimension) for limit in limits} == weights


@given(limit_sets, st.data())
def test_a_refund_of_the_latest_grant_leaves_no_trace(limits, data):
    quota, _ = taken(quota_of(*limits), 5.0, **{limit.dimension: 1 for limit in limits})
    weights = {limit.dimension: data.draw(st.integers(0, limit.burst)) for limit in limits}
    probe = {limit.dimension: data.draw(st.integers(0, limit.burst)) for limit in limits}
    result = quota.take(5.0, weights)
    if isinstance(result, QuotaRefusal):
        return
    after, grant = result
    undone, before = after.refund(grant).take(5.0, probe), quota.take(5.0, probe)
    if isinstance(before, QuotaRefusal):
        assert isinstance(undone, QuotaRefusal)
        assert undone.wait == pytest.approx(before.wait)
    else:
        assert not isinstance(undone, QuotaRefusal)


def test_what_is_short_in_one_dimension_takes_nothing_of_the_others():
    quota = quota_of(RateLimit(rate=1.0, burst=5), RateLimit(dimension="tokens", rate=10.0, burst=100))
    quota, _ = taken(quota, 0.0, tokens=100)
    assert refused(quota, 0.0, tokens=50) == QuotaRefusal(5.0, "tokens")
    for _ in range(4):
        quota, _ = taken(quota, 0.0)
    assert refused(quota, 0.0, tokens=100) == QuotaRefusal(10.0, "tokens")


def test_more_than_a_burst_is_refused_for_ever_at_once():
    quota = quota_of(per_minute("tokens", 600, burst=100))
    for now in (0.0, 1e9):
        refusal = refused(quota, now, tokens=101)
        assert refusal.never
        assert refusal == QuotaRefusal(math.inf, "tokens")
    assert not refused(taken(quota, 0.0, tokens=100)[0], 0.0, tokens=1).never


def test_an_estimate_that_was_too_low_becomes_a_debt_that_all_wait_for():
    quota = quota_of(RateLimit(rate=100.0, burst=100), RateLimit(dimension="tokens", rate=10.0, burst=100))
    quota, grant = taken(quota, 0.0, tokens=100)
    quota = quota.correct(grant, {"tokens": 250}, 2.0)
    # 100 at the start, 20 came with time, 250 used: 130 below zero.
    assert refused(quota, 2.0).wait == pytest.approx(13.0)
    assert refused(quota, 2.0, tokens=100).wait == pytest.approx(23.0)
    quota, _ = taken(quota, 15.0 + 1e-9)
    assert refused(quota, 15.0, tokens=1).wait == pytest.approx(0.1)


def test_a_weight_that_was_not_known_is_charged_when_it_is_known():
    quota = quota_of(RateLimit(dimension="cost", rate=1_000.0, burst=5_000))
    quota, grant = taken(quota, 0.0)
    assert grant.weight_of("cost") == 0
    quota = quota.correct(grant, {"cost": 7_000}, 1.0)
    assert refused(quota, 1.0).wait == pytest.approx(2.0)
    quota, _ = taken(quota, 3.0 + 1e-9)


def test_an_estimate_that_was_too_high_gives_back_what_is_over_but_never_above_the_burst():
    quota = quota_of(RateLimit(dimension="tokens", rate=1.0, burst=100))
    quota, grant = taken(quota, 0.0, tokens=80)
    corrected = quota.correct(grant, {"tokens": 30}, 0.0)
    assert not isinstance(corrected.take(0.0, {"tokens": 70}), QuotaRefusal)
    assert refused(corrected, 0.0, tokens=71).wait == pytest.approx(1.0)
    # An hour later it is full, with or without what comes back.
    late, _ = taken(quota.correct(grant, {"tokens": 0}, 3600.0), 3600.0, tokens=100)
    assert refused(late, 3600.0, tokens=1).wait == pytest.approx(1.0)


def test_what_a_correction_does_not_name_stays_as_it_was_taken():
    quota = quota_of(RateLimit(rate=1.0, burst=10), RateLimit(dimension="tokens", rate=1.0, burst=10))
    quota, grant = taken(quota, 0.0, requests=4, tokens=4)
    assert quota.correct(grant, {"cost": 9}, 0.0) == quota
    corrected = quota.correct(grant, {"tokens": 0}, 0.0)
    assert not isinstance(corrected.take(0.0, {"requests": 6, "tokens": 10}), QuotaRefusal)
    assert refused(corrected, 0.0, requests=7).dimension == "requests"


@pytest.mark.parametrize("dimensions", [1, 2])
def test_weights_below_zero_are_a_mistake(dimensions):
    limits = [RateLimit(dimension=name, rate=1.0, burst=5) for name in DIMENSIONS[:dimensions]]
    quota = quota_of(*limits)
    with pytest.raises(ValueError, match="the weight of a call in 'requests' must be >= 0, got -1"):
        quota.take(0.0, {"requests": -1})
    quota, grant = taken(quota, 0.0)
    with pytest.raises(ValueError, match="the weight of a call in 'requests' must be >= 0, got -2"):
        quota.correct(grant, {"requests": -2}, 0.0)


def test_weights_of_dimensions_that_are_not_limited_count_for_nothing():
    quota = quota_of(RateLimit(rate=1.0))
    quota, grant = taken(quota, 0.0, tokens=10**9)
    assert grant.weight_of("tokens") == 0
    assert refused(quota, 0.0) == QuotaRefusal(1.0, "requests")


@given(st.floats(min_value=1, max_value=1e5), st.lists(st.floats(min_value=0, max_value=5), max_size=200))
def test_with_the_headroom_of_the_seed_no_minute_sees_more_than_the_provider_allows(amount, pauses):
    quota, now, times = quota_of(per_minute("requests", amount), headroom=0.8), 0.0, []
    for pause in pauses:
        result = quota.take(now)
        if isinstance(result, QuotaRefusal):
            now += result.wait + 1e-9
        else:
            quota, _ = result
            times.append(now)
            now += pause if pause > 4 else 0.0
    # Below five a minute the smallest burst, of one, is more than a fifth.
    allowed = max(amount, 1 + 0.8 * amount)
    for number, begin in enumerate(times):
        assert sum(1 for time in times[number:] if time < begin + 60) <= allowed + 1e-6


def test_other_limits_leave_alone_what_stays_as_it_was():
    requests = RateLimit(rate=1.0, burst=2)
    quota = quota_of(requests, RateLimit(dimension="tokens", rate=1.0, burst=10))
    quota, grant = taken(quota, 0.0, requests=2, tokens=10)
    changed = quota.with_limits(
        RateLimit(dimension="tokens", rate=5.0, burst=20), requests, RateLimit(dimension="cost", rate=1.0)
    )
    assert changed.dimensions == ("tokens", "requests", "cost")
    assert refused(changed, 0.0).dimension == "requests"
    assert not isinstance(changed.take(2.0, {"tokens": 20, "requests": 2, "cost": 1}), QuotaRefusal)
    # What comes back of the old quota is for the one bucket that is still the same.
    changed, _ = taken(changed, 0.0, requests=0, tokens=20)
    refunded = changed.refund(grant)
    assert refused(refunded, 0.0, tokens=1).dimension == "tokens"
    assert not isinstance(refunded.take(0.0, {"requests": 2}), QuotaRefusal)


def test_the_dominant_share_of_a_call_is_the_seconds_of_its_scarcest_dimension():
    quota = quota_of(RateLimit(rate=2.0), RateLimit(dimension="tokens", rate=100.0, burst=1000))
    assert quota.dominant_share() == 0.5
    assert quota.dominant_share({"tokens": 300}) == 3.0


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (quota_of, "at least one limit"),
        (lambda: quota_of(RateLimit(rate=1.0), RateLimit(rate=2.0)), "give each dimension one limit"),
        (lambda: quota_of(RateLimit(rate=1.0), headroom=0.0), "headroom"),
        (lambda: quota_of(RateLimit(rate=1.0), headroom=1.1), "headroom"),
        (lambda: RateLimit(rate=0.0), "rate of requests"),
        (lambda: RateLimit(rate=math.inf), "rate of requests"),
        (lambda: RateLimit(dimension="tokens", rate=1.0, burst=0), "burst of tokens"),
        (lambda: RateLimit(dimension="", rate=1.0), "dimension"),
        (lambda: per_minute("tokens", 0), "amount of tokens"),
    ],
)
def test_an_impossible_quota_is_refused_by_name(make, problem):
    with pytest.raises(ValueError, match=problem):
        make()


def test_a_minute_is_sixty_seconds_and_a_call_a_minute_is_possible():
    assert per_minute("requests", 1) == RateLimit(rate=1 / 60, burst=1)
    assert per_minute("tokens", 60, burst=60) == RateLimit(dimension="tokens", rate=1.0, burst=60)


def test_a_quota_in_use_survives_the_way_over_the_wire():
    quota, grant = taken(quota_of(RateLimit(rate=3.0, burst=2), per_minute("tokens", 60)), 1.5, tokens=3)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(quota), type=Quota) == quota
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(grant), type=QuotaGrant) == grant
