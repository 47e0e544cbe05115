"""Conversations over the door that stay at the provider that has their beginning cached, and what that saved."""

import pytest

from actors import Monitor
from actors.events import RequestEnded
from actors.money import to_micros
from actors.monitor import GetMetrics
from actors.monitor.tallies import TallyBook
from actors.observing import PrometheusMetrics
from actors.serve import Alias, DoorConfig, KeyRing, Tenant, new_key
from actors.tariffs import Tariff
from tests.actors.serve.doors import serving

TARIFF = Tariff(input="2.50", output="10", cache_read="0.25")
LONG = "Answer in verse, and never in prose. " * 200
WEIGHTED = DoorConfig(aliases={"any": Alias(service="chat", strategy="weighted")})
PATHS = ("/v1/chat/completions", "/v1/responses")


def asked(path, number, *, stream=False):
    said = [{"role": "system", "content": LONG}, {"role": "user", "content": f"Hello, {number}"}]
    return {"model": "any", "messages" if "chat" in path else "input": said, "stream": stream}


@pytest.mark.parametrize("path", PATHS)
async def test_each_conversation_stays_and_its_answers_say_what_that_saved(path):
    async with serving("swift", "quick", config=WEIGHTED, tariff=TARIFF) as stage:
        for number in range(6):
            answers = [await stage.post(path, asked(path, number)) for _ in range(5)]
            told = [answer.headers["x-understudy-provider"] for answer in answers]
            saved = [to_micros(answer.headers.get("x-understudy-saved", "0")) for answer in answers]
            first = next(index for index, amount in enumerate(saved) if amount)
            assert first <= 2  # The third one at the latest is where one was before.
            assert set(told[first:]) == {told[first]}
            usage = answers[-1].json()["usage"]
            details = usage.get("prompt_tokens_details") or usage["input_tokens_details"]
            assert saved[-1] == details["cached_tokens"] * 225 // 100


async def test_what_was_saved_is_summed_by_tenant():
    keys = {name: new_key(name) for name in ("acme", "initech")}
    config = DoorConfig(aliases=WEIGHTED.aliases, tenants={name: Tenant() for name in keys})
    ring, caps = KeyRing([kept for _, kept in keys.values()]), dict.fromkeys(keys)
    async with serving("swift", config=config, keys=ring, caps=caps, tariff=TARIFF) as stage:
        monitor = stage.system.spawn(Monitor)
        told = dict.fromkeys(keys, 0)
        for name in ("acme", "initech", "acme", "acme"):
            answer = await stage.post(PATHS[0], asked(PATHS[0], name), x_api_key=keys[name][0])
            told[name] += to_micros(answer.headers.get("x-understudy-saved", "0"))
        metrics = PrometheusMetrics(monitor, stage.supervisor)
        body, _ = await metrics.scrape()
        savings = (await monitor.ask(GetMetrics(), timeout=1.0)).savings
        assert told["acme"] > 0
        assert savings == {name: saved for name, saved in told.items() if saved}
        assert f'understudy_cache_saved_dollars_total{{tenant="acme"}} {told["acme"] / 1e6}' in body.decode()


def test_the_tenants_that_savings_are_told_of_are_bounded():
    counted = TallyBook(start=0.0, recent=60.0, windows=(), accounts=(), max_subjects=2)
    for number in range(5):
        ended = RequestEnded(
            request_id="r", service="s", provider="p", attempts=1, latency=1.0, cost=0, tenant=f"t-{number}", saved=7
        )
        counted.record(ended, now=0.0)
    assert counted.metrics(now=0.0).savings == {"t-0": 7, "t-1": 7, "(others)": 21}


async def test_a_stream_says_at_its_end_what_was_saved():
    async with serving("swift", tariff=TARIFF, config=WEIGHTED) as stage:
        path = PATHS[0]
        first, second = [(await stage.post(path, asked(path, 1, stream=True))).text for _ in range(2)]
        assert " saved=" not in first
        assert " saved=0.00" in second
