"""Responses of the background: begun once, and fetched whatever becomes of the connection; in virtual time."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from actors import Market, OutcomeUnknown, Supervisor, smart_request
from actors.fake import FakeConfig, FakeModel, FakePrice
from actors.ledger import GetHeld, GetStatement, Ledger
from actors.model_calls import ModelRequest, preset_named
from actors.models import compatible
from actors.tariffs import Tariff
from actors.transports.background import until_ended
from actors.transports.model_transport import ModelTransport
from actors.transports.reconciliation import Answered, Lost, UnderWay
from actors.transports.transport import ProviderCall
from runtime import ActorSystem
from tests.fake_wire import FakeWire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from runtime import ActorRef

PRICE = {"input": "1", "output": "4"}
BODY = {"input": "Think about it", "background": True, "max_output_tokens": 40}
ASKED = ModelRequest(form="responses", body=BODY)


def config(latency: float = 20.0) -> FakeConfig:
    model = FakeModel(name="m", price=FakePrice(**PRICE), latency=latency, output_tokens=20.0)
    return FakeConfig(models=(model,), dialect="openai")


def listed(wire: FakeWire, **terms: Any) -> Any:
    reached = {"base_url": "http://fake/v1", "api_key": "k", "wire": wire}
    return compatible("m", preset="openai", tariff=Tariff(**PRICE), **reached, **terms)


@asynccontextmanager
async def desk(*listings: Any, journal: Path | None = None) -> AsyncIterator[ActorRef[Any]]:
    async with ActorSystem("desk", seed=1) as system:
        ledger = None if journal is None else system.spawn(lambda: Ledger(journal=journal), name="money")
        yield system.spawn(lambda: Supervisor(Market(providers=listings), ledger=ledger))


async def ask(supervisor: ActorRef[Any], **terms: Any) -> Any:
    terms = {"service": "m", "input": ASKED, "idempotency_key": "order 17", "timeout": 300.0} | terms
    return await smart_request(supervisor, **terms)


def charged(wire: FakeWire) -> int:
    """Return what the fake has charged, in micro-units, rounded up once for each call."""
    return sum(-int(-one.charged * 1_000_000 // 1) for one in wire.provider.books.lines)


async def figures(supervisor: ActorRef[Any]) -> tuple[int, int, int]:
    statement = await supervisor.ask(GetStatement(), timeout=1.0)
    return int(statement.settled), int(statement.held), int(statement.reserved)


async def test_a_response_is_begun_once_and_fetched_once_it_has_ended():
    wire = FakeWire(config())
    async with desk(listed(wire)) as supervisor:
        result = await ask(supervisor)
        assert (result.output["status"], result.attempts) == ("completed", 1)
        assert 20.0 <= result.latency < 26.0
        assert await figures(supervisor) == (charged(wire), 0, 0)
    assert [one.form for one in wire.provider.books.lines] == ["responses"]


async def test_one_that_takes_longer_than_its_attempt_is_waited_for():
    wire = FakeWire(config())
    async with desk(listed(wire, timeout=5.0)) as supervisor:
        result = await ask(supervisor)
        assert result.output["status"] == "completed"
        assert await figures(supervisor) == (charged(wire), 0, 0)
    assert len(wire.provider.books.lines) == 1


async def test_one_that_was_cancelled_goes_on_and_the_next_ask_has_its_answer():
    wire = FakeWire(config())
    async with desk(listed(wire)) as supervisor:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3.0):
                await ask(supervisor)
        await asyncio.sleep(0.01)
        assert len(await supervisor.ask(GetHeld(), timeout=1.0)) == 1
        result = await ask(supervisor)
        assert result.output["status"] == "completed"
        assert await figures(supervisor) == (charged(wire), 0, 0)
    assert len(wire.provider.books.lines) == 1


async def live_until_it_is_under_way(wire: FakeWire, journal: Path) -> None:
    """Ask, and end before the answer is there."""
    async with desk(listed(wire), journal=journal) as supervisor:
        asking = asyncio.ensure_future(ask(supervisor))
        await asyncio.sleep(2.0)
    await asyncio.gather(asking, return_exceptions=True)


async def test_one_of_an_earlier_life_is_fetched_by_the_next(tmp_path: Path):
    wire, journal = FakeWire(config()), tmp_path / "money.journal"
    await live_until_it_is_under_way(wire, journal)
    async with desk(listed(wire), journal=journal) as supervisor:
        result = await ask(supervisor)
        assert await figures(supervisor) == (charged(wire), 0, 0)
        again = await ask(supervisor)
    assert (result.output, again.replayed) == (again.output, True)
    assert len(wire.provider.books.lines) == 1


async def test_one_of_an_earlier_life_is_fetched_though_nothing_asks_for_it(tmp_path: Path):
    wire, journal = FakeWire(config()), tmp_path / "money.journal"
    await live_until_it_is_under_way(wire, journal)
    async with desk(listed(wire), journal=journal) as supervisor:
        await asyncio.sleep(60.0)
        assert await figures(supervisor) == (charged(wire), 0, 0)
    async with desk(listed(wire), journal=journal) as supervisor:
        given = await ask(supervisor)
    assert (given.output["status"], given.replayed, given.cost) == ("completed", True, 0)
    assert int(given.paid) == charged(wire)
    assert len(wire.provider.books.lines) == 1


async def test_one_of_an_earlier_life_that_its_provider_does_not_know_stays_held(tmp_path: Path):
    wire, journal = FakeWire(config()), tmp_path / "money.journal"
    await live_until_it_is_under_way(wire, journal)
    async with desk(listed(FakeWire(config())), journal=journal) as supervisor:  # Another one has its name now.
        await asyncio.sleep(1000.0)
        settled, held, _ = await figures(supervisor)
        assert settled == 0
        assert held > 0
    async with desk(listed(wire), journal=journal) as supervisor:
        await asyncio.sleep(1000.0)
        assert await figures(supervisor) == (charged(wire), 0, 0)


def transport(wire: FakeWire) -> ModelTransport:
    return ModelTransport(
        "alder", "m", preset=preset_named("openai"), base_url="http://fake/v1", api_key="k", wire=wire
    )


def a_call(timeout: float = 1.0) -> ProviderCall:
    return ProviderCall(
        service="m", input=ASKED, request_id="r-1", idempotency_key="k-1", max_cost="0.01", timeout=timeout
    )


async def begun(door: ModelTransport) -> str:
    call = a_call()
    with pytest.raises(OutcomeUnknown, match="goes on with a response in the background"):
        await door.call(call)
    assert call.notes.handle is not None
    assert call.notes.owed is None
    return call.notes.handle


async def test_a_look_tells_that_it_is_under_way_and_a_longer_one_waits():
    wire = FakeWire(config())
    door = transport(wire)
    handle = await begun(door)
    assert await door.resume(handle, a_call(0.001)) == UnderWay()
    found = await door.resume(handle, a_call(60.0))
    assert isinstance(found, Answered)
    assert found.reply.output["id"] == handle
    assert found.reply.usage is not None


async def test_one_that_is_not_kept_any_more_was_paid():
    wire = FakeWire(config())
    door = transport(wire)
    await begun(door)
    assert await door.resume("resp_unknown", a_call(60.0)) == Lost()


async def test_one_that_was_cancelled_there_owes_what_came():
    wire = FakeWire(config())
    door = transport(wire)
    handle = await begun(door)
    stored = wire.provider.stored.get(handle)
    assert stored is not None
    wire.provider.cancel_background(stored, now=2.0)
    found = await door.resume(handle, a_call(60.0))
    assert isinstance(found, Lost)


async def test_looks_that_fail_are_made_again(monkeypatch: pytest.MonkeyPatch):
    wire = FakeWire(config(latency=3.0))
    door = transport(wire)
    handle, send, failed = await begun(door), wire.send, list[float]()

    async def fails(request: Any, progress: Any) -> Any:
        if len(failed) < 3:
            failed.append(asyncio.get_running_loop().time())
            progress.connecting()
            raise ConnectionRefusedError("nobody listens")
        return await send(request, progress)

    monkeypatch.setattr(wire, "send", fails)
    ended = await until_ended(door._client, handle, deadline=asyncio.get_running_loop().time() + 60.0)
    assert ended is not None
    assert [round(later - earlier, 3) for earlier, later in pairwise(failed)] == [0.5, 0.75]
