import math
from statistics import median

from hypothesis import given
from hypothesis import strategies as st

from actors.providers.ejection import (
    MAX_RECENT,
    NEW_RECORD,
    EjectionConfig,
    EjectionRecord,
    Ejector,
    after_call,
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


def ejector_of(service, config=CONFIG, *, out=()):
    ejector = Ejector(config)
    for name, record in service.items():
        ejector.update(name, record, is_out=name in out)
    return ejector


def outliers(service, config):
    return ejector_of(service, config).outliers()


def eject(service, *, now, config, isolated=()):
    out = {name for name, one in service.items() if one.until > now} | set(isolated)
    return ejector_of(service, config, out=out).eject(now)


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


@given(services, st.lists(st.tuples(st.sampled_from("abcdef"), records, st.booleans()), max_size=12))
def test_records_that_change_one_by_one_have_the_outliers_that_each_compared_with_all_others_shows(service, changes):
    ejector, now_out = ejector_of(service), set()
    for name, record, is_out in changes:
        service = service | {name: record}
        now_out = now_out | {name} if is_out else now_out - {name}
        ejector.update(name, record, is_out=is_out)
    counted = {name: one for name, one in service.items() if name not in now_out}
    rates = {name: one.success_rate for name, one in counted.items() if one.calls >= CONFIG.min_calls}
    found = [
        (-one.streak, one.success_rate, name)
        for name, one in counted.items()
        if one.streak >= CONFIG.failure_threshold
        or (
            (others := [rate for other, rate in rates.items() if other != name])
            and median(others) - rates[name] > CONFIG.margin
        )
    ]
    assert ejector.outliers() == [name for _, _, name in sorted(found)]
