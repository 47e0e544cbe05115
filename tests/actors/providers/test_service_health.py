"""The health of a service's providers: how much is looked at for each renewal, and that all is shown in the end."""

import random

import pytest

from actors.events import BreakerClosed, BreakerOpened, CallEnded, HealthChecked
from actors.money import Micros
from actors.providers import ejection, observed
from actors.providers.health import ProviderWatch
from actors.providers.provider import Provider
from actors.providers.service_health import SLICE, ServiceHealth


def ended(name, error=None, latency=1.0):
    return CallEnded(
        request_id="r", provider=name, service="s", attempt=1, latency=latency, cost=Micros(0), error=error
    )


def health_of(count, watch=None):
    watch = watch or ProviderWatch()
    health = ServiceHealth(watch)
    health.add((Provider(name=f"p{number}", services={"s"}) for number in range(count)), 0.0)
    health.renew(0.0)
    return watch, health


class Looks:
    """Counts the providers that are looked at."""

    def __init__(self, monkeypatch):
        self.count = 0
        why = ProviderWatch.why_unhealthy

        def counting(watch, health, now):
            self.count += 1
            return why(watch, health, now)

        monkeypatch.setattr(ProviderWatch, "why_unhealthy", counting)

    def taken(self):
        count, self.count = self.count, 0
        return count


@pytest.mark.parametrize("count", [3, 30_000])
def test_a_first_call_costs_a_look_at_one_provider_and_those_after_it_none_within_a_second(count, monkeypatch):
    watch, health = health_of(count)
    looks = Looks(monkeypatch)
    watch.call_ended(ended("p0", latency=9.0), 10.0)
    assert health.valid_until <= 10.0
    assert health.renew(10.0)
    assert looks.taken() <= 2
    for number in (1, 2):
        watch.call_ended(ended(f"p{number}", latency=9.0), 10.5)
    assert health.valid_until == 11.0
    assert set(health.observed) == {"p0"}
    assert health.renew(11.0)
    assert set(health.observed) == {"p0", "p1", "p2"}
    assert looks.taken() <= 6


def test_no_renewal_looks_at_more_than_a_slice_and_all_is_shown_in_the_end(monkeypatch):
    watch, health = health_of(4_000)
    for number in range(4_000):
        watch.call_ended(ended(f"p{number}", latency=9.0), 10.0)
        watch.health_checked(HealthChecked(provider=f"p{number}", problem="503"), 10.0)
    looks, renewals, total = Looks(monkeypatch), 0, 0
    while health.valid_until <= 10.0:
        health.renew(10.0)
        count = looks.taken()
        assert count <= SLICE
        renewals, total = renewals + 1, total + count
    assert len(health.observed) == len(health.unhealthy) == 4_000
    assert total <= 2 * 4_000 + SLICE
    assert health.panic
    seen = {one.response_time for one in health.providers}
    for step in range(1 + 4_000 // SLICE):
        assert health.renew(11.0 + step / 4)
        assert looks.taken() <= SLICE
    assert not seen & {one.response_time for one in health.providers}  # Each has faded a little.


def test_health_that_changes_before_the_first_renewal_is_shown_and_all_providers_are():
    watch = ProviderWatch()
    health = ServiceHealth(watch)
    health.add((Provider(name=f"p{number}", services={"s"}) for number in range(3 * SLICE)), 0.0)
    for number in range(3 * SLICE):
        watch.breaker_opened(BreakerOpened(provider=f"p{number}", wait=9.0), 1.0)
    assert health.renew(1.0)
    assert (len(health.providers), len(health.unhealthy)) == (3 * SLICE, SLICE)
    while health.valid_until <= 1.0:
        health.renew(1.0)
    assert len(health.unhealthy) == 3 * SLICE


def test_what_is_shown_is_what_an_assessment_of_all_would_show():
    rng, watch = random.Random(5), ProviderWatch()
    _, health = health_of(40, watch)
    for step in range(600):
        now = 10.0 + step / 4
        name = f"p{rng.randrange(12)}"
        match rng.randrange(12):
            case 0:
                watch.breaker_opened(BreakerOpened(provider=name, wait=rng.random() * 9), now)
            case 1:
                watch.breaker_closed(BreakerClosed(provider=name))
            case 2:
                watch.health_checked(HealthChecked(provider=name, problem=rng.choice([None, "503"])), now)
            case _:
                bad = rng.random() < (0.8 if name in {"p1", "p2", "p3"} else 0.1)
                watch.call_ended(ended(name, rng.choice(["Transient", "ConnectionFailed"]) if bad else None), now)
        if now >= health.valid_until:
            health.renew(now)
        anew = ServiceHealth(watch)
        anew.add(health.declared, now)
        anew.renew(now)
        assert health.unhealthy == {
            name: why
            for name, why in anew.unhealthy.items()
            if why != "unreachable" or name in health.unhealthy  # That is an observation, shown within a second.
        } | {name: why for name, why in health.unhealthy.items() if why == "unreachable" and name not in anew.unhealthy}
    health.renew(now + 1.0)
    for provider, shown in zip(health.declared, health.providers, strict=True):
        seen = watch.health_of(provider.name).observed
        assert shown.response_time == observed.blend(provider, seen, now + 1.0).response_time
    assert {record.times for record in (watch.health_of("p1").record, watch.health_of("p2").record)} - {0}


def test_what_is_known_of_a_provider_is_forgotten_with_the_last_service_that_has_it():
    watch, first = health_of(2)
    _, second = health_of(2, watch)
    watch.call_ended(ended("p0", "Transient"), 1.0)
    assert first.renew(1.0)
    assert second.renew(1.0)
    del first
    assert watch.health_of("p0").record != ejection.NEW_RECORD
    del second
    assert watch.health_of("p0").record == ejection.NEW_RECORD


def test_a_provider_that_one_service_ejected_is_out_for_each():
    watch, first = health_of(4)
    _, second = health_of(4, watch)
    for _ in range(5):
        watch.call_ended(ended("p0", "Transient"), 1.0)
    first.renew(1.0)
    assert first.unhealthy == {"p0": "ejected"}
    assert second.valid_until <= 1.0
    second.renew(1.0)
    assert second.unhealthy == {"p0": "ejected"}
