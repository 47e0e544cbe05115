"""Files that are cut off in the middle of a write."""

from __future__ import annotations

import asyncio
import io

import msgspec
import pytest

from runtime.simulation import FragileFile, Simulation, WriteCut, explore


class Record(msgspec.Struct):
    number: int
    text: str


async def write_until_cut(simulation: Simulation) -> tuple[bytes, int]:
    simulation.inject(WriteCut(at=5.0, file="*.journal"))
    below = io.BytesIO()
    journal = FragileFile(simulation, "run.journal", below)
    for number in range(100):
        try:
            journal.write(msgspec.json.encode(Record(number, "x" * 20)) + b"\n")
        except OSError:
            return below.getvalue(), number
        await asyncio.sleep(0.5)
    raise AssertionError("it was never cut")


def test_a_write_that_is_cut_leaves_a_beginning_and_nothing_more_is_written():
    content, failed = Simulation(3).run(write_until_cut).result
    assert failed == 10
    *whole, last = content.split(b"\n")
    assert [msgspec.json.decode(line, type=Record).number for line in whole] == list(range(10))
    assert msgspec.json.encode(Record(10, "x" * 20)).startswith(last)


async def a_reader_that_trusts_the_last_line(simulation: Simulation) -> None:
    content, failed = await write_until_cut(simulation)
    numbers = [msgspec.json.decode(line, type=Record).number for line in content.split(b"\n") if line]
    assert numbers == list(range(failed))


def test_a_reader_that_trusts_the_last_line_is_found_out():
    with pytest.raises(AssertionError, match="seed") as caught:
        explore(a_reader_that_trusts_the_last_line, seeds=range(20))
    assert isinstance(caught.value.__cause__, msgspec.DecodeError)


def test_it_goes_on_failing_and_others_are_spared():
    async def scenario(simulation: Simulation) -> None:
        simulation.inject(WriteCut(file="a"))
        first, second = (FragileFile(simulation, name, io.BytesIO()) for name in ("a", "b"))
        for _ in range(2):
            with pytest.raises(OSError, match="cut off in the middle"):
                first.write(b"abc")
        with pytest.raises(OSError, match="cut off in the middle"):
            first.flush()
        assert second.write(b"abc") == 3
        second.flush()
        assert repr(first) == "<FragileFile 'a', cut off>"

    Simulation().run(scenario)
