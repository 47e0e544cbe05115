"""Conversations that stay at the provider that has their beginning cached, for as long as that saves money."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import FunctionTransport, Listing, Provider, ProviderReply, RequestOptions, Transient, smart_request
from actors.market.file import MarketError, parse_market
from actors.model_calls.prefix import prefix_digest
from actors.model_calls.presets import preset_named, presets
from actors.model_calls.request import ModelRequest
from actors.money import Micros
from actors.policies.breaker.config import BreakerConfig
from actors.policies.breaker.states import Closed, HalfOpen, Open
from actors.supervisor.pipeline.warmth import (
    MAX_PREFIXES,
    PrefixLog,
    WarmOffer,
    WarmPrefix,
    may_stay,
    where_to_stay,
)
from actors.tariffs import Tariff, Usage
from tests.actors.supervisor.stage import staged

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from actors import ProviderCall
    from tests.actors.supervisor.stage import Stage

TOKENS = 10_000
"""The tokens of the beginning of each conversation."""
WINDOW = 300.0


class CachingModel:
    """A provider that keeps beginnings of prompts for a while, tells so in its usage, and fails while it `is_down`."""

    def __init__(self, name: str, *, price: str = "1.00", read: str = "0.10", lasts: float = 1.0, **terms: Any) -> None:
        self.name, self.lasts = name, lasts
        self.is_down = False
        self.kept: dict[Any, float] = {}
        self.most_under_way = self.under_way = 0
        self.listing = Listing(
            provider=Provider(name=name, services={"chat"}),
            transport=lambda: FunctionTransport(self, paid=True, idempotent="no"),
            tariff=Tariff(input=price, output="2.00", cache_read=read),
            **({"cache_window": WINDOW} | terms),
        )

    async def __call__(self, call: ProviderCall) -> ProviderReply:
        if self.is_down:
            raise Transient("down", outcome="not_started")
        now = asyncio.get_running_loop().time()
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await asyncio.sleep(self.lasts)
        finally:
            self.under_way -= 1
        beginning = call.input["messages"][0]["content"]
        is_hit = now - self.kept.get(beginning, -WINDOW) < WINDOW
        self.kept[beginning] = now
        cached = {"cache_read": TOKENS} if is_hit else {"cache_write": TOKENS}
        return ProviderReply(output=self.name, usage=Usage(input=10, output=5, **cached))


def prompt(beginning: str, turns: int = 1, **fields: Any) -> dict[str, Any]:
    content = beginning.ljust(4 * TOKENS, ".")
    said = [{"role": "user", "content": content}, *({"role": "user", "content": "on"} for _ in range(turns))]
    return {"messages": said, "max_tokens": 10, **fields}


@asynccontextmanager
async def talks(*models: CachingModel, **market: Any) -> AsyncIterator[Stage]:
    async with staged(*(one.listing for one in models), **market) as stage:
        yield stage
        await stage.assert_at_rest()


async def ask(stage: Stage, beginning: str = "a", **options: Any) -> Any:
    asked = {"service": "chat", "input": prompt(beginning), "strategy": "cheapest"} | options
    return await smart_request(stage.ref, **asked)


async def ask_as(stage: Stage, tenant: str, strategy: Any = "cheapest") -> Any:
    return await ask(stage, strategy=strategy, options=RequestOptions(tenant=tenant))


def chosen(name: str):
    """A strategy for the first turn of a conversation: this one first."""
    return lambda providers: sorted(providers, key=lambda one: one.name != name)


# The decision.

CONFIG = BreakerConfig(slow_start=10.0)
PREFIX = WarmPrefix("alder", 1_000, used_at=100.0)


@pytest.mark.parametrize(
    ("breaker", "now", "stays"),
    [
        (Closed(), 399.0, True),
        (Closed(), 400.0, False),
        (Closed(since=370.0), 379.0, False),
        (Closed(since=370.0), 380.0, True),
        (Open(epoch=1, until=0.0), 150.0, False),
        (HalfOpen(epoch=1, lease_ends=500.0), 150.0, False),
    ],
)
def test_a_provider_is_warm_within_its_window_while_its_breaker_is_closed_and_after_slow_start(breaker, now, stays):
    assert may_stay(PREFIX, breaker, window=WINDOW, now=now, config=CONFIG) is stays


offers = st.lists(st.builds(WarmOffer, st.sampled_from("abc"), st.integers(0, 50), st.integers(0, 50)), max_size=3)


@given(offers, st.none() | st.integers(0, 50))
def test_it_is_stayed_where_the_call_costs_less_than_elsewhere_and_only_for_what_is_saved(warm, other):
    name = where_to_stay(warm, other)
    worth = [one for one in warm if one.saving > 0 and (other is None or one.saving > one.estimate - other)]
    assert (name is not None) == bool(worth)
    if name is not None:
        assert min(one.net for one in worth) in {one.net for one in worth if one.provider == name}


def test_no_more_beginnings_are_remembered_than_ten_thousand_and_the_oldest_goes_first():
    log = PrefixLog()
    for number in range(MAX_PREFIXES + 5):
        log.note(number.to_bytes(4, "big"), WarmPrefix("alder", 1, float(number)))
    assert len(log) == MAX_PREFIXES == 10_000
    assert not log.of((4).to_bytes(4, "big"))
    assert log.of((5).to_bytes(4, "big"))


SYSTEM, TOOLS = [{"type": "text", "text": "Be brief."}], [{"name": "look"}]
HI, ON = {"role": "user", "content": "Hi"}, {"role": "user", "content": "Go on"}


@pytest.mark.parametrize(
    ("form", "body", "same", "other"),
    [
        ("messages", {"system": SYSTEM, "tools": TOOLS, "messages": [HI]}, {"messages": [HI, ON]}, {"messages": [ON]}),
        ("messages", {"system": SYSTEM, "messages": [HI]}, {"messages": [HI, ON]}, {"system": "Be long."}),
        ("chat", {"messages": [{"role": "developer", "content": "x"}, HI]}, {"temperature": 1}, {"tools": TOOLS}),
        ("responses", {"input": "Hi", "instructions": "x"}, {"stream": True}, {"instructions": "y"}),
        ("responses", {"input": [{"role": "system", "content": "x"}, HI]}, {"stream": True}, {"input": [HI]}),
        ("chat", {"messages": [HI], "prompt_cache_key": "k"}, {"messages": [ON]}, {"prompt_cache_key": "l"}),
    ],
)
def test_requests_are_alike_by_their_key_or_by_how_their_prompts_begin(form, body, same, other):
    def digest(tenant="t", **changes):
        return prefix_digest(tenant, ModelRequest(form=form, body=body | changes))

    assert digest() == digest(**same) != digest(**other)
    assert digest() != digest("u")


@pytest.mark.parametrize(
    "given", ["text", 3, None, {"a": 1}, {"messages": "Hi"}, ModelRequest(form="embeddings", body={"input": "x"})]
)
def test_what_is_no_prompt_has_no_beginning(given):
    assert prefix_digest("t", given) is None


def test_an_input_that_no_json_can_hold_is_a_prompt_too():
    assert prefix_digest("t", {"messages": [{"role": "user", "content": {1, 2}, "more": object}]}) is not None


def test_presets_say_how_long_a_beginning_is_kept():
    assert preset_named("groq").cache_window == 7_200
    assert all(0 < one.cache_window <= 86_400 for one in presets().values())


# Through the supervisor.


async def test_a_conversation_stays_while_the_cache_saves_more_than_the_price_differs():
    near, cheap = CachingModel("near", price="1.50"), CachingModel("cheap")
    async with talks(near, cheap) as stage:
        await ask(stage, strategy=chosen("near"))
        # 10,000 tokens x ($1.50 - $0.10) per million are saved, and 10,000 x $0.50 is the difference.
        for _ in range(3):
            result = await ask(stage)
            assert (result.provider, result.saved) == ("near", Micros(14_000))
        assert (await ask(stage, "another")).provider == "cheap"
        assert (await ask(stage, "another")).saved == Micros(9_000)


async def test_a_conversation_moves_if_the_price_differs_by_more_than_is_saved():
    dear, cheap = CachingModel("dear", price="3.00", read="2.50"), CachingModel("cheap")
    async with talks(dear, cheap) as stage:
        await ask(stage, strategy=chosen("dear"))
        assert (await ask(stage)).provider == "cheap"


async def test_nothing_that_is_not_cached_holds_a_conversation():
    class Forgetful(CachingModel):
        async def __call__(self, call):
            reply = await super().__call__(call)
            return ProviderReply(output=reply.output, usage=Usage(input=TOKENS, output=5))

    near, cheap = Forgetful("near", price="1.50"), CachingModel("cheap")
    async with talks(near, cheap) as stage:
        await ask(stage, strategy=chosen("near"))
        result = await ask(stage)
        assert (result.provider, result.saved) == ("cheap", Micros(0))


async def test_a_conversation_is_free_to_move_once_its_window_is_over():
    near, cheap = CachingModel("near", price="1.50"), CachingModel("cheap")
    async with talks(near, cheap) as stage:
        await ask(stage, strategy=chosen("near"))
        await asyncio.sleep(WINDOW - 2)
        assert (await ask(stage)).provider == "near"
        await asyncio.sleep(WINDOW)
        assert (await ask(stage)).provider == "cheap"


async def test_conversations_of_two_tenants_are_two():
    near, cheap = CachingModel("near", price="1.50"), CachingModel("cheap")
    async with talks(near, cheap) as stage:
        await ask_as(stage, "acme", chosen("near"))
        assert (await ask_as(stage, "other")).provider == "cheap"
        assert (await ask_as(stage, "acme")).provider == "near"


async def test_by_weight_each_conversation_stays_where_it_began():
    left, right = CachingModel("left"), CachingModel("right")
    async with talks(left, right) as stage:
        for number in range(20):
            first = (await ask(stage, str(number), strategy="weighted")).provider
            assert {(await ask(stage, str(number), strategy="weighted")).provider for _ in range(3)} == {first}
        assert left.kept
        assert right.kept


async def test_a_market_can_do_without_and_a_function_has_its_way():
    near, cheap = CachingModel("near", price="1.50"), CachingModel("cheap")
    async with talks(near, cheap, warmth=False) as stage:
        await ask(stage, strategy=chosen("near"))
        assert (await ask(stage)).provider == "cheap"
    async with talks(near, cheap) as stage:
        await ask(stage, "b", strategy=chosen("near"))
        assert (await ask(stage, "b", strategy=chosen("cheap"))).provider == "cheap"


async def test_it_moves_when_the_breaker_opens_and_returns_after_slow_start_alone():
    near, cheap = CachingModel("near", price="1.50"), CachingModel("cheap", price="1.45", read="1.40")
    breaker = BreakerConfig(failure_threshold=1, open_for=5.0, jitter=0.0, slow_start=10.0, relapse_within=0.0)
    async with talks(near, cheap, breaker=breaker) as stage:
        await ask(stage, strategy=chosen("near"))
        near.is_down = True
        assert (await ask(stage)).provider == "cheap"  # One call fails, and opens the breaker.
        near.is_down = False
        await asyncio.sleep(6.0)
        # The breaker lets a probe through, but not because of warmth.
        assert (await ask(stage)).provider == "cheap"
        probed = await ask(stage, "probe", strategy=chosen("near"))
        assert probed.provider == "near"
        assert (await ask(stage)).provider == "cheap"  # In slow start.
        await asyncio.sleep(11.0)
        assert (await ask(stage)).provider == "near"  # It is within its window still, and saves more.


@pytest.mark.parametrize(("lasts", "stays"), [(1.5, True), (6.0, False)])
async def test_a_place_is_waited_for_if_it_comes_within_two_seconds(lasts, stays):
    near, cheap = CachingModel("near", price="1.50", lasts=lasts, max_concurrency=1), CachingModel("cheap")
    async with talks(near, cheap) as stage:
        for _ in range(8):  # So that it is known how long an answer takes.
            await ask(stage, strategy=chosen("near"))
        other = asyncio.create_task(ask(stage, "other", strategy=chosen("near")))
        await asyncio.sleep(0.1)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        assert (await ask(stage)).provider == ("near" if stays else "cheap")
        assert loop.time() - begun == pytest.approx(2.9 if stays else 1.0, abs=0.01)
        assert near.most_under_way == 1
        await other


async def test_a_place_that_does_not_come_is_waited_for_two_seconds_at_most():
    near, cheap = CachingModel("near", price="1.50", max_concurrency=1), CachingModel("cheap")
    async with talks(near, cheap) as stage:
        await ask(stage, strategy=chosen("near"))
        near.lasts = 8.0
        other = asyncio.create_task(ask(stage, "other", strategy=chosen("near")))
        await asyncio.sleep(0.1)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        assert (await ask(stage)).provider == "cheap"
        assert loop.time() - begun == pytest.approx(3.0, abs=0.01)
        await other


@pytest.mark.parametrize("after", [0.0, 0.5, 1.9, 2.1])
async def test_a_request_that_is_cancelled_while_it_waits_leaves_nothing(after):
    near, cheap = CachingModel("near", price="1.50", lasts=3.0, max_concurrency=1), CachingModel("cheap")
    async with talks(near, cheap) as stage:
        await ask(stage, strategy=chosen("near"))
        other = asyncio.create_task(ask(stage, "other", strategy=chosen("near")))
        await asyncio.sleep(0.1)
        asked = asyncio.create_task(ask(stage))
        await asyncio.sleep(after)
        asked.cancel()
        await asyncio.gather(asked, other, return_exceptions=True)
        await asyncio.sleep(5.0)
        assert list(stage.actor.broken_invariants()) == []


def test_a_market_file_says_whether_and_for_how_long():
    provider = '[[providers]]\nkind = "compatible"\nmodel = "m"\nbase_url = "http://127.0.0.1:1/v1"\n'
    market = parse_market(f"warmth = false\n{provider}cache_window = 3600")
    assert (market.warmth, market.providers[0].cache_window) == (False, 3_600)
    assert parse_market(provider).warmth is True
    groq = parse_market(provider.replace("base_url", 'preset = "groq"\napi_key = "k"\nbase_url'))
    assert groq.providers[0].cache_window == 7_200
    with pytest.raises(MarketError, match=r"warmth.*expected boolean, got string"):
        parse_market(f'warmth = "no"\n{provider}')


@pytest.mark.parametrize("window", [-1, float("nan"), float("inf")])
def test_a_window_that_cannot_be_one_is_refused(window):
    with pytest.raises(ValueError, match="cache_window must be >= 0 seconds and finite"):
        CachingModel("near", cache_window=window)
