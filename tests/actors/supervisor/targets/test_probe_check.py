"""Whether a health check may stand in for a probe: a few times in a row, and not if it misleads."""

from hypothesis import given
from hypothesis import strategies as st

from actors.supervisor.targets.probe_check import MAX_CREDIT, ProbeCheck


def test_a_failed_check_spares_four_probes_in_a_row_and_not_a_fifth():
    check = ProbeCheck()
    for _ in range(4):
        assert check.believes()
        check = check.after_spared()
    assert not check.believes()
    assert check.after_probe(check_failed=True, is_answered=False).believes()


def test_a_check_loses_its_credit_by_one_wrong_advice_and_regains_it_by_as_many_right_ones_as_it_may_spare_probes():
    check = ProbeCheck(spared=4).after_probe(check_failed=True, is_answered=True)
    for credit in (0, 1, 2, 3, 4, 4):
        assert (check.credit, check.believes()) == (credit, credit > 0)
        check = check.after_probe(check_failed=True, is_answered=False)


def test_a_check_that_finds_nothing_proves_nothing_about_those_that_fail():
    assert ProbeCheck(credit=1).after_probe(check_failed=False, is_answered=False) == ProbeCheck(credit=1)


@given(st.lists(st.tuples(st.booleans(), st.booleans())))
def test_of_five_times_that_a_probe_is_due_one_is_made_at_least(turns):
    check, spared = ProbeCheck(), 0
    for fails, answers in turns:
        if fails and check.believes():
            check, spared = check.after_spared(), spared + 1
        else:
            check, spared = check.after_probe(check_failed=fails, is_answered=answers), 0
        assert spared <= MAX_CREDIT
