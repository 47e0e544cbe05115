"""A request cancelled at any step leaves nothing behind; in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actors import AllProvidersFailed, Listing, Provider, Retry, Throttled
from actors.errors import BulkheadFull, DeadlineTooShort
from actors.events import RequestEnded
from actors.ledger import OpenAccount
from actors.money import Micros
from actors.policies.breaker.states import Open
from runtime import ActorFailed
from tests.actors.supervisor.stage import Buggy, Script, flaky, healthy_for, offer, staged, steps, unhealthy_for


def paid_call() -> tuple[list[Listing], list[Script]]:
    script = Script("done")
    return [offer("a", script, price=10)], [script]


def reroute_then_retry() -> tuple[list[Listing], list[Script]]:
    a, b = Script(flaky("a"), "done"), Script(flaky("b"))
    return [offer("a", a, price=10), offer("b", b, price=11)], [a, b]


def repeated_under_its_key() -> tuple[list[Listing], list[Script]]:
    script = Script(ConnectionResetError("gone"), ConnectionResetError("gone"), "done")
    return [offer("a", script, price=10, idempotent="key")], [script]


def checked_first() -> tuple[list[Listing], list[Script]]:
    a, b, checks = Script("a"), Script("b"), list[str]()
    return [
        offer("a", a, price=10, check=unhealthy_for("a", checks)),
        offer("b", b, price=11, check=healthy_for("b", checks)),
    ], [a, b]


def crashing() -> tuple[list[Listing], list[Script]]:
    script = Script("b")
    bad = Listing(
        provider=Provider(name="a", services={"s"}, price=0),
        transport=lambda: Buggy(script, paid=False, idempotent="no", provider="a"),
    )
    return [bad, offer("b", script, price=11)], [script]


@pytest.mark.parametrize("scene", [paid_call, reroute_then_retry, repeated_under_its_key, checked_first, crashing])
async def test_a_request_cancelled_at_any_step_leaves_nothing_behind(scene: Any):
    finished = 0
    for k in range(60):
        listings, scripts = scene()
        async with staged(*listings) as stage:
            await stage.ref.ask(OpenAccount(name="acc", cap="0.001"), timeout=1)
            request = asyncio.create_task(stage.request(account="acc", health_check=scene is checked_first))
            await steps(k)
            request.cancel()
            await asyncio.wait([request])
            finished += not request.cancelled()
            await steps(5)
            await stage.assert_at_rest()
            account = await stage.account("acc")
            sent = [call for script in scripts for call in script.calls]
            if not sent:
                assert (account.held, account.settled) == (0, 0), k
            assert account.held + account.settled <= 11
            if request.cancelled():
                # Only a call that was sent and not answered can have cost something that nobody knows.
                assert account.settled in {0, 10, 11}
            else:
                assert account.held == 0
            assert len(stage.of(RequestEnded)) == (1 if k else 0)
        assert len(asyncio.all_tasks()) == 1
    assert 0 < finished < 60  # The sweep covers the whole request, and ends after it.


@pytest.mark.parametrize("what", ["place", "tokens", "money", "gate", "probe", "backoff"])
async def test_one_who_waits_and_is_cancelled_leaves_nothing_behind(what: str):
    script = Script("done", lasts=5.0)
    limits: dict[str, Any] = {"place": {"max_concurrency": 1}, "tokens": {"rate_limit": 0.1}}.get(what, {})
    if what == "gate":
        script.outcomes = [Throttled("slow", provider="a", retry_after=9.0), "done"]
    if what == "backoff":
        script.outcomes = [flaky("a"), "done"]
    retry = Retry(base=3.0, cap=3.0, jitter="none")
    for k in range(25):
        async with staged(offer("a", script, price=10, **limits), retry=retry) as stage:
            cap = Micros(10) if what == "money" else "0.001"
            await stage.ref.ask(OpenAccount(name="acc", cap=cap), timeout=1)
            target = stage.actor.targets.named("a")
            if what == "probe":
                target.state = type(target.state)(breaker=Open(epoch=1, until=0.0))
            first = asyncio.create_task(stage.request(account="acc"))
            await asyncio.sleep(script.lasts / 2 if what not in {"gate", "backoff"} else script.lasts + 0.5)
            waiting = [asyncio.create_task(stage.request(account="acc")) for _ in range(3)]
            await steps(k)
            for task in (*waiting, first):
                task.cancel()
            await asyncio.wait([first, *waiting])
            await steps(5)
            await stage.assert_at_rest()
            assert script.under_way == 0


async def test_a_request_whose_time_ends_at_the_very_moment_its_turn_comes_is_no_crash():
    script = Script("done", lasts=1.0)
    async with staged(offer("a", script, max_concurrency=1)) as stage:
        for offset in (-1e-9, -1e-10, 0.0, 1e-10, 1e-9):
            busy = asyncio.create_task(stage.request())
            await steps(10)
            late = asyncio.create_task(stage.request(timeout=1.0 + offset))
            await asyncio.wait([busy, late])
            assert late.exception() is None or isinstance(
                late.exception(), BulkheadFull | DeadlineTooShort | AllProvidersFailed
            )
        await stage.assert_at_rest()
        assert stage.of(ActorFailed) == []
