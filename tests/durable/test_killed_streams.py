"""A process that is killed in mid-stream has booked the stream at its next start, and never buys it again."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from actors.fake import FakeConfig, FakeModel, FakePrice, fake_server
from tests.proofs import repeated

PROGRAM = Path(__file__).with_name("stream_program.py")
PIECES = 40
MOST = 5
"""The pieces after which it is killed at the latest: the others take some two seconds."""


async def life(*arguments: str, killed_after: int | None = None) -> list[dict[str, Any]]:
    """Run the program, and kill it when it has told so many pieces; return what it said."""
    environment = {**os.environ, "PYTHONPATH": str(PROGRAM.parents[2])}
    process = await asyncio.create_subprocess_exec(
        sys.executable, PROGRAM, *arguments, stdout=asyncio.subprocess.PIPE, env=environment
    )
    assert process.stdout is not None
    said: list[dict[str, Any]] = []
    async for line in process.stdout:
        if line.endswith(b"\n"):  # What was cut off does not count.
            said.append(json.loads(line))
        if len(said) == killed_after:
            process.kill()
    await process.wait()
    return said


@pytest.mark.slow
@pytest.mark.real_time
async def test_a_stream_is_bought_once_whenever_the_process_is_killed(tmp_path: Path) -> None:
    dice, path = random.Random(17), tmp_path / "money.journal"
    model = FakeModel(name="m", price=FakePrice(input="1", output="4"), token_speed=20.0, output_tokens=float(PIECES))
    bound = 0
    async with fake_server(FakeConfig(models=(model,))) as server:
        for number in range(1, repeated(100, part=100) + 1):
            arguments = (f"{server.url}/v1", str(path), f"order {number}")
            first = await life(*arguments, killed_after=dice.randint(1, MOST))
            assert all(one.keys() == {"piece"} for one in first)
            for _ in range(2):
                *pieces, end, figures = await life(*arguments)
                assert pieces == []
                assert (end["cut"], end["may_cost"]) == ("", 0)
                assert end["cost"] > 0
            bound += end["cost"]
            assert figures == {"settled": bound, "estimated": bound, "held": 0}
            charged = sum(-int(-one.charged * 1_000_000 // 1) for one in server.books.lines)
            assert len(server.books.lines) == number
            assert charged <= bound
