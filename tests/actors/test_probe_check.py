"""Whether a health check may stand in for a probe: a few times in a row, and not if it misleads."""

from hypothesis import given
from hypothesis import strategies as st

from actors.probe_check import MAX_SPARED, ProbeCheck


def test_a_failed_check_spares_three_probes_in_a_row_and_not_a_fourth():
    check = ProbeCheck()
    for _ in range(3):
        assert check.is_believed
        check = check.after_spared()
    assert not check.is_believed
    assert check.after_probe(check_failed=True, is_answered=False).is_believed


def test_a_check_that_advised_against_a_probe_which_succeeded_is_never_believed_again():
    misleading = ProbeCheck(spared=3).after_probe(check_failed=True, is_answered=True)
    assert not misleading.is_believed
    assert not misleading.after_probe(check_failed=False, is_answered=True).is_believed


@given(st.lists(st.tuples(st.booleans(), st.booleans())))
def test_of_four_times_that_a_probe_is_due_one_is_made_at_least(turns):
    check, spared = ProbeCheck(), 0
    for fails, answers in turns:
        if fails and check.is_believed:
            check, spared = check.after_spared(), spared + 1
        else:
            check, spared = check.after_probe(check_failed=fails, is_answered=answers), 0
        assert spared <= MAX_SPARED
