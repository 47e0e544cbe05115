"""Three classes in turn, and tenants in each: shares, delay, newcomers, and items that leave."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.limits.class_queue import PRIORITIES, ClassQueue, Priority, check_priority
from actors.limits.fair_queue import FairQueue
from tests.proofs import repeated

seeds = st.integers(0, 2**32)
CLASSES: tuple[Priority, ...] = tuple(PRIORITIES)


def served(queue: ClassQueue[object]) -> object:
    item = queue.head()
    queue.serve(item)
    return item


@given(seeds, st.floats(1.0, 50.0))
@settings(max_examples=repeated(50))
def test_classes_that_wait_all_the_while_have_their_shares_of_what_is_served(seed, size):
    dice = random.Random(seed)
    queue, given_to, numbers = ClassQueue[object](), Counter[str](), itertools.count()
    sizes = {priority: dice.uniform(1.0, size) for priority in CLASSES}
    costs: dict[object, tuple[Priority, float]] = {}
    for _ in range(2_000):
        for priority in CLASSES:
            while Counter(one for one, _ in costs.values())[priority] < 3:
                item = next(numbers)
                costs[item] = (priority, dice.uniform(0.5, 1.5) * sizes[priority])
                queue.enqueue(item, f"t{dice.randrange(3)}", cost=costs[item][1], priority=priority)
        if dice.random() < 0.2:
            left = dice.choice([*costs])
            if costs[left][0] != queue.head():
                queue.remove(left)
                del costs[left]
                continue
        priority, cost = costs.pop(served(queue))
        given_to[priority] += cost  # type: ignore[assignment]
    for one, other in itertools.combinations(CLASSES, 2):
        lag = abs(given_to[one] / PRIORITIES[one] - given_to[other] / PRIORITIES[other])
        assert lag <= 1.5 * (sizes[one] / PRIORITIES[one] + sizes[other] / PRIORITIES[other]) * 2


@given(seeds)
@settings(max_examples=repeated(100))
def test_a_class_that_comes_anew_is_delayed_by_one_lower_turn_at_most(seed):
    dice = random.Random(seed)
    queue = ClassQueue[object]()
    for number in range(200):
        queue.enqueue(number, cost=dice.uniform(1.0, 100.0), priority="low")
        if number % 2:
            queue.enqueue(-number, cost=dice.uniform(1.0, 100.0), priority="normal")
    for number in range(50):
        for _ in range(dice.randrange(2)):
            served(queue)
        # It has had far more than its share, and comes again at once.
        mine = f"high {number}"
        queue.enqueue(mine, cost=dice.uniform(1.0, 10_000.0), priority="high")
        first = served(queue)
        assert mine in {first, first if first == mine else served(queue)}


def test_no_class_starves_however_often_a_higher_one_comes_anew():
    queue = ClassQueue[object]()
    for number in range(100):
        queue.enqueue(number, priority="low")
    low = 0
    for number in range(180):
        queue.enqueue(f"high {number}", priority="high")
        while not str(served(queue)).startswith("high"):
            low += 1
    assert low == pytest.approx(180 / 8, abs=1.5)


@given(seeds)
@settings(max_examples=repeated(100))
def test_one_class_alone_is_served_as_a_fair_queue(seed):
    dice = random.Random(seed)
    classes, fair, numbers, inside = ClassQueue[int](), FairQueue[int](), itertools.count(), list[int]()
    for _ in range(200):
        match dice.choice(["join", "join", "serve", "leave"]):
            case "serve" if inside:
                turn = fair.dequeue()
                assert classes.peek() == turn
                classes.serve(turn.item)
                inside.remove(turn.item)
            case "leave" if inside:
                left = inside.pop(dice.randrange(len(inside)))
                assert fair.remove(left)
                assert classes.remove(left)
            case _:
                item, tenant, cost = next(numbers), f"t{dice.randrange(3)}", dice.choice([1.0, 2.0, 900.0])
                fair.enqueue(item, tenant, cost=cost)
                classes.enqueue(item, tenant, cost=cost, priority="low")
                inside.append(item)
        assert classes.head() == fair.head()
        assert [*classes.in_order()] == [*fair.in_order()]


@given(seeds)
@settings(max_examples=repeated(100))
def test_the_order_told_is_that_of_service(seed):
    dice = random.Random(seed)
    queue = ClassQueue[int]()
    for number in range(dice.randrange(60)):
        queue.enqueue(number, dice.choice("abc"), cost=dice.choice([1.0, 8.0, 64.0]), priority=dice.choice(CLASSES))
        if queue and dice.random() < 0.3:
            served(queue)
    told = [*queue.in_order()]
    assert told == [served(queue) for _ in range(len(queue))]
    assert not queue


def test_an_item_that_is_served_out_of_turn_is_charged_for_all_the_same():
    queue = ClassQueue[str]()
    for number in range(4):
        queue.enqueue(f"a{number}", "a")
        queue.enqueue(f"b{number}", "b")
    queue.serve("a1")
    queue.serve("a2")
    assert [served(queue) for _ in range(4)] == ["b0", "b1", "a0", "b2"]


def test_a_turn_that_came_to_nothing_is_given_back():
    queue = ClassQueue[str]()
    for number in range(3):
        queue.enqueue(f"low {number}", priority="low")
        queue.enqueue(f"high {number}", priority="high")
    turn = queue.peek()
    assert turn is not None
    queue.serve(turn.item)
    assert queue.head() == "low 0"
    queue.refund(turn.tenant, turn.cost, period=turn.period, priority="high")
    assert queue.head() == "high 1"


def test_what_is_no_class_is_refused():
    for wrong in ("urgent", "", None, 3):
        with pytest.raises(ValueError, match='must be "high", "normal" or "low"'):
            check_priority(wrong)
    queue = ClassQueue[str]({"acme": 2.0})
    with pytest.raises(LookupError):
        queue.serve("x")
    assert not queue.remove("x")
    assert (queue.head(), queue.peek(), repr(queue)) == (None, None, "<ClassQueue empty>")
    queue.enqueue("x", priority="low")
    assert (repr(queue), len(queue), [*queue]) == ("<ClassQueue low 1>", 1, ["x"])
