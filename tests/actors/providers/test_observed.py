import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.errors.families import CallFailed
from actors.providers.observed import (
    BLAMED_KINDS,
    UNOBSERVED,
    ObservedConfig,
    after_call,
    availability,
    blend,
    load,
    success_rate,
    usual_latency,
)
from actors.providers.provider import Provider

ALDER = Provider(name="alder", services={"s"}, response_time=1.0, success_rate=1.0)
CONFIG = ObservedConfig(half_life=100.0, peak_half_life=10.0, prior_calls=10.0)

kinds = st.sampled_from([None, None, "Transient", "ConnectionFailed", "Throttled", "Permanent", "Cancelled"])
calls = st.lists(st.tuples(st.floats(0, 50), st.floats(0, 30), kinds), max_size=30)
providers = st.builds(
    Provider,
    name=st.just("alder"),
    services=st.just({"s"}),
    response_time=st.sampled_from([0.0, 0.1, 1.0, 60.0]),
    success_rate=st.floats(0, 1),
)


def after(history, *, config=CONFIG):
    """Return what a history of (seconds since the last, latency, error) shows, and the time of its end."""
    observed, now = UNOBSERVED, 0.0
    for waited, latency, error in history:
        now += waited
        observed = after_call(observed, latency, error, now, config)
    return observed, now


def subclasses(kind):
    return {kind}.union(*map(subclasses, kind.__subclasses__()))


def test_the_kinds_that_are_the_providers_fault_are_those_that_the_errors_say_are():
    ours = {kind for kind in subclasses(CallFailed) if kind.__module__ == "actors.errors.families"}
    assert {kind.__name__ for kind in ours if kind.blames_provider} == BLAMED_KINDS


def test_nothing_observed_is_the_provider_as_declared():
    assert blend(ALDER, UNOBSERVED, 5.0) is ALDER


def test_observations_weigh_as_much_as_their_number_against_that_of_the_prior():
    observed, now = after([(0.0, 3.0, None)] * 10)
    assert usual_latency(ALDER, observed, now, CONFIG) == pytest.approx(2.0)
    observed, now = after([(0.0, 3.0, None)] * 990)
    assert usual_latency(ALDER, observed, now, CONFIG) == pytest.approx(2.98)
    observed, now = after([(0.0, 3.0, "Transient")] * 10)
    assert success_rate(ALDER, observed, now, CONFIG) == pytest.approx(0.5)
    assert blend(ALDER, observed, now, CONFIG).success_rate == pytest.approx(0.5)


def test_what_was_observed_loses_half_its_weight_in_a_half_life_and_at_last_all():
    observed, _ = after([(0.0, 3.0, None)] * 10)
    at_once, later, much_later = (usual_latency(ALDER, observed, now, CONFIG) for now in (0.0, 100.0, 300.0))
    assert at_once == pytest.approx(2.0)
    assert later == pytest.approx((10 * 1.0 + 5 * 3.0) / 15)
    assert much_later == pytest.approx((10 * 1.0 + 1.25 * 3.0) / 11.25)
    assert blend(ALDER, observed, 2000.0, CONFIG) is ALDER


def test_newer_calls_count_more_than_older_ones():
    observed, now = after([(0.0, 1.0, None), (100.0, 4.0, None)])
    assert observed.latency == pytest.approx((0.5 * 1.0 + 1.0 * 4.0) / 1.5)
    assert (observed.calls, now) == (2, 100.0)


def test_a_peak_rises_at_once_and_decays_slowly_to_what_is_usual():
    observed, _ = after([(0.0, 1.0, None)] * 100)
    slow = after_call(observed, 20.0, None, 0.0, CONFIG)
    loads = [load(ALDER, slow, under_way=0, now=now, config=CONFIG) for now in (0.0, 10.0, 20.0, 30.0, 300.0)]
    assert loads[0] == pytest.approx(20.0)
    assert loads[1] == pytest.approx(10.0)
    assert all(one > other for one, other in pairwise(loads))
    assert loads[-1] == pytest.approx(usual_latency(ALDER, slow, 300.0, CONFIG), rel=1e-3)


def test_load_is_in_proportion_to_the_calls_under_way_and_one_more():
    observed, now = after([(0.0, 1.0, None)])
    one = load(ALDER, observed, under_way=0, now=now)
    assert [load(ALDER, observed, under_way=count, now=now) / one for count in (0, 1, 9)] == [1, 2, 10]
    instant = Provider(name="instant", services={"s"}, response_time=0.0)
    assert load(instant, UNOBSERVED, under_way=1, now=0.0) > load(instant, UNOBSERVED, under_way=0, now=0.0) > 0


@given(providers, calls, st.floats(0, 30), st.sampled_from(sorted(BLAMED_KINDS)), st.integers(0, 5))
def test_a_failure_never_makes_a_provider_look_lighter(provider, history, latency, error, under_way):
    observed, now = after(history)
    failed = after_call(observed, latency, error, now, CONFIG)
    before, behind = (load(provider, one, under_way=under_way, now=now, config=CONFIG) for one in (observed, failed))
    assert behind >= before * (1 - 1e-9)
    assert usual_latency(provider, failed, now, CONFIG) >= usual_latency(provider, observed, now, CONFIG) * (1 - 1e-9)


@given(calls, st.floats(0, 30), st.sampled_from(["Throttled", "Cancelled", "Permanent"]))
def test_an_end_that_blames_no_provider_keeps_the_success_rate_and_lowers_no_load(history, latency, error):
    observed, now = after(history)
    neutral = after_call(observed, latency, error, now, CONFIG)
    assert success_rate(ALDER, neutral, now, CONFIG) == pytest.approx(success_rate(ALDER, observed, now, CONFIG))
    before, behind = (load(ALDER, one, under_way=1, now=now, config=CONFIG) for one in (observed, neutral))
    assert behind >= before * (1 - 1e-9)


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9])
def test_a_provider_that_fails_fast_scores_more_than_a_sound_one_at_the_same_rate_of_calls(part):
    # At n calls a second of one second each, the sound one has n under way, the other only the part that succeeds.
    sound, _ = after([(0.0, 1.0, None)] * 200)
    outcomes = [(0.0, 1.0, None) if number % 10 < part * 10 else (0.0, 0.001, "Transient") for number in range(200)]
    failing, now = after(outcomes)
    for rate in (0, 1, 10, 100, 1000):
        heavy = load(ALDER, failing, under_way=int(part * rate), now=now, config=CONFIG)
        assert heavy > load(ALDER, sound, under_way=rate, now=now, config=CONFIG)


def test_failures_in_a_row_double_the_load_and_a_success_ends_that():
    observed, now = after([(0.0, 1.0, None)] * 1000)
    loads = []
    for _ in range(4):
        loads.append(load(ALDER, observed, under_way=0, now=now, config=CONFIG))
        observed = after_call(observed, 0.0, "Transient", now, CONFIG)
    assert [round(later / earlier, 1) for earlier, later in pairwise(loads)] == [2.0, 2.0, 2.0]
    recovered = after_call(observed, 1.0, None, now, CONFIG)
    assert load(ALDER, recovered, under_way=0, now=now, config=CONFIG) == pytest.approx(loads[0], rel=0.01)


def test_a_loaded_provider_is_tried_again_although_it_was_not_called():
    observed, now = after([(0.0, 30.0, "Transient")] * 8)
    assert load(ALDER, observed, under_way=0, now=now, config=CONFIG) > 5_000
    assert load(ALDER, observed, under_way=0, now=now + 1000.0, config=CONFIG) == pytest.approx(1.0, rel=0.01)


def test_a_cancelled_call_shows_that_an_answer_would_have_taken_as_long_at_least():
    observed, now = after([(0.0, 9.0, "Cancelled")])
    assert load(ALDER, observed, under_way=0, now=now, config=CONFIG) == pytest.approx(9.0)
    assert blend(ALDER, observed, now, CONFIG) is ALDER


def test_a_provider_that_no_call_reaches_is_unavailable_until_that_is_forgotten():
    observed, now = after([(0.0, 0.01, "ConnectionFailed")] * 11)
    assert availability(observed, now, CONFIG) == pytest.approx(10 / 21)
    assert blend(ALDER, observed, now, CONFIG).available is False
    assert blend(ALDER, observed, now + 100.0, CONFIG).available is True
    reached, _ = after([(0.0, 0.01, "Transient")] * 100)
    assert blend(ALDER, reached, 0.0, CONFIG).available is True


@given(providers, calls, st.floats(0, 1e6))
def test_a_blended_provider_is_a_valid_one_between_what_is_declared_and_what_was_seen(provider, history, later):
    observed, now = after(history)
    blended = blend(provider, observed, now + later, CONFIG)
    latencies = [provider.response_time, *(latency for _, latency, error in history if error is None)]
    assert min(latencies) * (1 - 1e-9) <= blended.response_time <= max(latencies) * (1 + 1e-9)
    assert 0 <= blended.success_rate <= 1
    assert (blended.name, blended.price, blended.reputation) == (provider.name, provider.price, provider.reputation)


def test_a_clock_that_does_not_move_or_steps_back_breaks_nothing():
    observed = after_call(after_call(UNOBSERVED, 1.0, None, 10.0), 3.0, None, 5.0)
    assert observed.latency == 2.0
    assert load(ALDER, observed, under_way=0, now=0.0) == 3.0


@pytest.mark.parametrize(
    "setting",
    [{"half_life": 0}, {"peak_half_life": math.inf}, {"prior_calls": 0}, {"min_availability": 1.1}],
    ids=str,
)
def test_an_impossible_configuration_is_refused_by_name(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        ObservedConfig(**setting)
