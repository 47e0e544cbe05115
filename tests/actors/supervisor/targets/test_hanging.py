"""Tests of how often single calls hang, and of what a row of timeouts proves then."""

from __future__ import annotations

from actors.supervisor.targets.hanging import ENOUGH_ANSWERS, HangingCalls, presumed_share


def after(outcomes: str) -> HangingCalls:
    """Return it after answers (.), calls that hung while no others were answered (x), and ones that hung alone (o)."""
    hanging = HangingCalls()
    for outcome in outcomes:
        hanging = hanging.after(answered=outcome == ".", hung_alone=outcome == "o")
    return hanging


def test_timeouts_between_answers_hang_as_those_that_others_overtake():
    assert after(".x.") == after(".o.")
    assert after(".xx.").share > after(".x.").share > 0
    assert after(".xx").share == 0, "it may be the beginning of an outage"
    assert after("x.x.xx.x.").excused() >= 3


def test_the_timeouts_of_an_outage_are_none_of_calls_that_hang():
    tripped = after(".xxxxx").after_trip()
    assert tripped.after(answered=True, hung_alone=False).share == 0


def test_a_provider_that_is_hardly_known_is_presumed_to_be_as_the_others():
    others = [HangingCalls(), HangingCalls(share=0.5, calls=50)]
    assert HangingCalls().is_common(presumed_share(0, others))
    assert not HangingCalls().is_common(presumed_share(ENOUGH_ANSWERS, others))
    assert not HangingCalls().is_common(presumed_share(0, []))
