"""What a batch does for each item beside its request, counted: calls, checks, tasks and coroutines, not seconds."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from actors import Done, RequestOptions, SmartRequest, SmartResult, robust_batch
from actors.ledger import Account, CloseAccount, OpenAccount
from actors.money import Micros
from runtime import Actor, ActorSystem, handles

if TYPE_CHECKING:
    from collections.abc import Callable

ITEMS = 1_000
MAX_CALLS = 30
"""Python calls for each item, from its source to its outcome, with an ask that is answered at once."""


class Answers(Actor[SmartRequest | OpenAccount | CloseAccount]):
    """Answers at once, in place of a supervisor; keeps what it was asked."""

    def __init__(self, asked: list[SmartRequest]) -> None:
        self.asked = asked

    @handles(SmartRequest)
    def serve(self, message: SmartRequest) -> SmartResult:
        self.asked.append(message)
        return SmartResult(output=message.input, provider="alder", cost=Micros(1), attempts=1, request_id="1")

    @handles(OpenAccount)
    def open_account(self, message: OpenAccount) -> str:
        return message.name or "batch"

    @handles(CloseAccount)
    def close(self, message: CloseAccount) -> Account:
        return Account(name=message.name, cap=None, settled=Micros(0), held=Micros(0))


async def batch(items: int, *, asked: list[SmartRequest], during: Callable[[], Any] = lambda: None) -> int:
    """Return how many of so many items were done, and call `during` once the batch has begun."""
    done = 0
    async with ActorSystem("counted", log=False) as system:
        supervisor: Any = system.spawn(lambda: Answers(asked))
        options = RequestOptions(budget="0.20", tenant="acme", weights={"tokens": 9})
        async with robust_batch(
            supervisor, range(items), service="s", options=options, max_concurrency=100, budget="100"
        ) as outcomes:
            async for outcome in outcomes:
                done += isinstance(outcome, Done)
                if done == 1:
                    during()
    return done


@pytest.mark.parametrize("items", [ITEMS, 4 * ITEMS])
async def test_the_calls_for_each_item_are_few_and_do_not_grow_with_the_batch(items: int):
    calls: Counter[str] = Counter()

    def count(_frame: Any, event: str, _arg: Any) -> None:
        calls[event] += 1

    try:
        assert await batch(items, asked=[], during=lambda: sys.setprofile(count)) == items
    finally:
        sys.setprofile(None)
    assert calls["call"] <= MAX_CALLS * items


async def test_what_is_alike_for_all_items_is_checked_once(monkeypatch: pytest.MonkeyPatch):
    checked = 0
    true_check = SmartRequest.__post_init__

    def counting(self: SmartRequest) -> None:
        nonlocal checked
        checked += 1
        true_check(self)

    monkeypatch.setattr(SmartRequest, "__post_init__", counting)
    asked: list[SmartRequest] = []
    assert await batch(ITEMS, asked=asked) == ITEMS
    assert checked <= 1
    assert sorted(one.input for one in asked) == list(range(ITEMS))
    assert {(one.service, one.budget, one.tenant, one.account, one.weights["tokens"]) for one in asked} == {
        ("s", 200_000, "acme", "batch", 9)
    }


async def test_no_task_is_made_for_an_item(monkeypatch: pytest.MonkeyPatch):
    loop, made = asyncio.get_running_loop(), 0
    true_create = loop.create_task

    def counting(*args: Any, **options: Any) -> Any:
        nonlocal made
        made += 1
        return true_create(*args, **options)

    monkeypatch.setattr(loop, "create_task", counting)
    assert await batch(ITEMS, asked=[]) == ITEMS
    assert made <= 100 + 20
