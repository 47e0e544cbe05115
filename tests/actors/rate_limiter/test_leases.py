"""A quota that nodes lease: never above its rate, mostly granted without a hop, and safe whatever is lost."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from actors import Acquire, Listing, Market, Provider, RateLimiter, Supervisor, smart_request
from actors.errors import RateLimited
from actors.errors.families import Permanent
from actors.limits.quota import RateLimit
from actors.market import SharedQuota
from actors.rate_limiter import LeasedLimiter, LeaseOwner
from actors.rate_limiter.messages import ReportThrottled, SetLimits, Settle
from actors.transports import FunctionTransport
from runtime import ActorSystem, RuntimeFault
from runtime.cluster import InProcessNetwork, NetworkFaults
from tests.proofs import repeated

if TYPE_CHECKING:
    from runtime import ActorRef
    from runtime.cluster import Cluster
    from runtime.simulation import Simulation

NODES = ("a", "b", "c")


def now() -> float:
    return asyncio.get_running_loop().time()


def most_in_a_second(granted: list[float]) -> int:
    times = sorted(granted)
    return max((sum(begin <= one <= begin + 1.0 - 1e-6 for one in times[place:]) for place, begin in enumerate(times)))


async def keep_calling(limiter: ActorRef[Any], granted: list[float]) -> None:
    while True:
        try:
            await limiter.ask(Acquire(), timeout=30.0)
        except RuntimeFault:
            await asyncio.sleep(0.1)
        else:
            granted.append(now())


async def lessee(cluster: Cluster, owner: str = "quota") -> ActorRef[Any]:
    ref = await cluster.find(owner)
    assert ref is not None
    return cluster.node.system.spawn(lambda: LeasedLimiter(owner, owner=ref))


@pytest.mark.simulate(seeds=repeated(30))
async def test_nodes_that_die_or_are_cut_off_never_exceed_the_quota(simulation: Simulation):
    rng = simulation.random
    rate, burst = rng.choice((20, 60)), rng.choice((1, 20))
    faults = NetworkFaults(delay=(0.0005, 0.003), loss=rng.choice((0.0, 0.05)), repeats=0.05)
    network = InProcessNetwork(faults, notice=0.5, rng=random.Random(rng.random()))
    granted: list[float] = []
    async with AsyncExitStack() as stack:
        clusters = {name: await stack.enter_async_context(network.node(name)) for name in NODES}
        owner = await clusters["a"].spawn(LeaseOwner, "quota", rate=rate, burst=burst, node="a", name="quota")
        del owner
        callers: list[asyncio.Task[None]] = []
        for cluster in clusters.values():
            limiter = await lessee(cluster)
            callers += [asyncio.create_task(keep_calling(limiter, granted)) for _ in range(rng.choice((1, 5, 40)))]
        await asyncio.sleep(rng.uniform(1.0, 4.0))
        network.cut("a", "b")
        await asyncio.sleep(rng.uniform(0.1, 3.0))
        network.heal("a", "b")
        network.kill("c")
        await asyncio.sleep(3.0)
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
    assert most_in_a_second(granted) <= rate + burst


async def test_three_nodes_use_the_whole_quota_and_mostly_without_a_hop():
    network = InProcessNetwork(NetworkFaults(delay=(0.0005, 0.002)))
    granted: list[float] = []
    async with AsyncExitStack() as stack:
        clusters = [await stack.enter_async_context(network.node(name)) for name in NODES]
        owner = await clusters[0].spawn(LeaseOwner, "quota", rate=60, node="a", name="quota")
        limiters = [await lessee(cluster) for cluster in clusters]
        async with asyncio.TaskGroup() as group:
            callers = [group.create_task(keep_calling(one, granted)) for one in limiters for _ in range(30)]
            await asyncio.sleep(12.0)
            for caller in callers:
                caller.cancel()
        actor = owner.recipient.home.actor
        hops = sum(1 for number in actor._settled) + actor._granted - actor._first_number + 1
    settled = [at for at in granted if at >= 2.0]
    assert most_in_a_second(granted) <= 61
    assert len(settled) >= 0.95 * 600
    assert hops <= 0.1 * len(granted)


async def test_an_idle_lessee_keeps_no_timer_and_gives_its_lease_back():
    async with ActorSystem("one") as system:
        owner = system.spawn(lambda: LeaseOwner("quota", rate=100, burst=10))
        limiter = system.spawn(lambda: LeasedLimiter("quota", owner=owner))
        for _ in range(200):
            await limiter.ask(Acquire(), timeout=5.0)
        await asyncio.sleep(10.0)
        actor: Any = limiter.recipient.home.actor
        assert len(actor.context.timers) == 0
        assert repr(actor) == "<LeasedLimiter 'quota' 0/s leased, 0 waiting>"
        assert (owner.recipient.home.actor._table.left(now())) == (100, 10)


async def test_a_lessee_answers_as_a_limiter_does():
    async with ActorSystem("one") as system:
        owner = system.spawn(lambda: LeaseOwner("quota", rate=1, burst=3))
        limiter = system.spawn(lambda: LeasedLimiter("quota", owner=owner))
        with pytest.raises(Permanent):
            await limiter.ask(Acquire(weight=4), timeout=5.0)
        grant = await limiter.ask(Acquire(weight=3, at_once=True), timeout=5.0)
        with pytest.raises(RateLimited):
            await limiter.ask(Acquire(at_once=True), timeout=5.0)
        limiter.tell(Settle(grant=grant, outcome="never_ran"))
        await limiter.ask(Acquire(weight=3, at_once=True), timeout=5.0)
        limiter.tell(SetLimits(limits=(RateLimit(rate=100.0, burst=50),)))
        await asyncio.sleep(1.0)
        await limiter.ask(Acquire(weight=50), timeout=5.0)


async def test_a_wait_that_the_provider_told_one_node_holds_for_all():
    async with ActorSystem("one") as system:
        owner = system.spawn(lambda: LeaseOwner("quota", rate=100, burst=10))
        one, other = (system.spawn(lambda: LeasedLimiter("quota", owner=owner)) for _ in range(2))
        grant = await one.ask(Acquire(), timeout=5.0)
        one.tell(ReportThrottled(retry_after=7.0, grant=grant))
        begin = now()
        await other.ask(Acquire(), timeout=60.0)
        assert now() - begin >= 7.0


async def test_an_owner_that_takes_over_grants_nothing_until_the_leases_before_have_ended():
    async with ActorSystem("one") as system:
        owner = system.spawn(lambda: LeaseOwner("quota", rate=100, burst=10, takes_over=True))
        begin = now()
        await owner.ask(Acquire(), timeout=60.0)
        assert now() - begin >= 2.0


async def test_a_quota_of_tokens_is_granted_call_by_call():
    async with ActorSystem("one") as system:
        owner = system.spawn(lambda: LeaseOwner("q", limits=(RateLimit(dimension="tokens", rate=100.0, burst=500),)))
        limiter = system.spawn(lambda: LeasedLimiter("q", owner=owner))
        await limiter.ask(Acquire(weights={"tokens": 500}), timeout=5.0)
        begin = now()
        await limiter.ask(Acquire(weights={"tokens": 200}), timeout=5.0)
        assert now() - begin == pytest.approx(2.0, abs=0.1)


async def test_a_supervisor_draws_on_a_lessee_as_on_a_limiter():
    calls: list[float] = []

    async def answer(call: Any) -> str:
        calls.append(now())
        return str(call.input)

    listing = Listing(
        provider=Provider(name="alder", services={"s"}),
        transport=lambda: FunctionTransport(answer, paid=False, idempotent="repeatable"),
        quota="org",
    )
    async with ActorSystem("one") as system:
        owner = system.spawn(lambda: LeaseOwner("org", rate=20, burst=2))
        org = system.spawn(lambda: LeasedLimiter("org", owner=owner))
        supervisor = system.spawn(
            lambda: Supervisor(
                Market(providers=[listing], quotas={"org": SharedQuota(rate_limit=20.0)}), quotas={"org": org}
            )
        )
        asking = [smart_request(supervisor, service="s", input=number, timeout=60.0) for number in range(100)]
        await asyncio.gather(*asking)
    assert most_in_a_second(calls) <= 22
    assert calls[-1] <= 6.0


def test_a_lessee_is_a_limiter():
    assert issubclass(LeasedLimiter, RateLimiter)
