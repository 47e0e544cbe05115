"""A process that is killed between a handle and its answer takes the call up in its next life, at one charge."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sqlite3
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest

from actors.fake import FakeConfig, FakeModel, FakePrice, fake_server
from tests.proofs import repeated

PROGRAM = Path(__file__).with_name("background_program.py")
LATENCY = 1.0
"""Seconds that a response of the fake takes."""


async def begin(*arguments: str) -> asyncio.subprocess.Process:
    environment = {**os.environ, "PYTHONPATH": str(PROGRAM.parents[2])}
    return await asyncio.create_subprocess_exec(
        sys.executable, PROGRAM, *arguments, stdout=asyncio.subprocess.PIPE, env=environment
    )


async def let_run(process: asyncio.subprocess.Process, seconds: float) -> None:
    """Let a process go on for so long."""
    with suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), seconds)


def handles_in(path: Path) -> int:
    """Count the handles that are written in a journal, which may be in use."""
    found = 0
    with suppress(sqlite3.OperationalError), closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as file:
        (found,) = file.execute("SELECT count(*) FROM entries WHERE instr(content, 'HandleNoted')").fetchone()
    return found


@pytest.mark.slow
@pytest.mark.real_time
async def test_what_a_killed_program_left_in_the_background_is_fetched_at_its_next_start(tmp_path: Path) -> None:
    dice, path = random.Random(18), tmp_path / "money.journal"
    model = FakeModel(name="m", price=FakePrice(input="1", output="4"), latency=LATENCY, output_tokens=20.0)
    async with fake_server(FakeConfig(models=(model,))) as server:
        for number in range(1, repeated(20, part=20) + 1):
            reached = (f"{server.url}/v1", str(path))
            first = await begin(*reached, f"order {number}")
            while handles_in(path) < number:
                await let_run(first, 0.01)
            await let_run(first, dice.uniform(0.0, 0.9 * LATENCY))
            first.kill()
            await first.wait()
            told = []
            for key in ((), (f"order {number}",)):
                said, _ = await (await begin(*reached, *key)).communicate()
                told.append(json.loads(said))
            charged = sum(-int(-one.charged * 1_000_000 // 1) for one in server.books.lines)
            assert [(one["settled"], one["held"]) for one in told] == [(charged, 0)] * 2
            assert (told[1]["output"]["status"], len(server.books.lines)) == ("completed", number)


@pytest.mark.slow
@pytest.mark.real_time
async def test_a_response_of_the_background_is_paid_once_whatever_is_killed(tmp_path: Path) -> None:
    dice, path = random.Random(17), tmp_path / "money.journal"
    model = FakeModel(name="m", price=FakePrice(input="1", output="4"), latency=LATENCY, output_tokens=20.0)
    times = repeated(100, part=100)  # Each starts two processes, which take a second each.
    async with fake_server(FakeConfig(models=(model,))) as server:
        for number in range(1, times + 1):
            arguments = (f"{server.url}/v1", str(path), f"order {number}")
            first = await begin(*arguments)
            while handles_in(path) < number:
                await let_run(first, 0.01)
            await let_run(first, dice.uniform(0.0, 0.9 * LATENCY))
            first.kill()
            await first.wait()
            second = await begin(*arguments)
            said, _ = await second.communicate()
            told = json.loads(said)
            lines = server.books.lines
            assert (told["output"]["status"], len(lines)) == ("completed", number)
            charged = sum(-int(-one.charged * 1_000_000 // 1) for one in lines)
            assert (told["settled"], told["held"]) == (charged, 0)
