"""What calls to models cost that are cut off, against the books of the fake server, in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

from actors import GetStatus, Market, RequestOptions, Supervisor
from actors.errors import AllProvidersFailed, CallFailed, OutcomeUnknown, StreamBroken
from actors.events import Reconciled
from actors.fake import FakeConfig, FakeModel, FakePrice, FaultPlan
from actors.fake.faults import FakeCut, FakeErrorEvent, FakeOutage, FakeStall
from actors.ledger import GetStatement
from actors.model_calls.presets import presets
from actors.models import chat, chat_stream, compatible
from actors.tariffs import Tariff
from actors.transports.streaming import Restarted
from runtime import ActorSystem
from tests.fake_wire import FakeWire
from tests.proofs import repeated

PRICE = {"input": "1", "output": "4"}
MICROS = 1_000_000


def made(*faults, cost_delay=2.0, on_cut="stops", dialect="openrouter", **model):
    """Return a wire to a fake server with one model that fails so."""
    model = {"token_speed": 20.0, "output_tokens": 100.0, "latency": 0.5} | model
    fake = FakeModel(name="m", price=FakePrice(**PRICE), on_cut=on_cut, **model)
    plan = FaultPlan(faults=faults)
    return FakeWire(FakeConfig(models=(fake,), dialect=dialect, plan=plan, cost_delay=cost_delay))


@pytest.fixture
async def stage():
    """Return a function that starts a supervisor over models behind wires: of OpenRouter, if no preset is given."""
    async with contextlib.AsyncExitStack() as stack:
        system = await stack.enter_async_context(ActorSystem("cuts", log=False))

        def start(*wires, preset="openrouter", timeout=20.0, **options):
            listings = [
                compatible(
                    "m",
                    preset=preset,
                    base_url="http://fake.test/api/v1",
                    api_key="k",
                    name=f"alder-{number}",
                    tariff=Tariff(**PRICE),
                    wire=wire,
                    timeout=timeout,
                    **options,
                )
                for number, wire in enumerate(wires)
            ]
            return system.spawn(lambda: Supervisor(Market(providers=listings)))

        start.system = system
        yield start


async def figures(supervisor):
    statement = await supervisor.ask(GetStatement(), timeout=5.0)
    assert statement.reserved == 0
    return int(statement.settled), int(statement.estimated), int(statement.held)


def charged(wire):
    """Return what the fake server has charged, in micro-dollars; each call is rounded up."""
    return sum(-(-call.charged * MICROS // 1) for call in wire.provider.books.lines)


async def read(stream, pieces):
    async with stream:
        async for piece in stream:
            pieces.append(piece)


async def leave_after(supervisor, pieces, **options):
    async with chat_stream(supervisor, messages="Hello", max_tokens=200, **options) as stream:
        for _ in range(pieces):
            await anext(stream)


async def test_a_stream_that_its_consumer_left_is_held_until_its_cost_is_told(stage):
    wire = made(cost_delay=20.0)
    supervisor = stage(wire)
    await leave_after(supervisor, 10)
    settled, _, held = await figures(supervisor)
    assert (settled, held > 0) == (0, True)
    await asyncio.sleep(29.0)
    assert await figures(supervisor) == (0, 0, held)
    await asyncio.sleep(2.0)
    assert await figures(supervisor) == (charged(wire), 0, 0)
    assert 0 < charged(wire) < held


async def test_a_cost_that_is_never_told_counts_as_charged_whole_after_an_hour(stage):
    supervisor = stage(made(cost_delay=1e9))
    await leave_after(supervisor, 10)
    _, _, held = await figures(supervisor)
    await asyncio.sleep(3_590.0)
    assert await figures(supervisor) == (0, 0, held)
    await asyncio.sleep(20.0)
    assert await figures(supervisor) == (held, held, 0)


async def test_how_often_it_is_asked(stage):
    wire = made(cost_delay=1e9)
    asked, send = [], wire.send

    async def watched(request, progress):
        if request.method == "GET":
            asked.append(asyncio.get_running_loop().time())
        return await send(request, progress)

    wire.send = watched
    supervisor = stage(wire)
    await leave_after(supervisor, 10)
    left = asyncio.get_running_loop().time()
    await asyncio.sleep(10_000.0)
    assert [round(at - left) for at in asked] == [5, 30, 300, 3_600]


@pytest.mark.parametrize("fault", [FakeCut(part=0.5), FakeErrorEvent(after_events=30)], ids=["cut", "error"])
async def test_a_stream_that_broke_off_is_told_at_once_and_its_cost_later(stage, fault):
    wire = made(fault)
    supervisor, loop = stage(wire), asyncio.get_running_loop()
    pieces, began = [], loop.time()
    with pytest.raises(StreamBroken) as told:
        await read(chat_stream(supervisor, messages="Hello", max_tokens=200), pieces)
    assert loop.time() - began < 6.0
    assert told.value.charged == "held"
    (held,) = told.value.held
    assert told.value.answer.output["choices"][0]["message"]["content"] == "".join(one.text for one in pieces)
    assert await figures(supervisor) == (0, 0, held.amount)
    await asyncio.sleep(10.0)
    assert await figures(supervisor) == (charged(wire), 0, 0)


async def test_one_that_begins_anew_elsewhere_counts_whole_until_its_cost_is_told(stage):
    shaky, steady = made(FakeCut(part=0.5), cost_delay=60.0), made()
    supervisor = stage(shaky, steady)
    reconciled = []
    stage.system.events.subscribe(Reconciled, reconciled.append)
    options = RequestOptions(strategy="cheapest")
    async with chat_stream(
        supervisor, messages="Hello", max_tokens=200, after_cut="restart", options=options
    ) as stream:
        pieces = [piece async for piece in stream]
    if not any(isinstance(piece, Restarted) for piece in pieces):
        pytest.fail("it did not begin anew")
    settled, estimated, held = await figures(supervisor)
    assert held == 0
    assert settled == stream.result.cost == charged(steady) + estimated
    assert [one.cost for one in stream.result.result.failures] == [estimated]
    await asyncio.sleep(400.0)
    assert await figures(supervisor) == (charged(shaky) + charged(steady), 0, 0)
    assert len(reconciled) == 1


async def test_a_call_given_up_before_its_first_piece_is_asked_about_for_half_of_the_time_left(stage):
    wire = made(FakeStall(at="mid_stream", after_events=1, seconds=1e6), cost_delay=1e9)
    supervisor, loop = stage(wire, made(), timeout=10.0), asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(OutcomeUnknown) as told:
        await leave_after(supervisor, 1, timeout=60.0, options=RequestOptions(strategy="cheapest"))
    assert 30.0 < loop.time() - began <= 10.0 + 25.0 + 5.0
    assert len(told.value.held) == 1


async def test_once_its_cost_is_told_the_request_goes_on(stage):
    first, second = made(FakeStall(at="mid_stream", after_events=1, seconds=1e6), cost_delay=3.0), made()
    supervisor = stage(first, second, timeout=10.0)
    options = RequestOptions(strategy="cheapest")
    async with chat_stream(supervisor, messages="Hello", max_tokens=200, timeout=60.0, options=options) as stream:
        assert [piece async for piece in stream]
    assert stream.result.provider == "alder-1"
    assert await figures(supervisor) == (charged(first) + charged(second), 0, 0)


async def test_within_its_risk_it_goes_on_besides_and_tells_what_that_may_cost(stage):
    first, second = made(FakeStall(at="mid_stream", after_events=1, seconds=1e6), cost_delay=1e9), made()
    supervisor = stage(first, second, timeout=10.0)
    options = RequestOptions(strategy="cheapest", risk="1")
    async with chat_stream(supervisor, messages="Hello", max_tokens=200, timeout=60.0, options=options) as stream:
        assert [piece async for piece in stream]
    result = stream.result.result
    (failure,), (held,) = result.failures, result.held
    assert (failure.cost, failure.may_cost) == (0, held.amount)
    assert f"perhaps {held.amount}" in str(failure)


STOPS = {"on_cut": "stops", "on_cut_plain": "stops"}
RUNS_ON = {"on_cut": "runs_on", "on_cut_plain": "runs_on"}


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize(("declared", "is_settled"), [(STOPS, True), (RUNS_ON, False)])
@pytest.mark.parametrize("ends_by", ["timeout", "cancellation"])
async def test_what_a_call_without_an_answer_costs_is_declared_by_its_listing(
    stage, streams, declared, is_settled, ends_by
):
    wire = made(FakeStall(at="first_byte", seconds=1e6), dialect="openai")
    supervisor = stage(wire, preset="openai", timeout=10.0, **declared)
    limit = 60.0 if ends_by == "timeout" else 5.0
    if streams:
        asking = leave_after(supervisor, 1, timeout=12.0)
    else:
        asking = chat(supervisor, messages="Hello", max_tokens=200, options=RequestOptions(timeout=12.0))
    with pytest.raises((CallFailed, TimeoutError)):
        await asyncio.wait_for(asking, limit)
    await asyncio.sleep(1.0)
    settled, estimated, held = await figures(supervisor)
    assert (settled > 0, held > 0) == (is_settled, not is_settled)
    assert estimated == settled
    if streams and is_settled:
        assert settled < 30  # The input alone, at most twice.
    assert [status.under_way for status in await supervisor.ask(GetStatus(), timeout=5.0)] == [0]


@pytest.mark.parametrize("preset", ["openai", "openrouter"])
@pytest.mark.parametrize("charges_errors", [True, False])
@pytest.mark.parametrize("fault", [FakeOutage(status=500), FakeOutage(status=502), FakeErrorEvent(after_events=0)])
async def test_an_error_before_the_first_piece_owes_nothing_if_errors_are_not_charged(
    stage, preset, charges_errors, fault
):
    wire = made(fault, dialect=preset)
    supervisor = stage(wire, preset=preset, charges_errors=charges_errors)
    with pytest.raises(CallFailed):
        await leave_after(supervisor, 1, timeout=12.0)
    settled, _, held = await figures(supervisor)
    has_said_so = isinstance(fault, FakeErrorEvent) and preset == "openai"  # Which stops.
    assert (settled + held > 0) == (charges_errors and not has_said_so)
    assert settled < 60  # The input alone, of four calls at most.


def test_errors_are_charged_unless_a_preset_has_a_source_that_says_no():
    free = {name for name, preset in presets().items() if not preset.charges_errors}
    assert free == {"openrouter"}


async def test_the_two_kinds_are_declared_apart(stage):
    wire = made(FakeStall(at="first_byte", seconds=1e6), dialect="openai")
    supervisor = stage(wire, preset="openai", timeout=10.0, on_cut="runs_on", on_cut_plain="stops")
    with pytest.raises(AllProvidersFailed):
        await chat(supervisor, messages="Hello", max_tokens=200, options=RequestOptions(timeout=12.0))
    assert (await figures(supervisor))[2] == 0
    with pytest.raises(OutcomeUnknown):
        await leave_after(supervisor, 1, timeout=12.0)
    assert (await figures(supervisor))[2] > 0


async def test_what_is_held_for_a_model_counts_as_charged_after_a_day(stage):
    wire = made(FakeStall(at="first_byte", seconds=1e6), dialect="openai")
    supervisor = stage(wire, preset="openai", timeout=10.0, **RUNS_ON)
    with pytest.raises(OutcomeUnknown):
        await leave_after(supervisor, 1, timeout=12.0)
    _, _, held = await figures(supervisor)
    await asyncio.sleep(86_300.0)
    assert await figures(supervisor) == (0, 0, held)
    await asyncio.sleep(200.0)
    settled, _, held_still = await figures(supervisor)
    assert (settled, held_still) == (held, 0)


def test_what_cannot_be_is_told_when_it_is_listed():
    reached = {"base_url": "http://127.0.0.1:9/v1"}
    with pytest.raises(ValueError, match="on_cut must be one of stops, runs_on, ask, got 'halts'"):
        compatible("m", on_cut="halts", **reached)
    with pytest.raises(ValueError, match=r'preset has cost_path and cost_field; say on_cut="runs_on"'):
        compatible("m", on_cut="ask", **reached)
    assert compatible("m", preset="openrouter", api_key="k").held_for == 86_400.0
    assert compatible("m", held_for=60.0, **reached).held_for == 60.0
    assert not hasattr(compatible("m", **reached).transport(), "look_up")


async def left_early(stage, *, speed, taken, pause=0.0, before=0, **preset):
    """Return what is settled for a stream that is left after so many pieces, and what its server has charged."""
    wire = made(dialect="openai", token_speed=speed, output_tokens=4_000.0, bytes_per_token=4.0)
    supervisor = stage(wire, preset="openai", **preset)
    for _ in range(before):
        await read(chat_stream(supervisor, messages="Hello", max_tokens=300), [])
    spent, owed = (await figures(supervisor))[0], charged(wire)
    async with chat_stream(supervisor, messages="Hello", max_tokens=4_000, patience=1e4, timeout=1e4) as stream:
        for _ in range(taken):
            await anext(stream)
            await asyncio.sleep(pause)
    await asyncio.sleep(5.0)
    return (await figures(supervisor))[0] - spent, charged(wire) - owed


@pytest.mark.parametrize("seed", range(repeated(80)))
async def test_a_stream_left_early_is_settled_at_what_its_provider_charges_and_two_seconds_more(stage, seed):
    rng = random.Random(seed)
    speed, taken = rng.choice([15.0, 40.0, 120.0, 300.0]), rng.choice([1, 2, 5, 60, 200])
    pause = rng.choice([0.0, 0.0, 0.5]) if taken < 100 else 0.0
    settled, owed = await left_early(stage, speed=speed, taken=taken, pause=pause, before=rng.choice([0, 2]))
    assert 0 < owed <= settled
    if not pause:
        assert settled <= 1.5 * owed + 4 * 2 * max(speed, 120.0) + 100  # At 4 micro-dollars a token.


async def test_a_stream_left_after_one_token_costs_by_the_speed_that_its_model_has_shown(stage):
    unknown, _ = await left_early(stage, speed=15.0, taken=1)
    known, owed = await left_early(stage, speed=15.0, taken=1, before=3)
    assert unknown <= 4 * 2 * 130
    assert owed < known <= 4 * 2 * 25


async def test_a_slow_consumer_hides_nothing_of_what_its_provider_wrote(stage):
    settled, owed = await left_early(stage, speed=100.0, taken=20, pause=2.0)
    assert owed == pytest.approx(4 * 4_000, rel=0.1)
    assert settled >= owed
