"""Small programs of the real SDKs over three servers that fail: every answer is right, and all books agree."""

from __future__ import annotations

import asyncio
import itertools
import json
from fractions import Fraction

import pytest

from actors.fake.faults import (
    FakeCut,
    FakeErrorEvent,
    FakeErrorInside,
    FakeGarbage,
    FakeLostReply,
    FakeNoUsage,
    FakeOutage,
    FakeStall,
    FakeThrottle,
)
from tests.proofs import repeated
from tests.real_sdks.test_front_door import TOOL
from tests.real_sdks.three_servers import MICRO, TOLD, three_servers

anthropic = pytest.importorskip("anthropic")
openai = pytest.importorskip("openai")

pytestmark = [pytest.mark.sdk, pytest.mark.slow, pytest.mark.real_time]
DOUBTFUL = (
    FakeOutage(share=0.05),
    FakeThrottle(share=0.1, retry_after=0.05),
    FakeStall(share=0.1, seconds=0.2, at="mid_stream"),
    FakeLostReply(share=0.05),
    FakeCut(share=0.05),
    FakeErrorInside(share=0.05),
    FakeErrorEvent(share=0.05),
    FakeGarbage(share=0.05),
    FakeNoUsage(share=0.05),
)
"""What does; not so often that a breaker opens, which would take its time."""
TRIES = 12
"""How often a program asks until it gives up."""
FIELDS = (("input_tokens", "prompt_tokens"), ("output_tokens", "completion_tokens"))


class Programs:
    """The programs of one customer, and what the answers told them that they had used."""

    def __init__(self, stage) -> None:
        self.url, self.key = stage.url, stage.key
        self.numbers = itertools.count()
        self.used = Fraction(0)
        self.right = self.failed = 0

    @property
    def hello(self):
        """What no other program says at the same time: a retry may join an equal request that is under way."""
        return [{"role": "user", "content": f"Say hello to {next(self.numbers)}."}]

    def count(self, usage) -> None:
        """Note one right answer, by its tokens at one and two dollars a million, if it tells them."""
        self.right += 1
        if usage is not None:
            told = usage.model_dump()
            given, made = (told[new] if new in told else told[old] for new, old in FIELDS)
            self.used += (given + 2 * made) * MICRO

    async def until_whole(self, ask):
        """Ask until an answer is whole, which is what a program does that has to have one."""
        for _ in range(TRIES):
            try:
                return await ask()
            except (openai.APIError, anthropic.APIError):
                self.failed += 1
        raise AssertionError(f"no answer in {TRIES} tries")

    async def of_openai(self) -> None:
        async with openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key=self.key) as client:
            for ask in (self._chat, self._chat_stream, self._response_stream, self._tool):
                await self.until_whole(lambda ask=ask: ask(client))

    async def _chat(self, client) -> None:
        answer = await client.chat.completions.create(model="auto", messages=self.hello, max_tokens=8)
        assert answer.choices[0].message.content
        self.count(getattr(answer, "usage", None))

    async def _chat_stream(self, client) -> None:
        told = {"include_usage": True}
        create = client.chat.completions.create
        stream = await create(model="auto", messages=self.hello, max_tokens=8, stream=True, stream_options=told)
        chunks = [chunk async for chunk in stream]
        assert "".join(one.choices[0].delta.content or "" for one in chunks if one.choices)
        self.count(chunks[-1].usage)

    async def _response_stream(self, client) -> None:
        create = client.responses.create
        events = [
            event async for event in await create(model="auto", input=self.hello, max_output_tokens=16, stream=True)
        ]
        if events[-1].type == "error":  # This client gives it as an event.
            raise openai.APIError(events[-1].message, request=None, body=None)
        response = events[-1].response
        assert response.output_text == "".join(one.delta for one in events if one.type == "response.output_text.delta")
        self.count(getattr(response, "usage", None))

    async def _tool(self, client) -> None:
        tools = [{"type": "function", "function": TOOL}]
        create = client.chat.completions.create
        called = await create(model="auto", messages=self.hello, tools=tools, tool_choice="required", max_tokens=200)
        (call,) = called.choices[0].message.tool_calls
        assert "city" in json.loads(call.function.arguments)
        self.count(getattr(called, "usage", None))

    async def of_anthropic(self) -> None:
        async with anthropic.AsyncAnthropic(base_url=self.url, api_key=self.key) as client:
            for ask in (self._message, self._message_stream, self._tool_use):
                await self.until_whole(lambda ask=ask: ask(client))

    async def _message(self, client) -> None:
        answer = await client.messages.create(model="auto", messages=self.hello, max_tokens=8)
        assert answer.content[0].text
        self.count(getattr(answer, "usage", None))

    async def _message_stream(self, client) -> None:
        async with client.messages.stream(model="auto", messages=self.hello, max_tokens=8) as stream:
            text = "".join([piece async for piece in stream.text_stream])
            final = await stream.get_final_message()
        assert text == final.content[0].text != ""
        self.count(getattr(final, "usage", None))

    async def _tool_use(self, client) -> None:
        tool = {"name": "weather", "description": "Tells it.", "input_schema": TOOL["parameters"]}
        create = client.messages.create
        called = await create(
            model="auto", messages=self.hello, max_tokens=200, tools=[tool], tool_choice={"type": "any"}
        )
        assert "city" in next(one for one in called.content if one.type == "tool_use").input
        self.count(getattr(called, "usage", None))

    def in_threads(self) -> None:
        for _ in range(TRIES):
            try:
                return self._of_sync_clients()
            except (openai.APIError, anthropic.APIError):
                self.failed += 1
        raise AssertionError(f"no answer in {TRIES} tries")

    def _of_sync_clients(self) -> None:
        with openai.OpenAI(base_url=f"{self.url}/v1", api_key=self.key) as client:
            answer = client.chat.completions.create(model="auto", messages=self.hello, max_tokens=8)
            assert answer.choices[0].message.content
            self.count(getattr(answer, "usage", None))
        with anthropic.Anthropic(base_url=self.url, api_key=self.key) as client:
            with client.messages.stream(model="auto", messages=self.hello, max_tokens=8) as stream:
                text = "".join(stream.text_stream)
                final = stream.get_final_message()
            assert text == final.content[0].text != ""
            self.count(getattr(final, "usage", None))

    async def run(self, times) -> None:
        """Run all of them at once, so many times."""
        await asyncio.gather(
            *(self.of_openai() for _ in range(times)),
            *(self.of_anthropic() for _ in range(times)),
            asyncio.to_thread(self.in_threads),
        )


async def test_every_answer_is_right_and_the_books_of_all_three_sides_agree():
    async with three_servers(TOLD) as stage:
        programs = Programs(stage)
        await programs.run(2)
        assert await stage.charged_exactly() == programs.used


async def test_what_was_not_told_is_estimated_or_held_and_all_else_is_exact():
    async with three_servers(DOUBTFUL, risk="0.01") as stage:
        programs = Programs(stage)
        await programs.run(repeated(20, at_least=3, part=7))
        calls, statement = await stage.calls(), await stage.statement()
        theirs = sum(Fraction(call["charged"]) for call in calls)
        told = [call for call in calls if call["answered"] and not {"no_usage", "garbage"} & set(call["faults"])]
        known = sum(Fraction(call["charged"]) for call in told)
        assert known == programs.used
        assert statement.reserved == 0
        assert 0 <= int(statement.settled - statement.estimated) * MICRO - known < len(told) * MICRO
        assert known < theirs <= int(statement.settled + statement.held) * MICRO
        assert int(known / MICRO) <= stage.wire.told <= statement.settled
