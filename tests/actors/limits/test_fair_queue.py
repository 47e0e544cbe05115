"""Tenants in turn: shares, lag, newcomers, and items that leave."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.limits.fair_queue import MIN_SWEPT, FairQueue, Turn
from tests.proofs import repeated

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
@settings(max_examples=repeated(200))
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
                queue.enqueue(item, tenant, cost=cost)
                plain.join(item, tenant, cost)
                inside.add(item)
            case "serve" if inside:
                turn = queue.dequeue()
                plain.serve()
                inside.discard(turn.item)
                taken.append(turn)
            case "leave" if inside:
                item = dice.choice(sorted(inside))
                assert queue.remove(item)
                plain.remove(item)
                inside.discard(item)
            case "give_back" if taken:
                turn = taken.pop(dice.randrange(len(taken)))
                queue.refund(turn.tenant, turn.cost, period=turn.period)
                if turn.period == queue.period and turn.tenant in plain.served_to:
                    plain.served_to[turn.tenant] -= turn.cost / weights[turn.tenant]
            case _:
                pass
        expected = plain.first()
        first = queue.peek()
        assert queue.head() == (None if first is None else first.item)
        assert (first and (first.item, first.tenant, first.cost)) == expected
        assert queue.virtual_time == pytest.approx(plain.time)
        assert set(queue) == inside
        assert len(queue) == len(inside)
    in_order = [*queue.in_order()]
    assert in_order == [queue.dequeue().item for _ in range(len(queue))]


@given(seeds, st.floats(0.1, 10.0), st.floats(0.1, 10.0), st.booleans())
@settings(max_examples=repeated(100))
def test_of_two_tenants_that_wait_all_the_while_neither_gets_ahead_by_more_than_one_item_each(
    seed, weight, other, leaving
):
    dice = random.Random(seed)
    weights = {"a": weight, "b": other, "guest": 3.0}
    queue, items, given_to = FairQueue[int](weights), itertools.count(), Counter[str]()
    costs = {"a": 2.0, "b": 7.0}
    for _ in range(dice.randrange(20)):
        queue.enqueue(next(items), "guest", cost=dice.uniform(0.0, 5.0))
    for _ in range(dice.randrange(10)):
        if queue:
            queue.dequeue()
    lines: dict[str, list[int]] = {"a": [], "b": []}
    for _ in range(300):
        for tenant, line in lines.items():
            while len(line) < 5:
                line.append(next(items))
                queue.enqueue(line[-1], tenant, cost=dice.uniform(0.0, costs[tenant]))
        if leaving and dice.random() < 0.5:
            line = lines[dice.choice("ab")]
            # Any item, the first one also: it has cost nothing.
            assert queue.remove(line.pop(dice.randrange(len(line) - 1)))
        if dice.random() < 0.3:
            queue.enqueue(
                next(items), dice.choice(["guest", f"guest{dice.randrange(50)}"]), cost=dice.uniform(0.0, 5.0)
            )
        turn = queue.dequeue()
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
            queue.enqueue((tenant, number), tenant)
    served = Counter(queue.dequeue().tenant for _ in range(rounds * sum(parts)))
    for tenant, part in zip(weights, parts, strict=True):
        assert abs(served[tenant] - rounds * part) <= part + 1


def test_within_a_tenant_and_among_as_many_tenants_as_items_it_is_first_come_first_served():
    one, many = FairQueue[int](), FairQueue[int]()
    for number in range(500):
        one.enqueue(number)
        many.enqueue(number, f"tenant {number}")
    assert [one.dequeue().item for _ in range(500)] == list(range(500))
    assert [many.dequeue().item for _ in range(500)] == list(range(500))


def test_a_tenant_that_asks_now_and_then_does_not_wait_behind_a_bulk_job():
    queue = FairQueue[object]()
    for number in range(10_000):
        queue.enqueue(number, "bulk")
    for asked in range(100):
        for _ in range(7):
            queue.dequeue()
        queue.enqueue(f"question {asked}", "interactive")
        assert "interactive" in {queue.dequeue().tenant for _ in range(2)}


@pytest.mark.parametrize("others", [1, 5, 40])
def test_a_newcomer_is_served_within_two_rounds(others: int):
    queue = FairQueue[object]()
    for number in range(others * 50):
        queue.enqueue(number, f"t{number % others}")
    for turn in range(13 * others):
        if turn % others == others // 2:
            queue.enqueue(("new", turn), f"new {turn}")
            waited = 1
            while queue.dequeue().item != ("new", turn):
                waited += 1
            assert waited <= 2 * (others + 1)
        else:
            queue.dequeue()


def test_endless_newcomers_do_not_starve_a_tenant_that_has_been_served_before():
    queue, served = FairQueue[object](), Counter[str]()
    for number in range(1000):
        queue.enqueue(number, "bulk")
    for number in range(2_000):
        # More come than are served, and each for the first time.
        queue.enqueue((number, 0), f"new {number}")
        queue.enqueue((number, 1), f"new too {number}")
        served[queue.dequeue().tenant] += 1
    # Its part shrinks with the number of tenants that wait; but it is served again and again.
    assert served["bulk"] >= 5


def test_a_turn_taken_in_vain_is_given_back():
    queue = FairQueue[str]()
    for name in ("a1", "b1", "a2", "b2", "a3"):
        queue.enqueue(name, name[0])
    turn = queue.dequeue()
    assert turn.item == "a1"
    queue.refund("a", turn.cost, period=turn.period)
    # Both tenants have been given nothing, and b1 came before a2.
    assert [queue.dequeue().item for _ in range(4)] == ["b1", "a2", "b2", "a3"]


def test_nothing_is_owed_for_a_turn_before_the_queue_was_empty():
    queue = FairQueue[str]()
    queue.enqueue("a1", "a", cost=100.0)
    turn = queue.dequeue()
    for name in ("b1", "a2", "b2", "a3", "b3", "a4"):
        queue.enqueue(name, name[0])
    queue.refund("a", 100.0, period=turn.period)
    assert [queue.dequeue().item for _ in range(6)] == ["b1", "a2", "b2", "a3", "b3", "a4"]


def test_tenants_that_come_and_go_are_forgotten():
    queue = FairQueue[object]()
    queue.enqueue("stays", "patient", cost=1e12)
    queue.enqueue("stays too", "patient")
    for number in range(5_000):
        queue.enqueue(number, f"passing {number}")
        queue.remove(number)
        queue.enqueue((number, "again"), f"passing {number}")
        if number % 2:
            queue.dequeue()
        else:
            queue.remove((number, "again"))
    assert len(queue._tenants) <= 2 * 3 + 2 * MIN_SWEPT
    assert len(queue._heap) <= 2 * 3 + 2 * MIN_SWEPT


def test_what_cannot_be_is_refused():
    queue = FairQueue[str]()
    with pytest.raises(LookupError, match="this queue is empty"):
        queue.dequeue()
    assert queue.peek() is None
    assert queue.head() is None
    queue.enqueue("a")
    with pytest.raises(ValueError, match="already"):
        queue.enqueue("a", "another")
    with pytest.raises(ValueError, match="cost"):
        queue.enqueue("b", cost=-1.0)
    assert not queue.remove("b")
    with pytest.raises(ValueError, match="weight of tenant 'x'"):
        FairQueue({"x": 0.0})
    assert repr(queue) == "<FairQueue default 1>"
    assert "a" in queue


def test_an_item_that_comes_back_has_its_place_among_its_own_tenants_items_and_no_others():
    queue: FairQueue[str] = FairQueue()
    for number, item in enumerate(("a1", "a2", "a3"), start=1):
        queue.enqueue(item, "a", number=number)
    queue.enqueue("b1", "b", number=4)
    assert queue.remove("a2")
    assert queue.dequeue().item == "a1"
    queue.enqueue("a2", "a", number=2)
    assert [queue.dequeue().item for _ in range(3)] == ["b1", "a2", "a3"]
    queue.enqueue("a1", "a", number=1)
    assert queue.dequeue().item == "a1"


@given(st.lists(st.tuples(st.sampled_from(["join", "return", "serve", "leave"]), st.sampled_from("ab")), max_size=60))
def test_the_items_of_a_tenant_are_served_by_their_numbers(steps):
    queue: FairQueue[int] = FairQueue()
    lines: dict[str, list[int]] = {"a": [], "b": []}
    away: list[tuple[int, str]] = []
    for number, (step, tenant) in enumerate(steps):
        if step == "join":
            queue.enqueue(number, tenant, number=number)
            lines[tenant] = sorted([*lines[tenant], number])
        elif step == "return" and away:
            back, owner = away.pop()
            queue.enqueue(back, owner, number=back)
            lines[owner] = sorted([*lines[owner], back])
        elif step == "serve" and len(queue):
            turn = queue.dequeue()
            assert lines[turn.tenant].pop(0) == turn.item
        elif step == "leave" and lines[tenant]:
            left = lines[tenant].pop(len(lines[tenant]) // 2)
            assert queue.remove(left)
            away.append((left, tenant))
        head = queue.head()
        assert head is None or head == min(line[0] for line in lines.values() if head in line)
    assert len(queue) == len(lines["a"]) + len(lines["b"])
