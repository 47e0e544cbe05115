"""What a run with the cast must not leave behind is found by itself, and worded clearly."""

from __future__ import annotations

import asyncio
import copy
import re
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from actors import Acquire, Discovery, Market, ProviderGateway, RateLimiter, Supervisor, smart_request
from actors.ledger import OpenAccount, Reserve
from actors.money import Micros
from actors.policies.breaker.states import HalfOpen
from actors.simulation import SimulatedProvider
from actors.supervisor.targets.waiting import QueueEntry, Wait, WaitQueues
from runtime import ActorSystem
from runtime.simulation import InvariantBroken, Simulation

if TYPE_CHECKING:
    from collections.abc import Callable


def spoilt(spoil: Callable[[Supervisor], None]) -> tuple[str, ...]:
    """Serve a request, spoil the state of the supervisor, and return what the simulation finds at the end."""

    async def scenario(simulation: Simulation) -> None:
        market = Market(providers=[SimulatedProvider(simulation, "alder", services={"s"}, price=Micros(5)).listing()])
        supervisors: list[Supervisor] = []

        def make() -> Supervisor:
            supervisors.append(Supervisor(market))
            return supervisors[-1]

        async with ActorSystem("market") as system:
            supervisor = system.spawn(make, name="supervisor")
            await supervisor.ask(OpenAccount(name="account", cap=Micros(100)), timeout=1.0)
            await smart_request(supervisor, service="s", input="x", account="account")
            spoil(supervisors[0])

    try:
        Simulation(1).run(scenario)
    except InvariantBroken as broken:
        return broken.problems
    return ()


def replace_state(supervisor: Supervisor, **fields: Any) -> None:
    target = supervisor.targets.named("alder")
    target.state = msgspec.structs.replace(target.state, **fields)


def lose_request(supervisor: Supervisor) -> None:
    supervisor.begun += 1


def keep_place(supervisor: Supervisor) -> None:
    replace_state(supervisor, under_way=1)


def keep_probe(supervisor: Supervisor) -> None:
    replace_state(supervisor, breaker=HalfOpen(epoch=3, lease_ends=9.0))


def keep_line(supervisor: Supervisor) -> None:
    supervisor.queues._move_to(QueueEntry(), (("provider", "alder"),))


def keep_money(supervisor: Supervisor) -> None:
    ledger: Any = supervisor.payments._client.ledger.ref.recipient
    ledger.actor.book.reserve(Reserve(key="k", provider="alder", amount=Micros(7), accounts=("account",)), at=0.0)


def create_retries(supervisor: Supervisor) -> None:
    retries = copy.copy(supervisor.targets.named("alder").state.retries)
    msgspec.structs.force_setattr(retries, "tokens", retries.max_tokens + 1)
    replace_state(supervisor, retries=retries)


@pytest.mark.parametrize(
    ("spoil", "problems"),
    [
        (lambda _: None, []),
        (lose_request, ["2 requests were begun, and 1 ended: {'done': 1}"]),
        (keep_place, ["1 calls to 'alder' never gave their place back"]),
        (keep_probe, ["the breaker of 'alder' was left half-open, without a probe"]),
        (keep_line, ["1 requests were left in the wait queue for provider 'alder'"]),
        (keep_money, ["reservation N under key 'k' was never booked: $0.000007"]),
        (create_retries, ["'alder' has 101.0 retry tokens, of at most 100.0"]),
    ],
)
def test_what_a_supervisor_leaves_behind_is_found(spoil: Callable[[Supervisor], None], problems: list[str]):
    found = spoilt(spoil)
    assert len(found) == len(problems)
    for line, problem in zip(found, problems, strict=True):
        assert re.sub(
            r"^market/supervisor(/ledger)?: ", "", re.sub(r"reservation \d+", "reservation N", line)
        ).startswith(problem)


def test_what_a_gateway_leaves_behind_is_found():
    async def scenario(simulation: Simulation) -> None:
        gateway = ProviderGateway(SimulatedProvider(simulation, "alder", services={"s"}).listing())
        gateway.under_way = 2
        async with ActorSystem("market") as system:
            system.spawn(lambda: gateway, name="gateway")

    with pytest.raises(InvariantBroken, match="market/gateway: 2 calls to 'alder' never gave their slot back"):
        Simulation(1).run(scenario)


def test_who_is_left_waiting_for_a_quota_is_found():
    async def scenario() -> None:
        limiter = RateLimiter("quota", rate=1.0)
        async with ActorSystem("market") as system:
            system.spawn(lambda: limiter, name="limiter")
        limiter._waiting.enqueue(asyncio.get_running_loop().create_future())

    with pytest.raises(InvariantBroken, match="market/limiter: 1 callers were left waiting for quota 'quota'"):
        Simulation(1).run(scenario)


def test_who_waits_for_a_quota_when_its_limiter_stops_is_not_left():
    async def scenario() -> None:
        async with ActorSystem("market") as system:
            limiter = system.spawn(lambda: RateLimiter("quota", rate=0.01), name="limiter")
            asks = [asyncio.create_task(limiter.ask(Acquire(), timeout=500.0)) for _ in range(4)]
            await asyncio.sleep(1.0)
            limiter.stop()
            outcomes = await asyncio.gather(*asks, return_exceptions=True)
            assert sum(isinstance(outcome, Exception) for outcome in outcomes) == 3

    Simulation(1).run(scenario)


def test_a_look_up_that_never_ends_is_found():
    async def scenario() -> None:
        discovery = Discovery(lambda _: asyncio.sleep(0, []))
        async with ActorSystem("market") as system:
            system.spawn(lambda: discovery, name="discovery")
        discovery._refreshing["s"] = asyncio.create_task(asyncio.sleep(0))

    with pytest.raises(InvariantBroken, match="market/discovery: the look-up of 's' never ended"):
        Simulation(1).run(scenario)


async def test_lines_are_left_in_the_order_in_which_they_were_joined():
    lines, first = WaitQueues(), QueueEntry()
    named = tuple(("provider", name) for name in ("d", "b", "a", "c"))
    standing = asyncio.create_task(lines.wait(first, Wait(named, until=100.0)))
    behind = {line: QueueEntry() for line in named}
    woken: list[str] = []

    async def stand(line: tuple[str, str]) -> None:
        await lines.wait(behind[line], Wait((line,), until=200.0))
        woken.append(line[1])

    await asyncio.sleep(0)
    tasks = [asyncio.create_task(stand(line)) for line in sorted(named)]
    await asyncio.sleep(1.0)
    lines.leave(first)
    await asyncio.gather(*tasks, standing)
    assert woken == ["d", "b", "a", "c"]
    for place in behind.values():
        lines.leave(place)
    assert list(lines.broken_invariants()) == []
