from hypothesis import given
from hypothesis import strategies as st

from actors.failure_window import SUB_BUCKETS, FailureWindow

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
        assert window.totals() == (len(inside), sum(c[1] for c in inside), sum(c[2] for c in inside))


def test_a_call_leaves_after_at_most_the_length_and_stays_for_nine_tenths_of_it():
    window = FailureWindow().record(2.9, length=30.0, failed=True)
    assert window.record(29.9, length=30.0).totals() == (2, 1, 0)
    assert window.record(30.0, length=30.0).totals() == (1, 0, 0)


def test_a_clock_that_steps_back_loses_no_call():
    window = FailureWindow().record(100.0, length=30.0).record(50.0, length=30.0, failed=True)
    assert window.totals() == (2, 1, 0)


def test_recording_leaves_the_old_value_alone():
    old = FailureWindow().record(0.0, length=30.0)
    old.record(0.0, length=30.0, failed=True)
    assert old.totals() == (1, 0, 0)
