"""Our books beside those of the fake servers, call by call: the same, but for what is rounded up once for each call."""

from __future__ import annotations

import contextlib
import random

import pytest

from actors import Market, RequestOptions, Retry, Supervisor
from actors.errors import CallFailed
from actors.fake import FakeConfig, FakeModel, FakePrice, FaultPlan
from actors.fake.draws import Uniform
from actors.fake.faults import FakeOutage, FakeThrottle
from actors.ledger import GetStatement
from actors.models import chat, chat_stream, compatible
from actors.tariffs import Tariff
from runtime import ActorSystem
from tests.fake_wire import FakeWire
from tests.proofs import repeated

CALLS = 20
MICROS = 1_000_000
LONG = "The same instructions come first in each request, so that they can be cached. " * 80
DIALECTS = {"openai": "openai", "deepseek": "deepseek", "xai": "xai", "anthropic": "anthropic", "groq": "groq"}
"""Presets by the dialect that the server speaks."""


def price_of(rng):
    """Return dollars for a million tokens of each kind, mostly finer than a micro-dollar a token."""
    names = ("input", "output", "cache_read", "cache_write", "reasoning")
    return {name: f"{rng.randint(1, 9_999) / 1_000}" for name in names} | {"per_call": rng.choice(["0", "0.0000007"])}


def request_of(rng, number):
    fields = {"messages": (LONG if number < 4 or rng.random() < 0.5 else "") + f"Question {rng.randint(0, 9)}?"}
    fields["max_tokens"] = rng.randint(40, 300)
    if number < 4 or rng.random() < 0.4:
        fields["reasoning_effort"] = rng.choice(["low", "high"])
    return fields


@pytest.mark.parametrize("seed", range(repeated(30, at_least=2)))
@pytest.mark.parametrize("preset", DIALECTS)
async def test_what_is_settled_is_what_was_charged_but_for_a_micro_dollar_a_call(seed, preset):
    rng = random.Random(f"{seed} {preset}")
    price = price_of(rng)
    model = FakeModel(name="m", price=FakePrice(**price), output_tokens=Uniform(1.0, 120.0), token_speed=500.0)
    faults = (FakeOutage(share=0.1, status=503), FakeThrottle(share=0.1, retry_after=0.1))
    wire = FakeWire(FakeConfig(models=(model,), dialect=DIALECTS[preset], seed=seed, plan=FaultPlan(faults=faults)))
    listing = compatible(
        "m", preset=preset, base_url="http://fake.test/v1", api_key="k", tariff=Tariff(**price), wire=wire
    )
    retry = Retry(base=0.01, cap=0.1)
    async with ActorSystem("books", log=False) as system:
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[listing], retry=retry)))
        for number in range(CALLS):
            fields = request_of(rng, number)
            with contextlib.suppress(CallFailed):
                if rng.random() < 0.5:
                    async with chat_stream(supervisor, **fields, timeout=60.0) as stream:
                        async for _piece in stream:
                            pass
                else:
                    await chat(supervisor, **fields, options=RequestOptions(timeout=60.0))
        statement = await supervisor.ask(GetStatement(), timeout=5.0)
    books = wire.provider.books
    charged = [call for call in books.lines if call.charged]
    assert len(charged) > CALLS / 2
    assert (statement.reserved, statement.held, statement.estimated) == (0, 0, 0)
    assert 0 <= statement.settled - MICROS * books.charged < len(charged)
    assert statement.settled == sum(-(-call.charged * MICROS // 1) for call in charged)
    kinds = {kind for call in charged for kind in ("cache_read", "reasoning") if getattr(call.usage, kind)}
    # Anthropic counts its thinking as any other output; whether a cache still knows a text depends on the waits.
    assert ("reasoning" in kinds) == (preset != "anthropic")
