import math

from hypothesis import given
from hypothesis import strategies as st

from actors.providers.ejection import (
    MAX_RECENT,
    NEW_RECORD,
    EjectionConfig,
    EjectionRecord,
    after_call,
    eject,
    outliers,
)

CONFIG = EjectionConfig(failure_threshold=3, min_calls=10, eject_for=30.0, max_eject_for=100.0)

records = st.builds(
    EjectionRecord,
    streak=st.integers(0, 8),
    calls=st.just(40.0),
    failures=st.integers(0, 40).map(float),
    times=st.integers(0, 5),
    until=st.sampled_from([-math.inf, 5.0, 50.0]),
)
services = st.dictionaries(st.sampled_from("abcdef"), records, max_size=6)


def test_a_success_ends_the_streak_and_old_calls_count_less():
    record = NEW_RECORD
    for failed in (True, True, False, True):
        record = after_call(record, failed=failed)
    assert (record.streak, record.calls, record.failures) == (1, 4, 3)
    for _ in range(10 * MAX_RECENT):
        record = after_call(record, failed=False)
        assert record.calls < MAX_RECENT
    assert record.success_rate > 0.99


def test_two_providers_can_be_told_apart_but_one_alone_is_no_outlier():
    good, bad = EjectionRecord(calls=40, failures=2), EjectionRecord(calls=40, failures=20)
    assert outliers({"a": bad, "b": good}, CONFIG) == ["a"]
    assert outliers({"a": bad}, CONFIG) == []
    assert outliers({"a": bad, "b": bad}, CONFIG) == []
    assert outliers({"a": EjectionRecord(calls=9, failures=9), "b": good}, CONFIG) == []


def test_an_ejection_lasts_as_long_as_there_were_ejections_up_to_a_limit_and_is_forgotten():
    failing = EjectionRecord(streak=3)
    times = []
    for _ in range(5):
        now = failing.until if failing.until > 0 else 0.0
        ejected = eject({"a": failing, "b": NEW_RECORD}, now=now, config=CONFIG)["a"]
        times.append(ejected.until - now)
        failing = EjectionRecord(streak=3, times=ejected.times, until=ejected.until)
    assert times == [30.0, 60.0, 90.0, 100.0, 100.0]
    late = eject({"a": failing, "b": NEW_RECORD}, now=failing.until + 100.0, config=CONFIG)["a"]
    assert (late.times, late.streak, late.calls) == (1, 0, 0)


@given(services, st.sets(st.sampled_from("abcdefg")), st.floats(0, 1))
def test_never_more_than_their_part_are_out_and_never_all(service, isolated, part):
    config = EjectionConfig(failure_threshold=3, min_calls=10, max_ejected=part)
    out = {name for name, one in service.items() if one.until > 10.0} | (isolated & set(service))
    changed = eject(service, now=10.0, isolated=isolated, config=config)
    assert not out & set(changed)
    assert all(one.until > 10.0 for one in changed.values())
    if changed:
        assert len(out) + len(changed) <= part * len(service)
        assert len(out) + len(changed) < len(service)
