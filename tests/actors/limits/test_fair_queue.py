"""Tenants in turn: shares, lag, newcomers, and those who leave."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.limits.fair_queue import MIN_SWEPT, FairQueue, Turn

if TYPE_CHECKING:
    from collections.abc import Mapping

seeds = st.integers(0, 2**32)


class Plain:
    """The same rules without heap or sweeping: every tenant is remembered, and all are looked at."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.weights = weights
        self.clear()

    def clear(self) -> None:
        self.lines: dict[str, list[tuple[int, float]]] = {}
        self.served_to: dict[str, float] = {}
        self.time = 0.0

    def join(self, item: int, tenant: str, cost: float) -> None:
        line = self.lines.setdefault(tenant, [])
        if not line:
            self.served_to[tenant] = max(self.served_to.get(tenant, 0.0), self.time)
        line.append((item, cost))

    def first(self) -> tuple[int, str, float] | None:
        waiting = [(self.served_to[name], line[0][0], name, line[0][1]) for name, line in self.lines.items() if line]
        if not waiting:
            return None
        _, item, tenant, cost = min(waiting)
        return item, tenant, cost

    def serve(self) -> None:
        turn = self.first()
        assert turn is not None
        _, tenant, cost = turn
        total = sum(self.weights.get(name, 1.0) for name, line in self.lines.items() if line)
        self.time = max(self.time + cost / total, self.served_to[tenant])
        self.served_to[tenant] += cost / self.weights.get(tenant, 1.0)
        self.remove(self.lines[tenant][0][0])

    def remove(self, item: int) -> None:
        for line in self.lines.values():
            line[:] = [one for one in line if one[0] != item]
        if not any(self.lines.values()):
            self.clear()


@given(seeds, st.integers(1, 6), st.integers(0, 300))
@settings(max_examples=200)
def test_it_does_what_its_rules_say_with_heap_and_sweeping_too(seed, tenants, steps):
    dice = random.Random(seed)
    # Weights and costs that floats hold exactly, so that both sides agree on ties.
    weights = {f"t{number}": dice.choice([0.5, 1.0, 2.0, 4.0]) for number in range(tenants)}
    queue, plain, items = FairQueue[int](weights), Plain(weights), itertools.count()
    inside: set[int] = set()
    taken: list[Turn[int]] = []
    for _ in range(steps):
        match dice.choice(["join", "join", "join", "serve", "leave", "give_back"]):
            case "join":
                item, tenant, cost = next(items), f"t{dice.randrange(tenants)}", dice.choice([0.0, 1.0, 2.0, 8.0])
                queue.join(item, tenant, cost=cost)
                plain.join(item, tenant, cost)
                inside.add(item)
            case "serve" if inside:
                turn = queue.serve()
                plain.serve()
                inside.discard(turn.item)
                taken.append(turn)
            case "leave" if inside:
                item = dice.choice(sorted(inside))
                assert queue.leave(item)
                plain.remove(item)
                inside.discard(item)
            case "give_back" if taken:
                turn = taken.pop(dice.randrange(len(taken)))
                queue.give_back(turn.tenant, turn.cost, period=turn.period)
                if turn.period == queue.period and turn.tenant in plain.served_to:
                    plain.served_to[turn.tenant] -= turn.cost / weights[turn.tenant]
            case _:
                pass
        expected = plain.first()
        first = queue.first()
        assert queue.front() == (None if first is None else first.item)
        assert (first and (first.item, first.tenant, first.cost)) == expected
        assert queue.virtual_time == pytest.approx(plain.time)
        assert set(queue) == inside
        assert len(queue) == len(inside)


@given(seeds, st.floats(0.1, 10.0), st.floats(0.1, 10.0), st.booleans())
@settings(max_examples=100)
def test_of_two_who_wait_all_the_while_neither_gets_ahead_by_more_than_one_item_each(seed, weight, other, leaving):
    dice = random.Random(seed)
    weights = {"a": weight, "b": other, "guest": 3.0}
    queue, items, given_to = FairQueue[int](weights), itertools.count(), Counter[str]()
    costs = {"a": 2.0, "b": 7.0}
    for _ in range(dice.randrange(20)):
        queue.join(next(items), "guest", cost=dice.uniform(0.0, 5.0))
    for _ in range(dice.randrange(10)):
        if queue:
            queue.serve()
    lines: dict[str, list[int]] = {"a": [], "b": []}
    for _ in range(300):
        for tenant, line in lines.items():
            while len(line) < 5:
                line.append(next(items))
                queue.join(line[-1], tenant, cost=dice.uniform(0.0, costs[tenant]))
        if leaving and dice.random() < 0.5:
            line = lines[dice.choice("ab")]
            # Whoever it is, the first in line also: it has cost nothing.
            assert queue.leave(line.pop(dice.randrange(len(line) - 1)))
        if dice.random() < 0.3:
            queue.join(next(items), dice.choice(["guest", f"guest{dice.randrange(50)}"]), cost=dice.uniform(0.0, 5.0))
        turn = queue.serve()
        if turn.tenant in lines:
            assert lines[turn.tenant].pop(0) == turn.item
            given_to[turn.tenant] += turn.cost  # type: ignore[assignment]
            lag = abs(given_to["a"] / weight - given_to["b"] / other)
            assert lag <= costs["a"] / weight + costs["b"] / other + 1e-9


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_each_tenant_gets_its_share_for_as_long_as_it_waits(parts):
    weights = {f"t{number}": float(part) for number, part in enumerate(parts)}
    queue = FairQueue[tuple[str, int]](weights)
    rounds = 20
    for tenant, part in zip(weights, parts, strict=True):
        for number in range((rounds + 2) * part):
            queue.join((tenant, number), tenant)
    served = Counter(queue.serve().tenant for _ in range(rounds * sum(parts)))
    for tenant, part in zip(weights, parts, strict=True):
        assert abs(served[tenant] - rounds * part) <= part + 1


def test_within_a_tenant_and_among_as_many_tenants_as_items_it_is_first_come_first_served():
    one, many = FairQueue[int](), FairQueue[int]()
    for number in range(500):
        one.join(number)
        many.join(number, f"tenant {number}")
    assert [one.serve().item for _ in range(500)] == list(range(500))
    assert [many.serve().item for _ in range(500)] == list(range(500))


def test_one_who_asks_now_and_then_does_not_stand_behind_a_bulk_job():
    queue = FairQueue[object]()
    for number in range(10_000):
        queue.join(number, "bulk")
    for asked in range(100):
        for _ in range(7):
            queue.serve()
        queue.join(f"question {asked}", "interactive")
        assert "interactive" in {queue.serve().tenant for _ in range(2)}


@pytest.mark.parametrize("others", [1, 5, 40])
def test_a_newcomer_is_served_within_two_rounds(others: int):
    queue = FairQueue[object]()
    for number in range(others * 50):
        queue.join(number, f"t{number % others}")
    for turn in range(13 * others):
        if turn % others == others // 2:
            queue.join(("new", turn), f"new {turn}")
            waited = 1
            while queue.serve().item != ("new", turn):
                waited += 1
            assert waited <= 2 * (others + 1)
        else:
            queue.serve()


def test_endless_newcomers_do_not_starve_one_who_has_been_served_before():
    queue, served = FairQueue[object](), Counter[str]()
    for number in range(1000):
        queue.join(number, "bulk")
    for number in range(2_000):
        # More come than are served, and each for the first time.
        queue.join((number, 0), f"new {number}")
        queue.join((number, 1), f"new too {number}")
        served[queue.serve().tenant] += 1
    # Its part shrinks with the number of those who wait; but it is served again and again.
    assert served["bulk"] >= 5


def test_a_turn_taken_in_vain_is_given_back():
    queue = FairQueue[str]()
    for name in ("a1", "b1", "a2", "b2", "a3"):
        queue.join(name, name[0])
    turn = queue.serve()
    assert turn.item == "a1"
    queue.give_back("a", turn.cost, period=turn.period)
    # Both tenants have been given nothing, and b1 came before a2.
    assert [queue.serve().item for _ in range(4)] == ["b1", "a2", "b2", "a3"]


def test_nothing_is_owed_for_a_turn_before_the_queue_was_empty():
    queue = FairQueue[str]()
    queue.join("a1", "a", cost=100.0)
    turn = queue.serve()
    for name in ("b1", "a2", "b2", "a3", "b3", "a4"):
        queue.join(name, name[0])
    queue.give_back("a", 100.0, period=turn.period)
    assert [queue.serve().item for _ in range(6)] == ["b1", "a2", "b2", "a3", "b3", "a4"]


def test_tenants_that_come_and_go_are_forgotten():
    queue = FairQueue[object]()
    queue.join("stays", "patient", cost=1e12)
    queue.join("stays too", "patient")
    for number in range(5_000):
        queue.join(number, f"passing {number}")
        queue.leave(number)
        queue.join((number, "again"), f"passing {number}")
        if number % 2:
            queue.serve()
        else:
            queue.leave((number, "again"))
    assert len(queue._tenants) <= 2 * 3 + 2 * MIN_SWEPT
    assert len(queue._heap) <= 2 * 3 + 2 * MIN_SWEPT


def test_what_cannot_be_is_refused():
    queue = FairQueue[str]()
    with pytest.raises(LookupError, match="nobody waits"):
        queue.serve()
    assert queue.first() is None
    assert queue.front() is None
    queue.join("a")
    with pytest.raises(ValueError, match="already"):
        queue.join("a", "another")
    with pytest.raises(ValueError, match="cost"):
        queue.join("b", cost=-1.0)
    assert not queue.leave("b")
    with pytest.raises(ValueError, match="weight of tenant 'x'"):
        FairQueue({"x": 0.0})
    assert repr(queue) == "<FairQueue default 1>"
    assert "a" in queue


def test_who_returns_stands_in_front_of_its_own_tenants_line_and_of_no_others():
    queue: FairQueue[str] = FairQueue()
    for item in ("a1", "a2", "a3"):
        queue.join(item, "a")
    queue.join("b1", "b")
    assert queue.leave("a2")
    assert queue.serve().item == "a1"
    queue.join("a2", "a", returns=True)
    assert [queue.serve().item for _ in range(3)] == ["b1", "a2", "a3"]
    queue.join("a1", "a", returns=True)
    assert queue.serve().item == "a1"


@given(st.lists(st.tuples(st.sampled_from(["join", "return", "serve", "leave"]), st.sampled_from("ab")), max_size=60))
def test_whoever_returns_is_the_next_of_its_tenant(steps):
    queue: FairQueue[int] = FairQueue()
    lines: dict[str, list[int]] = {"a": [], "b": []}
    for number, (step, tenant) in enumerate(steps):
        if step == "join":
            queue.join(number, tenant)
            lines[tenant].append(number)
        elif step == "return":
            queue.join(number, tenant, returns=True)
            lines[tenant].insert(0, number)
        elif step == "serve" and len(queue):
            turn = queue.serve()
            assert lines[turn.tenant].pop(0) == turn.item
        elif step == "leave" and lines[tenant]:
            assert queue.leave(lines[tenant].pop())
    assert len(queue) == len(lines["a"]) + len(lines["b"])
