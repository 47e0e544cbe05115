"""Which share of other items fails at a provider, and when the failures of a bad item are forgotten."""

from __future__ import annotations

import pytest

from actors.supervisor.targets.item_history import LATELY, ItemHistory, acquit, shares_without


def history(*ends: str | None, now: float = 0.0) -> ItemHistory:
    """Make the history of these calls: the item that failed, or None for an answer."""
    made = ItemHistory()
    for failed in ends:
        if failed is None:
            made.add_answer(now)
        else:
            made.add_failure(failed, now)
    return made


def shares(item: str = "x", *, now: float = 0.0, **histories: ItemHistory) -> dict[str, float]:
    return shares_without(item, histories, now=now)


def test_an_item_itself_does_not_count_in_the_share_of_the_others():
    assert shares(a=history(*[None] * 50, "x", "x"))["a"] == 0.01


def test_a_provider_that_is_hardly_known_is_presumed_to_be_as_the_others_are():
    assert shares(a=history(*[None] * 50), b=history()) == {"a": 0.01, "b": 0.01}
    assert shares(a=history(), b=history()) == {"a": 0.5, "b": 0.5}


def test_failures_of_others_in_a_row_show_that_the_provider_itself_may_have_begun_to_fail():
    assert shares(a=history(*[None] * 50, "y", "z"))["a"] == 0.5
    assert shares(a=history(*[None] * 50, "y", "y"))["a"] < 0.1, "one item that fails twice is no row"


def test_what_was_long_ago_does_not_count():
    assert shares(a=history(*["y"] * 50), now=LATELY + 1)["a"] == 0.5


def test_a_suspected_item_does_not_count_until_it_is_answered_after_all():
    a = history(*[None] * 50, "y", "y")
    a.excuse("y")
    assert shares(a=a)["a"] == 0.01
    a.accuse("y")
    assert shares(a=a)["a"] > 0.03


def test_a_bad_item_is_forgotten_at_once_if_others_were_answered_meanwhile():
    a, b = history(*[None] * 50, "y", None), history("y")
    acquit("y", [a, b], [50, 0])
    assert shares(a=a, b=b) == {"a": 0.01, "b": 0.01}


@pytest.mark.parametrize("answers", ["a", "b"])
def test_a_bad_item_is_forgotten_everywhere_with_the_next_answer_anywhere(answers: str):
    both = {"a": history(*[None] * 50, "y"), "b": history("y")}
    acquit("y", list(both.values()), [50, 0])
    assert shares(**both)["b"] > 0.05, "all may have begun to fail"
    assert all(one.has_unconfirmed for one in both.values())
    both[answers].add_answer(0.0)
    assert shares(**both) == {"a": 0.01, "b": 0.01}
    assert not any(one.has_unconfirmed for one in both.values())


def test_one_call_in_ten_has_its_whole_time_while_items_hang():
    a = history()
    assert not any(a.explores() for _ in range(100))
    a.explore()
    assert sum(a.explores() for _ in range(100)) == 10
    for _ in range(200):
        a.add_answer(0.0)
    assert not any(a.explores() for _ in range(100))
