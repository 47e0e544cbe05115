"""Conversations over the door that stay at the provider that has their beginning cached, and what that saved."""

import pytest

from actors.money import to_micros
from actors.serve import Alias, DoorConfig
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


async def test_a_stream_says_at_its_end_what_was_saved():
    async with serving("swift", tariff=TARIFF, config=WEIGHTED) as stage:
        path = PATHS[0]
        first, second = [(await stage.post(path, asked(path, 1, stream=True))).text for _ in range(2)]
        assert " saved=" not in first
        assert " saved=0.00" in second
