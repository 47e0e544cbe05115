from hypothesis import given
from hypothesis import strategies as st

from actors.policies.breaker.window import SUB_BUCKETS, FailureWindow

COUNTED = ("calls", "failures", "slow")


def totals(window):
    return list(window.latest())[-1]


calls = st.lists(st.tuples(st.floats(min_value=0, max_value=10), st.booleans(), st.booleans()), max_size=100)


@given(calls)
def test_memory_is_constant_and_the_counts_are_of_the_last_window(steps):
    window, now, seen = FailureWindow(), 1000.0, []
    for passed, failed, slow in steps:
        now += passed
        seen.append((now, failed, slow))
        window = window.record(now, length=30.0, failed=failed, slow=slow)
        inside = [call for call in seen if int(call[0] / 3) > int(now / 3) - SUB_BUCKETS]
        assert len(window.buckets) <= SUB_BUCKETS
        assert totals(window) == (len(inside), sum(c[1] for c in inside), sum(c[2] for c in inside))


def test_a_call_leaves_after_at_most_the_length_and_stays_for_nine_tenths_of_it():
    window = FailureWindow().record(2.9, length=30.0, failed=True)
    assert totals(window.record(29.9, length=30.0)) == (2, 1, 0)
    assert totals(window.record(30.0, length=30.0)) == (1, 0, 0)


def test_a_clock_that_steps_back_loses_no_call():
    window = FailureWindow().record(100.0, length=30.0).record(50.0, length=30.0, failed=True)
    assert totals(window) == (2, 1, 0)


@given(calls)
def test_the_latest_calls_are_counted_from_the_newest_sub_bucket_back(steps):
    window, now = FailureWindow(), 0.0
    for passed, failed, slow in steps:
        now += passed
        window = window.record(now, length=30.0, failed=failed, slow=slow)
    counted = list(window.latest())
    assert len(counted) == len(window.buckets)
    for ends, (calls, failures, slow) in enumerate(counted, 1):
        kept = window.buckets[-ends:]
        assert (calls, failures, slow) == tuple(sum(getattr(one, name) for one in kept) for name in COUNTED)


def test_recording_leaves_the_old_value_alone():
    old = FailureWindow().record(0.0, length=30.0)
    old.record(0.0, length=30.0, failed=True)
    assert totals(old) == (1, 0, 0)
