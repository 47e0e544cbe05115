"""Which calls under way were overtaken by later ones."""

from __future__ import annotations

from actors.supervisor.targets.stragglers import Stragglers


def test_a_call_that_a_later_one_has_overtaken_is_a_straggler():
    calls = Stragglers()
    for begun in (1.0, 1.0, 2.0, 3.0):
        calls.begin(begun)
    assert calls.count(0.5) == 0
    calls.end(3.0, is_answered=True)
    assert (calls.count(0.5), calls.count(1.5), calls.count(5.0)) == (3, 2, 0)
    assert (calls.has_overtaken(2.0), calls.has_overtaken(3.0)) == (True, False)
    calls.end(1.0, is_answered=False)
    assert calls.count(0.5) == 2


def test_a_provider_that_answers_in_turn_has_no_stragglers():
    calls = Stragglers()
    for begun in (1.0, 2.0, 3.0):
        calls.begin(begun)
    for begun in (1.0, 2.0):
        calls.end(begun, is_answered=True)
        assert calls.count(0.0) == 0


def test_a_failure_overtakes_nothing():
    calls = Stragglers()
    calls.begin(1.0)
    calls.begin(2.0)
    calls.end(2.0, is_answered=False)
    assert calls.count(0.0) == 0
