"""Six failure drills in virtual time: what breaks, what happens then, and a verdict that is computed from it.

All six, or one:    python examples/failure_drills.py [provider_outage]
Other dice:         understudy simulate examples/failure_drills.py::provider_outage --seed 3
"""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from msgspec.structs import replace

import runtime
from actors import BreakerConfig, Done, GetStatus, Market, SmartRequest, Supervisor, robust_batch
from actors.events import BreakerClosed, BreakerHalfOpened, BreakerOpened, CallEnded, Rerouted
from actors.ledger import CloseAccount, OpenAccount, provider_key
from actors.simulation import Flapping, Outage, SimulatedProvider, ThrottleStorm, paid_more_than_once
from runtime import Actor, ActorFailed, ActorRestarted, ActorSystem, DeadLetter, Event, Supervision
from runtime.simulation import Crash, Simulation, SimulationError

E = TypeVar("E", bound=Event)
SEED = 1


def say(text: str) -> None:
    print(f"{asyncio.get_running_loop().time():7.1f} s  {text}")


def verdict(figures: str, *, holds: bool, struck: bool = True) -> None:
    if not struck:  # An error of another kind: looking for the faults that it takes must not end with none at all.
        raise SimulationError(f"the failure never struck, so nothing was shown: {figures}")
    if not holds:
        raise AssertionError(figures)
    print(f"held: {figures}")


STORY: dict[type[Event], str] = {
    BreakerOpened: "breaker of {0.provider} opened, next probe in {0.wait:.1f} s",
    BreakerHalfOpened: "breaker of {0.provider} half-open, its probe is out",
    BreakerClosed: "breaker of {0.provider} closed",
    ActorFailed: "{0.ref.path} crashed: {0.error}",
    ActorRestarted: "{0.ref.path} restarted",
    DeadLetter: "dead letter ({0.reason.value}): {0.message}",
}


class Narrator:
    """Listens to every event of a system, prints those that make the story, and remembers them all."""

    def __init__(self, system: ActorSystem) -> None:
        self.heard: list[Event] = []
        self.moods: dict[str, str | None] = {}
        system.events.subscribe(Event, self.hear)

    def all(self, kind: type[E]) -> list[E]:
        return [event for event in self.heard if isinstance(event, kind)]

    def hear(self, event: Event) -> None:
        self.heard.append(event)
        if text := STORY.get(type(event)):
            say(text.format(event))
        elif isinstance(event, CallEnded) and event.error != self.moods.get(event.provider):
            self.moods[event.provider] = event.error
            say(f"call to {event.provider}: {event.error or 'answered again'}")


class Street:
    """A market of three providers, of which alder is the best, and the supervisor that serves requests with them."""

    def __init__(self, simulation: Simulation, system: ActorSystem, *, slowness: float, places: int) -> None:
        self.events = Narrator(system)
        latency = (0.05 * slowness, 0.2 * slowness)
        self.providers = [
            SimulatedProvider(simulation, name, services={"echo"}, price=price, latency=latency, reputation=reputation)
            for name, price, reputation in (("alder", "0.001", 90), ("birch", "0.002", 80), ("cedar", "0.003", 70))
        ]
        market = Market(providers=[one.listing(max_concurrency=places) for one in self.providers])
        self.supervisor = system.spawn(lambda: Supervisor(market), name="supervisor")
        self.asked = self.answered = 0

    async def serve(self, count: int, *, rate: float) -> None:
        """Send so many requests, `rate` a second, and count those that are answered rightly."""
        items = [SmartRequest(service="echo", input=number, timeout=60.0) for number in range(count)]
        async with robust_batch(self.supervisor, items, rate_limit=rate, max_concurrency=count) as outcomes:
            async for one in outcomes:
                self.asked += 1
                self.answered += isinstance(one, Done) and one.result.output == one.index

    def failures_of(self, provider: str) -> int:
        return sum(call.provider == provider and call.error is not None for call in self.events.all(CallEnded))

    def conclude(self, figures: str, *, holds: bool, struck: bool) -> None:
        calls, twice = len(self.events.all(CallEnded)) / self.asked, len(paid_more_than_once(self.providers))
        served = f"{self.answered} of {self.asked} answered, {calls:.2f} calls each, {twice} paid twice"
        verdict(f"{served}; {figures}", holds=holds and self.answered == self.asked and not twice, struck=struck)


@asynccontextmanager
async def street(simulation: Simulation, *, slowness: float = 1.0, places: int = 10) -> AsyncGenerator[Street]:
    async with ActorSystem("street", log=False) as system:
        yield Street(simulation, system, slowness=slowness, places=places)


async def provider_outage(simulation: Simulation) -> None:
    """A few requests find an outage out; from then on its health checks tell whether it is over."""
    simulation.inject(Outage(provider="alder", at=simulation.random.uniform(5, 15), lasts=60.0))
    async with street(simulation) as market:
        await market.serve(200, rate=1.0)
    trips, probes, closed = map(market.events.all, (BreakerOpened, BreakerHalfOpened, BreakerClosed))
    failed, rerouted = market.failures_of("alder"), len(market.events.all(Rerouted))
    allowed = BreakerConfig().failure_threshold + len(probes)
    market.conclude(
        f"{failed} calls met the outage, {rerouted} rerouted; opened {len(trips)} times, with {len(probes)} probes",
        struck=failed > 0,
        holds=len(trips) > 0 and len(closed) > 0 and failed <= allowed,
    )


async def throttle_storm(simulation: Simulation) -> None:
    """A provider that says when to come back is not ill: no breaker opens, and few calls find out that it means all."""
    storm = ThrottleStorm(provider="*", at=simulation.random.uniform(5, 15), lasts=30.0, retry_after=8.0)
    simulation.inject(storm)
    async with street(simulation) as market:
        await market.serve(200, rate=4.0)
    refused = [[at for at in provider.called_at if storm.is_active(at)] for provider in market.providers]
    # A refusal takes 50 ms to arrive; calls that were sent meanwhile could not know of it.
    too_early = sum(any(0.06 < later - at < 8.0 for at in calls) for calls in refused for later in calls)
    count, trips = sum(map(len, refused)), len(market.events.all(BreakerOpened))
    market.conclude(
        f"{count} calls refused, {too_early} of them too early, {trips} breakers opened",
        struck=count > 0,
        # A refusal may stray; a few in a row do not.
        holds=too_early <= 4 * len(market.providers) and trips == 0,
    )


async def flapping(simulation: Simulation) -> None:
    """An answer now and then is no recovery: a relapse opens the breaker sooner, and for longer."""
    simulation.inject(Flapping(provider="alder", at=simulation.random.uniform(5, 15), lasts=300.0, up=20.0, down=20.0))
    async with street(simulation) as market:
        await market.serve(500, rate=1.0)
    waits = [event.wait for event in market.events.all(BreakerOpened)]
    failed = market.failures_of("alder")
    market.conclude(
        f"{failed} calls met alder down; waits of {', '.join(f'{wait:.0f}' for wait in waits)} s",
        struck=failed > 0,
        holds=len(waits) > 1 and max(waits) > 2 * waits[0] and failed <= 0.07 * market.asked,
    )


class Ticket(runtime.Request[int], frozen=True):
    number: int
    is_poison: bool = False


class Desk(Actor[Ticket]):
    def started(self) -> None:
        self.context.registry.register(DESKS, self.context.ref)

    @runtime.handles(Ticket)
    async def sell(self, message: Ticket) -> int:
        await asyncio.sleep(0.1)
        if message.is_poison:
            raise ValueError("a ticket that no desk can sell")
        return message.number


class Office(Actor[Any]):
    supervision = Supervision(
        intensity=runtime.RestartIntensity(max_restarts=3, within=9.0), backoff=runtime.IMMEDIATELY
    )

    def started(self) -> None:
        self.context.spawn(Desk, name="desk")


DESKS = runtime.Key[Ticket]("desks")


async def buy(ticket: Ticket, desks: Sequence[runtime.ActorRef[Ticket]]) -> str:
    """Ask the first of these desks, and return what its caller saw."""
    try:
        return "answered" if desks and await desks[0].ask(ticket, timeout=5.0) == ticket.number else "no desk"
    except runtime.RuntimeFault as error:
        say(f"caller {ticket.number} saw {type(error).__name__}")
        return type(error).__name__


async def crash_loop(simulation: Simulation) -> None:
    """A supervisor restarts what crashes, and fails itself if that does not help; callers are told at once."""
    for at, times in ((3.0, 3), (20.0, 5)):  # Three crashes are within the intensity of the office; five are not.
        simulation.inject(Crash(actor="town/office/desk", at=at + simulation.random.random(), times=times, every=0.9))
    async with ActorSystem("town", log=False) as system, asyncio.TaskGroup() as callers:
        events = Narrator(system)
        system.spawn(Office, name="office")
        tasks: list[asyncio.Task[str]] = []
        for number in range(200):
            await asyncio.sleep(0.2)
            # Found anew each time: a ref outlives restarts, but not the escalation.
            tasks.append(callers.create_task(buy(Ticket(number), system.registry.find(DESKS))))
        outcomes = [await task for task in tasks]
    seen, crashes = Counter(outcomes), Counter(event.ref.path for event in events.all(ActorFailed))
    desk, office = crashes["town/office/desk"], crashes["town/office"]
    verdict(
        f"{desk} crashes, {len(events.all(ActorRestarted))} restarts, {office} escalated; callers saw "
        + ", ".join(f"{what}: {count}" for what, count in seen.most_common()),
        struck=desk == 8,
        holds=office == 1 and seen["ActorCrashed"] <= desk and not seen["AskTimeout"] and outcomes[-1] == "answered",
    )


async def poison_message(simulation: Simulation) -> None:
    """A message that crashes its handler gets one more chance elsewhere, then it is dead; the mail goes on."""
    poison = simulation.random.randrange(20)
    supervision = Supervision(reroute=runtime.Reroute(to="spare"), backoff=runtime.IMMEDIATELY)
    async with ActorSystem("town", supervision=supervision, log=False) as system:
        events = Narrator(system)
        desk, _ = system.spawn(Desk, name="desk"), system.spawn(Desk, name="spare")
        tickets = [Ticket(number, is_poison=number == poison) for number in range(20)]
        seen = Counter(await asyncio.gather(*(buy(ticket, [desk]) for ticket in tickets)))
    dead = [letter for letter in events.all(DeadLetter) if letter.reason is runtime.DeadReason.POISON]
    crashed = [event.ref.path for event in events.all(ActorFailed)]
    verdict(
        f"{seen['answered']} of {seen.total()} answered, {seen['ActorCrashed']} caller told of the crash, "
        f"{len(dead)} dead letter; crashed: {', '.join(crashed)}",
        holds=seen == {"answered": 19, "ActorCrashed": 1}
        and crashed == ["town/desk", "town/spare"]
        and [letter.message for letter in dead] == [tickets[poison]],
    )


async def cancellation_storm(simulation: Simulation) -> None:
    """Whatever a cancelled request had taken comes back: its place, its probe, and the money that was not spent."""
    simulation.inject(Outage(provider="alder", lasts=20.0))
    async with street(simulation, slowness=20.0, places=70) as market:
        ask, alder = market.supervisor.ask, market.providers[0]
        account = await ask(OpenAccount(cap="1.00"), timeout=1.0)
        common = SmartRequest(service="echo", input=None, timeout=60.0, account=account)
        requests = [replace(common, idempotency_key=str(number)) for number in range(206)]
        numbers = {provider_key(str(number)): number for number in range(206)}  # Providers are told a digest.
        await asyncio.gather(*(ask(one, timeout=61.0) for one in requests[201:]))  # They open the breaker of alder.
        await asyncio.sleep(60.0 - simulation.now())  # Its wait is over: the next call is its probe.
        tasks = [asyncio.create_task(ask(one, timeout=61.0)) for one in requests[:200]]
        await asyncio.sleep(1.5)  # Its health is checked first, which takes a second.
        (probe,) = (numbers[key] for key in alder.charged)  # The only call that has ever reached it.
        left = [number for number in range(200) if number != probe and not tasks[number].done()]
        others = simulation.random.sample(left, 179)
        say(f"{sum(tasks[number].cancel() for number in (probe, *others))} of 200 cancelled, with the probe, {probe}")
        ends = Counter(type(end).__name__ for end in await asyncio.gather(*tasks, return_exceptions=True))
        await ask(requests[200], timeout=61.0)  # If no request has waited for alder, this is its next probe.
        status = await ask(GetStatus(), timeout=1.0)
        books = await ask(CloseAccount(name=account), timeout=1.0)
    income, taken = sum(one.income for one in market.providers), sum(one.under_way for one in status)
    is_square = income == books.settled + books.held and taken == books.reserved == 0
    verdict(
        f"{ends['SmartResult']} of {ends.total()} answered, {taken} places taken, breaker of alder "
        f"{status[0].breaker}, {books.reserved} reserved; providers charged {income}, "
        f"the account has {books.settled} spent and {books.held} held",
        holds=is_square and status[0].breaker == "closed" and ends == {"SmartResult": 20, "CancelledError": 180},
    )


DRILLS = (provider_outage, throttle_storm, flapping, crash_loop, poison_message, cancellation_storm)


def main(names: list[str]) -> int:
    drills = {drill.__name__: drill for drill in DRILLS}
    if unknown := ", ".join(name for name in names if name not in drills):
        print(f"no such drill: {unknown}; there are {', '.join(drills)}")
        return 2
    broken = 0
    for name in names or drills:
        print(f"\n{name}: {drills[name].__doc__}")
        try:
            Simulation(SEED, logs=False).run(drills[name])
        except (AssertionError, SimulationError) as error:  # The drill's own verdict, or what every run is checked for.
            print(f"BROKEN: {error}")
            broken = 1
    return broken


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
