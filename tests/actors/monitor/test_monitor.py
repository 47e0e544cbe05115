"""The monitor on real events: a supervisor whose providers fail on plan, in virtual time."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from loguru import logger

from actors import (
    AllProvidersFailed,
    BreakerConfig,
    CallFailed,
    FunctionTransport,
    Isolate,
    Listing,
    Market,
    OutcomeUnknown,
    Permanent,
    Provider,
    ProviderCall,
    ProviderReply,
    Release,
    Retry,
    Supervisor,
    Transient,
    smart_request,
)
from actors.errors import QuotaExhausted
from actors.events import (
    AlertCleared,
    AlertRaised,
    BreakerClosed,
    BreakerOpened,
    CallEnded,
    Hedged,
    Reconciled,
    RequestEnded,
)
from actors.ledger import CloseAccount, GetHeld, OpenAccount, Resolve
from actors.money import Micros, to_micros
from actors.monitor.metrics import AmplificationSeen, Metrics
from actors.monitor.monitor import OBSERVED, GetMetrics, Memory, Monitor, MonitorConfig
from actors.monitor.request_log import line_of
from actors.monitor.rules import DEFAULT_RULES, BudgetRule, CircuitOpenRule, LatencyRule, SuccessRateRule
from runtime import ActorFailed, ActorRestarted, ActorSystem, DeadLetter, Event, Message, handles

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from runtime import ActorRef


class Provided:
    """A provider that fails while `is_down`, and takes `lasts` seconds."""

    def __init__(self, name: str, *, lasts: float = 0.1, price: Any = "0.001") -> None:
        self.name = name
        self.lasts = lasts
        self.price = price
        self.is_down = False
        self.error: Exception = Transient(f"{name} is down", provider=name, outcome="not_started")

    async def __call__(self, call: ProviderCall) -> ProviderReply:
        await asyncio.sleep(self.lasts)
        if self.is_down:
            raise self.error
        return ProviderReply(output=call.input, cost=self.price)

    def listing(self) -> Listing:
        return Listing(
            provider=Provider(name=self.name, services={"s"}, price=self.price),
            transport=lambda: FunctionTransport(self, paid=True, idempotent="no", provider=self.name),
        )


AT_ONCE = MonitorConfig(rules=tuple(msgspec.structs.replace(rule, clear_after=0.0) for rule in DEFAULT_RULES))


class Stage:
    """A system with a supervisor and a monitor, and what was published."""

    def __init__(
        self, system: ActorSystem, *providers: Provided, monitor: Any = lambda: Monitor(AT_ONCE), **policies: Any
    ) -> None:
        market = Market(
            providers=[one.listing() for one in providers], **{"retry": Retry(base=0.0, cap=0.0)} | policies
        )
        self.system = system
        self.events: list[Event] = []
        system.events.subscribe(Event, self.events.append)
        self.monitor: ActorRef[Any] = system.spawn(monitor, name="monitor")
        self.supervisor = system.spawn(lambda: Supervisor(market), name="supervisor")

    def of(self, *kinds: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kinds)]

    @property
    def alerts(self) -> list[tuple[str, str, str]]:
        return [(type(one).__name__[5:], one.rule, one.subject) for one in self.of(AlertRaised, AlertCleared)]

    async def request(self, count: int = 1) -> int:
        """Make requests one after the other, and return how many succeeded."""
        done = 0
        for _ in range(count):
            try:
                await smart_request(self.supervisor, service="s", input="x", timeout=10.0)
                done += 1
            except CallFailed:
                pass
        return done

    async def metrics(self) -> Metrics:
        return await self.monitor.ask(GetMetrics(), timeout=1.0)


@asynccontextmanager
async def staged(*providers: Provided, **options: Any) -> AsyncIterator[Stage]:
    async with ActorSystem("stage", seed=1) as system:
        yield Stage(system, *providers, **options)
    assert len(asyncio.all_tasks()) == 1


@contextmanager
def log_records() -> Iterator[list[Any]]:
    records: list[Any] = []
    sink = logger.add(lambda line: records.append(line.record), level=0)
    try:
        yield records
    finally:
        logger.remove(sink)


STEADY = BreakerConfig(failure_threshold=1_000_000, min_calls=1_000_000)
"""A breaker that stays out of the way."""


# Metrics.


async def test_the_metrics_of_real_requests_are_theirs():
    alder, birch = Provided("alder", price=Micros(10)), Provided("birch", lasts=0.3, price=Micros(20))
    alder.is_down = True
    async with staged(alder, birch, breaker=BreakerConfig(failure_threshold=3)) as stage:
        assert await stage.request(5) == 5
        metrics = await stage.metrics()
        ended, calls = stage.of(RequestEnded), stage.of(CallEnded)
    total = metrics.total
    assert (total.request_count, total.success_count, total.failure_count) == (5, 5, 0)
    assert (total.call_count, total.circuit_breaker_trips) == (len(calls), 1)
    assert total.total_cost == sum(event.cost for event in ended) == 100
    assert total.total_latency == pytest.approx(sum(event.latency for event in ended))
    assert total.amplification == len(calls) / 5
    assert metrics.providers["alder"].errors == {"Transient": 3}
    birch_latency = metrics.providers["birch"].latency
    assert birch_latency is not None
    assert birch_latency.p50 == pytest.approx(0.3, rel=0.02)
    assert metrics.services["s"].success_rate == 1.0
    assert [alert.subject for alert in metrics.alerts] == ["alder"]
    assert metrics.to_json().startswith(b'{"since":0.0')


async def test_metrics_hold_everything_that_was_published_before_they_were_asked_for():
    async with staged(Provided("alder")) as stage:
        assert (await stage.metrics()).total.circuit_breaker_trips == 0
        for _ in range(1_000):
            stage.system.events.publish(BreakerOpened(provider="alder", wait=1.0))
        assert (await stage.metrics()).total.circuit_breaker_trips == 1_000


async def test_events_beyond_the_limit_are_missed_and_the_metrics_say_so():
    def make() -> Monitor:
        return Monitor(MonitorConfig(max_pending=10))

    async with staged(Provided("alder"), monitor=make) as stage:
        await stage.metrics()
        for _ in range(25):
            stage.system.events.publish(BreakerOpened(provider="alder", wait=1.0))
        metrics = await stage.metrics()
        assert (metrics.total.circuit_breaker_trips, metrics.missed_events) == (10, 15)
        stage.system.events.publish(BreakerOpened(provider="alder", wait=1.0))
        assert (await stage.metrics()).total.circuit_breaker_trips == 11


# Alerts.


async def test_a_success_rate_is_alerted_once_and_cleared_once_with_traffic():
    alder = Provided("alder")
    async with staged(alder, breaker=STEADY, retry=Retry(max_retries=0)) as stage:
        assert await stage.request(100) == 100
        alder.is_down = True
        assert await stage.request(100) == 0
        alder.is_down = False
        assert await stage.request(1_000) == 1_000
    assert stage.alerts == [("Raised", "success_rate", "all"), ("Cleared", "success_rate", "all")]
    raised, cleared = stage.of(AlertRaised)[0], stage.of(AlertCleared)[0]
    assert raised.value < raised.threshold == 0.95
    assert cleared.value >= 0.97


async def test_an_alert_is_cleared_although_no_traffic_comes():
    alder = Provided("alder")
    alder.is_down = True
    async with staged(alder, breaker=STEADY, retry=Retry(max_retries=0)) as stage:
        await stage.request(30)
        await asyncio.sleep(40)
        assert stage.alerts == [("Raised", "success_rate", "all")]
        await asyncio.sleep(3600)
        assert stage.alerts == [("Raised", "success_rate", "all"), ("Cleared", "success_rate", "all")]
        (cleared,) = stage.of(AlertCleared)
        assert cleared.value is None
        assert 54 <= cleared.lasted <= 61
        assert (await stage.metrics()).alerts == ()


async def test_latency_is_alerted_for_the_provider_that_is_slow():
    slow, quick = Provided("slow", lasts=6.0), Provided("quick", lasts=0.01)
    rules = (LatencyRule(scope="provider", min_requests=3, window=30.0),)
    async with staged(slow, quick, monitor=lambda: Monitor(MonitorConfig(rules=rules))) as stage:
        for name in ("slow", "quick"):
            await stage.supervisor.ask(Isolate(provider=name), timeout=1.0)
            await stage.request(4)
            assert stage.alerts == ([("Raised", "latency", "slow")] if name == "quick" else [])
            await stage.supervisor.ask(Release(provider=name), timeout=1.0)


async def test_an_open_circuit_is_alerted_at_once_and_cleared_when_its_probe_succeeds():
    alder, birch = Provided("alder", lasts=0.01), Provided("birch", lasts=0.01, price="0.005")
    alder.is_down = True
    breaker = BreakerConfig(failure_threshold=3, open_for=30.0, jitter=0.0)
    async with staged(alder, birch, breaker=breaker) as stage:
        while not stage.of(BreakerOpened):
            await stage.request()
        await asyncio.sleep(0)
        # Less than the interval after it, and while the rest goes on.
        assert stage.alerts == [("Raised", "circuit_open", "alder")]
        assert asyncio.get_running_loop().time() < 1.0
        await asyncio.sleep(30)
        await stage.request()
        assert len(stage.of(BreakerOpened)) == 2, "its probe has failed"
        alder.is_down = False
        await asyncio.sleep(60)
        await stage.request()
        assert len(stage.of(BreakerClosed)) == 1
        await asyncio.sleep(0)
    assert stage.alerts == [("Raised", "circuit_open", "alder"), ("Cleared", "circuit_open", "alder")]


async def test_a_budget_is_alerted_at_four_fifths():
    rules = (*DEFAULT_RULES, BudgetRule(cap="0.01"), BudgetRule(name="hour", cap="0.01", window=3600.0))
    async with staged(Provided("alder", price="0.001"), monitor=lambda: Monitor(MonitorConfig(rules=rules))) as stage:
        await stage.request(7)
        await asyncio.sleep(2)
        assert stage.alerts == []
        await stage.request(1)
        await asyncio.sleep(2)
        assert stage.alerts == [("Raised", "budget", "all"), ("Raised", "hour", "all")]
        assert [event.value for event in stage.of(AlertRaised)] == [0.8, 0.8]
        await asyncio.sleep(2 * 3600)
        assert stage.alerts[2:] == [("Cleared", "hour", "all")]


class Drawn(CallEnded, frozen=True, kw_only=True):
    """A call that says which account it drew on, and how many wire calls it took."""

    account: str | None = None
    wire_calls: int = 1
    detail: str | None = None


def drawn(**fields: Any) -> Drawn:
    defaults = {"request_id": "r", "provider": "alder", "service": "s", "attempt": 1, "latency": 0.1, "cost": 0}
    return Drawn(**defaults | fields)


async def test_the_budget_of_an_account_counts_what_was_drawn_on_it():
    rules = (BudgetRule(cap=Micros(100), account="run"),)
    async with staged(Provided("alder"), monitor=lambda: Monitor(MonitorConfig(rules=rules))) as stage:
        await stage.metrics()
        for account in ("other", None, "run"):
            stage.system.events.publish(drawn(account=account, cost=90 if account == "run" else 900))
        await asyncio.sleep(1)
        assert [(event.subject, event.value) for event in stage.of(AlertRaised)] == [("run", 0.9)]
        assert (await stage.metrics()).accounts["run"].total_cost == 90


async def test_the_callback_hears_what_is_published_and_may_throw():
    heard: list[Event] = []

    def page(alert: AlertRaised | AlertCleared) -> None:
        heard.append(alert)
        raise RuntimeError("the pager is off")

    with log_records() as records:
        async with staged(Provided("alder"), monitor=lambda: Monitor(AT_ONCE, on_alert=page)) as stage:
            await stage.supervisor.ask(Isolate(provider="alder"), timeout=1.0)
            await stage.supervisor.ask(Release(provider="alder"), timeout=1.0)
            metrics = await stage.metrics()
            assert await stage.request() == 1
    assert heard == stage.of(AlertRaised, AlertCleared)
    assert stage.alerts == [("Raised", "circuit_open", "alder"), ("Cleared", "circuit_open", "alder")]
    assert metrics.callback_failures == 2
    assert stage.of(ActorFailed, DeadLetter) == []
    errors = [record for record in records if record["level"].name == "ERROR"]
    assert [str(record["exception"].value) for record in errors] == ["the pager is off"] * 2


def test_an_async_callback_is_refused():
    async def page(alert: object) -> None:
        """Nobody would await it."""

    with pytest.raises(TypeError, match="on_alert must not be async"):
        Monitor(AT_ONCE, on_alert=page)  # type: ignore[arg-type]


async def test_wire_calls_beyond_the_attempts_are_told_once():
    async with staged(Provided("alder")) as stage:
        await stage.metrics()
        for _ in range(3):
            stage.system.events.publish(drawn(wire_calls=3))
        await stage.metrics()
        assert stage.of(AmplificationSeen) == [AmplificationSeen(provider="alder", attempts=1, wire_calls=3)]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"interval": 0.0}, "interval must be > 0 seconds"),
        ({"recent": float("inf")}, "recent must be > 0 seconds"),
        ({"max_subjects": 0}, "max_subjects must be >= 1"),
        ({"max_pending": 0}, "max_pending must be >= 1"),
        ({"rules": (CircuitOpenRule(), CircuitOpenRule())}, "two rules are named 'circuit_open'"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(options: dict[str, Any], problem: str):
    with pytest.raises(ValueError, match=problem):
        MonitorConfig(**options)


# Log lines.


async def test_every_line_of_a_request_that_failed_carries_what_finds_it():
    alder, birch = Provided("alder"), Provided("birch", price="0.002")
    alder.is_down = birch.is_down = True
    with log_records() as records:
        async with staged(
            alder, birch, monitor=lambda: Monitor(log_requests=True), retry=Retry(max_retries=1, base=0.0, cap=0.0)
        ) as stage:
            with pytest.raises(AllProvidersFailed):
                await smart_request(stage.supervisor, service="s", input="x", timeout=10.0, request_id="r7")
            await stage.metrics()
    lines = [record for record in records if record["extra"].get("request_id") == "r7"]
    levels = [record["level"].name for record in lines]
    calls = len(stage.of(CallEnded))
    assert levels.count("WARNING") == calls + 1
    assert levels.count("INFO") == calls - 1
    (ended,) = [line for line in lines if "attempts" in line["extra"]]
    for line in lines:
        assert {"actor", "request_id", "provider", "latency", "cost", "error"} <= set(line["extra"])
        assert line["message"].count("r7") == 1
    failed = lines[0]["extra"]
    assert (failed["provider"], failed["attempt"]) == (stage.of(CallEnded)[0].provider, 1)
    assert failed["latency"] == pytest.approx(0.1)
    assert failed["error"].startswith("Transient")
    assert ended["extra"]["error"].startswith("AllProvidersFailed")


async def test_requests_that_succeed_or_are_given_up_warn_of_nothing():
    with log_records() as records:
        async with staged(Provided("alder"), monitor=lambda: Monitor(log_requests=True)) as stage:
            assert await stage.request() == 1
            given_up = asyncio.ensure_future(stage.request())
            await asyncio.sleep(0.05)
            given_up.cancel()
            await asyncio.wait([given_up])
            metrics = await stage.metrics()
            await asyncio.sleep(31.0)
    assert (metrics.total.cancelled_count, metrics.total.success_count) == (1, 1)
    # The call that was given up may have been paid, and an alert tells of that.
    told = [record for record in records if record["level"].name != "DEBUG"]
    assert [record["extra"].get("rule") for record in told] == ["held"]


def test_a_line_is_one_line_and_its_field_the_whole_error():
    line = line_of(drawn(error="Permanent", detail="bad input:\n  {braces} at line 1"))
    assert line is not None
    assert line.text == "attempt 1 of request r failed at alder after 0.100 s: Permanent: bad input: {braces} at line 1"
    assert line.fields["error"] == "Permanent: bad input:\n  {braces} at line 1"


# How it lives with others.


async def test_a_publisher_gets_on_with_its_work_before_anything_is_counted():
    made: list[Monitor] = []

    def make() -> Monitor:
        made.append(Monitor())
        return made[-1]

    async with staged(Provided("alder"), monitor=make) as stage:
        await stage.metrics()
        for _ in range(500):
            stage.system.events.publish(drawn())
        (monitor,) = made
        assert len(monitor.memory.pending) == 500
        assert monitor.book.total.calls == 0
        # One step of what waits to be counted, and then it is the others' turn again.
        await asyncio.sleep(0)
        assert (len(monitor.memory.pending), monitor.book.total.calls) == (250, 250)
        await asyncio.sleep(0)
        assert (len(monitor.memory.pending), monitor.book.total.calls) == (0, 500)


@pytest.mark.parametrize("ending", ["stop", "kill"])
async def test_a_monitor_that_has_ended_is_subscribed_no_more(ending: str):
    async with staged(Provided("alder")) as stage:
        await stage.metrics()
        assert await stage.request(2) == 2  # By then all others have subscribed.
        subscribed = len(stage.system.events._subscriptions)
        getattr(stage.monitor, ending)()
        await asyncio.sleep(1)
        assert len(stage.system.events._subscriptions) == subscribed - len(OBSERVED)
        assert await stage.request(3) == 3
    assert stage.of(DeadLetter, ActorFailed) == []


async def test_what_is_pending_at_the_end_is_still_logged():
    with log_records() as records:
        async with staged(Provided("alder"), monitor=lambda: Monitor(log_requests=True)) as stage:
            await stage.metrics()
            stage.system.events.publish(drawn(error="Permanent"))
            stage.monitor.stop()
    assert [record["extra"].get("error") for record in records] == ["Permanent"]


async def test_what_an_alert_sets_off_is_counted_in_its_turn():
    def answer(alert: Event) -> None:
        if len(published) < 5:
            published.append(alert)
            stage.system.events.publish(BreakerOpened(provider=f"after-{len(published)}", wait=1.0))

    published: list[Event] = []
    async with staged(Provided("alder")) as stage:
        await stage.metrics()
        stage.system.events.subscribe(AlertRaised, answer)
        stage.system.events.publish(BreakerOpened(provider="alder", wait=1.0))
        await asyncio.sleep(0)
        assert len(published) == 1
        await asyncio.sleep(0.5)
        assert [subject for _, _, subject in stage.alerts] == ["alder", *(f"after-{number}" for number in range(1, 6))]


class Boom(Message, frozen=True):
    """Crashes a monitor."""


class Fragile(Monitor):
    @handles(Boom)
    def crash(self, message: Boom) -> None:
        raise RuntimeError("boom")


@pytest.mark.parametrize("has_memory", [True, False])
async def test_a_restarted_monitor_goes_on_with_its_memory_or_begins_anew(has_memory: bool):  # noqa: FBT001
    memory = Memory() if has_memory else None
    alder, birch = Provided("alder"), Provided("birch")
    async with staged(alder, birch, monitor=lambda: Fragile(AT_ONCE, memory=memory)) as stage:
        await stage.request(3)
        await stage.supervisor.ask(Isolate(provider="alder"), timeout=1.0)
        stage.monitor.tell(Boom())
        await asyncio.sleep(5)
        assert len(stage.of(ActorRestarted)) == 1
        await stage.request(2)
        await stage.supervisor.ask(Release(provider="alder"), timeout=1.0)
        metrics = await stage.metrics()
    assert metrics.total.request_count == (5 if has_memory else 2)
    cleared = [("Cleared", "circuit_open", "alder")] if has_memory else []
    assert stage.alerts == [("Raised", "circuit_open", "alder"), *cleared]


async def test_an_event_that_makes_no_sense_is_logged_and_counted_as_missed():
    with log_records() as records:
        async with staged(Provided("alder")) as stage:
            await stage.metrics()
            stage.system.events.publish(drawn(latency="soon"))
            stage.system.events.publish(drawn(provider="birch"))
            metrics = await stage.metrics()
    assert metrics.missed_events == 1
    assert metrics.providers["birch"].call_count == 1
    assert stage.of(ActorFailed) == []
    assert [(record["message"], record["exception"].type) for record in records] == [
        ("Drawn cannot be counted", TypeError)
    ]


async def test_who_reads_an_alert_does_not_run_under_the_deadline_of_who_caused_it():
    mine: ContextVar[str] = ContextVar("mine", default="nobody's")
    seen: list[str] = []
    async with staged(Provided("alder"), monitor=lambda: Monitor(on_alert=lambda _: seen.append(mine.get()))) as stage:
        await stage.metrics()
        mine.set("the publisher's")
        stage.system.events.publish(BreakerOpened(provider="alder", wait=1.0))
        await asyncio.sleep(0)
    assert seen == ["nobody's"]


async def test_failures_that_are_the_callers_own_count_as_failures_of_the_request():
    alder = Provided("alder")
    alder.is_down, alder.error = True, Permanent("bad input", provider="alder")
    rules = (SuccessRateRule(scope="service", min_requests=1),)
    async with staged(alder, monitor=lambda: Monitor(MonitorConfig(rules=rules))) as stage:
        await stage.request(2)
        await asyncio.sleep(2)
        metrics = await stage.metrics()
    assert metrics.services["s"].errors == {"Permanent": 2}
    assert stage.alerts == [("Raised", "success_rate", "s")]


def test_a_second_call_and_what_is_found_out_later_have_a_line_each():
    hedged = line_of(Hedged(request_id="r1", provider="birch", beside="alder", attempt=2))
    found = line_of(Reconciled(request_id="r1", provider="alder", found="Answered", cost=Micros(8_000), output="late"))
    assert hedged is not None
    assert found is not None
    assert hedged.text == "request r1 is also sent to birch: alder is late"
    assert found.text == "the outcome of request r1 at alder is known now: Answered, $0.008"
    assert (found.fields["request_id"], found.fields["provider"], found.fields["attempt"]) == ("r1", "alder", None)


# At low rates, and what the ledger tells.


@pytest.mark.parametrize("pause", [2.0, 5.0, 30.0, 150.0])
async def test_failures_are_alerted_at_a_low_rate_once_and_cleared_once(pause: float):
    alder = Provided("alder")
    async with staged(alder, breaker=STEADY, retry=Retry(max_retries=0)) as stage:

        async def request(count: int) -> None:
            for _ in range(count):
                await stage.request()
                await asyncio.sleep(pause)

        alder.is_down = True
        await request(4)
        assert stage.alerts == [("Raised", "success_rate", "all")]
        await request(30)
        assert stage.alerts == [("Raised", "success_rate", "all")]
        alder.is_down = False
        await request(2)
        assert stage.alerts == [("Raised", "success_rate", "all")]
        await request(620 // int(min(pause, 20)))
        assert stage.alerts == [("Raised", "success_rate", "all"), ("Cleared", "success_rate", "all")]


async def test_a_few_stray_failures_at_a_low_rate_raise_nothing():
    alder = Provided("alder")
    async with staged(alder, breaker=STEADY, retry=Retry(max_retries=0)) as stage:
        for number in range(300):
            alder.is_down = number % 30 == 4
            await stage.request()
            await asyncio.sleep(5)
    assert [alert for alert in stage.alerts if alert[0] == "Raised"] == []


async def test_a_latency_is_alerted_at_a_low_rate():
    slow = Provided("slow", lasts=7.0)
    async with staged(slow) as stage:
        for _ in range(6):
            await stage.request()
            await asyncio.sleep(20)
    assert stage.alerts == [("Raised", "latency", "all")]


async def test_the_alerts_of_the_ledger_reach_the_callback_without_a_rule():
    alder, told = Provided("alder", price="0.10"), list[Any]()
    async with staged(alder, monitor=lambda: Monitor(on_alert=told.append)) as stage:
        await stage.supervisor.ask(OpenAccount(name="run", cap=to_micros("1")), timeout=1.0)
        for _ in range(8):
            await smart_request(stage.supervisor, service="s", input="x", account="run")
        metrics = await stage.metrics()
        assert [(one.rule, one.subject, one.value) for one in told] == [("cap", "run", 0.8)]
        assert metrics.alerts == tuple(told)
        await stage.supervisor.ask(CloseAccount(name="run"), timeout=1.0)
        assert (await stage.metrics()).alerts == ()
    assert [(type(one).__name__, one.rule, one.subject) for one in told] == [
        ("AlertRaised", "cap", "run"),
        ("AlertCleared", "cap", "run"),
    ]


async def test_money_that_is_held_is_alerted_until_none_is_held_for_the_provider():
    alder, told = Provided("alder", price="0.10"), list[Any]()
    alder.error = OutcomeUnknown("cut off", provider="alder")
    alder.is_down = True
    async with staged(alder, monitor=lambda: Monitor(on_alert=told.append), breaker=STEADY) as stage:
        await stage.request(2)
        await stage.metrics()
        assert told == [], "a look-up may still find out"
        await asyncio.sleep(31.0)
        await stage.metrics()
        assert [(one.rule, one.subject) for one in told] == [("held", "alder")]
        assert "GetHeld" in told[0].cause
        held = await stage.supervisor.ask(GetHeld(), timeout=1.0)
        assert len(held) == 2
        for one in held:
            await stage.metrics()
            assert len(told) == 1
            await stage.supervisor.ask(Resolve(reservation=one.reservation, charged="no"), timeout=1.0)
        assert (await stage.metrics()).alerts == ()
    assert [type(one).__name__ for one in told] == ["AlertRaised", "AlertCleared"]


@pytest.mark.parametrize(
    ("error", "subject"),
    [
        (QuotaExhausted("insufficient_quota", provider="alder"), "alder: the account"),
        (Permanent("banned", provider="alder", scope="provider", concerns="account"), "alder: the account"),
        (Permanent("401", provider="alder", scope="provider", concerns="key"), "alder: the key"),
    ],
)
async def test_a_spent_key_and_a_banned_account_are_alerted_by_default(error: CallFailed, subject: str):
    alder = Provided("alder")
    alder.error, alder.is_down = error, True
    async with staged(alder) as stage:
        await stage.request()
        await stage.metrics()
        assert ("Raised", "left_alone", subject) in stage.alerts


@pytest.mark.parametrize("name", ["cap", "held"])
def test_a_rule_is_not_named_like_an_alert_of_the_ledger(name: str):
    with pytest.raises(ValueError, match="give the rule another name"):
        MonitorConfig(rules=(CircuitOpenRule(name=name),))
