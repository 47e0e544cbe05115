"""Streams whose first pieces the door holds back, so that one that breaks off early begins anew elsewhere, unseen."""

import asyncio

import pytest

from actors.fake import FakeModel, FakePrice
from actors.fake.faults import FakeCut
from actors.serve import DoorConfig
from tests.actors.serve.doors import HELLO, serving

HOLD = DoorConfig(hold_first=2.0)


def slow(name, **facts):
    """A model that writes 10 tokens a second, 50 in all."""
    return FakeModel(name=name, token_speed=10.0, output_tokens=50.0, price=FakePrice(input="1", output="2"), **facts)


def said(text):
    """Return what a stream of a chat says, the ids of its answers, and whether it ended as one should."""
    chunks = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [chunk for chunk in chunks if '"content"' in chunk], chunks[-1] == "[DONE]"


async def stream(stage, path="/v1/chat/completions", **fields):
    body = {"model": "auto", "stream": True, "messages": HELLO, "max_tokens": 50} | fields
    loop = asyncio.get_running_loop()
    begun, came, text = loop.time(), None, ""
    async with stage.client.stream("POST", path, json=body) as answer:
        async for chunk in answer.aiter_text():
            if came is None and "data: " in chunk:
                came = loop.time() - begun
            text += chunk
    return answer, text, came


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_a_stream_that_breaks_off_while_its_first_pieces_are_held_begins_anew_unseen(path):
    async with serving(slow("swift"), slow("quick"), faults=(FakeCut(part=0.2),), config=HOLD) as stage:
        answer, text, came = await stream(stage, path)
        assert answer.status_code == 200
        assert "error" not in text
        assert text.count("message_start") <= 2  # One event, with its name.
        assert " attempts=2" in text.splitlines()[-2] + text.splitlines()[-4]
        assert stage.calls == 2
        assert came == pytest.approx(3.0, abs=0.3)  # A second until the cut, and two for which the next is held.


async def test_after_that_a_stream_that_breaks_off_fails():
    async with serving(slow("swift"), slow("quick"), faults=(FakeCut(part=0.8),), config=HOLD) as stage:
        _, text, came = await stream(stage)
        assert '"error"' in text
        assert stage.calls == 1
        assert came == pytest.approx(2.0, abs=0.1)


async def test_nothing_is_held_unless_that_is_wanted():
    async with serving(slow("swift"), slow("quick"), faults=(FakeCut(part=0.2),)) as stage:
        _, text, came = await stream(stage)
        assert '"error"' in text
        assert stage.calls == 1
        assert came == pytest.approx(0.0, abs=0.2)


async def test_an_answer_that_ends_meanwhile_is_sent_at_once_and_whole():
    quick = FakeModel(name="swift", token_speed=100.0, output_tokens=50.0, price=FakePrice(input="1", output="2"))
    async with serving(quick, config=HOLD) as stage:
        _, text, came = await stream(stage)
        chunks, is_whole = said(text)
        assert len(chunks) >= 50
        assert is_whole
        assert came == pytest.approx(0.5, abs=0.1)


async def test_if_no_other_is_left_the_client_is_told_by_a_status():
    async with serving(slow("swift"), faults=(FakeCut(part=0.2),), config=HOLD) as stage:
        answer, text, _ = await stream(stage)
        assert answer.status_code == 502
        assert answer.headers["x-should-retry"] == "false"
        assert "content" not in text


async def test_each_piece_comes_once_and_in_order_over_the_end_of_the_hold():
    async with serving(slow("swift"), config=HOLD) as held, serving(slow("swift")) as plain:
        (_, with_hold, _), (_, without, _) = await stream(held), await stream(plain)
        assert [len(chunk) for chunk in said(with_hold)[0]] == [len(chunk) for chunk in said(without)[0]]


async def test_a_long_hold_is_filled_with_comments():
    config = DoorConfig(hold_first=4.0, commit_after=1.0, comment_every=1.0)
    async with serving(slow("swift"), slow("quick"), faults=(FakeCut(part=0.2),), config=config) as stage:
        answer, text, came = await stream(stage)
        assert answer.status_code == 200
        assert text.startswith(": waiting")
        assert came == pytest.approx(5.0, abs=0.3)
        assert "error" not in text


@pytest.mark.parametrize("after", [0.5, 1.5, 2.5])
async def test_a_client_that_leaves_meanwhile_ends_the_call(after):
    async with serving(slow("swift"), config=HOLD) as stage:
        asked = asyncio.create_task(stream(stage))
        await asyncio.sleep(after)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        await asyncio.sleep(1.0)
        assert stage.door.under_way == 0
        assert stage.ledger is not None


@pytest.mark.parametrize("seconds", [0, -1, float("inf")])
def test_a_hold_that_cannot_be_one_is_refused(seconds):
    with pytest.raises(ValueError, match="hold_first must be > 0 seconds and finite"):
        DoorConfig(hold_first=seconds)
