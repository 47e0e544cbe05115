"""A process that is killed at any moment leaves a journal that is whole, with all that it was told is written."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.persistence import SqliteJournal, owner_of
from tests.durable.writer_program import line
from tests.proofs import repeated

PROGRAM = Path(__file__).with_name("writer_program.py")


@pytest.mark.slow
@pytest.mark.real_time
def test_what_was_said_to_be_written_is_there_whenever_the_process_is_killed(tmp_path: Path) -> None:
    dice, path, told = random.Random(17), tmp_path / "run.journal", 0
    environment = {**os.environ, "PYTHONPATH": str(PROGRAM.parents[2])}
    times = repeated(200)
    for _ in range(times if times == 200 else 6):  # Each starts a process, which takes a third of a second.
        safety, count = dice.choice(["process", "power"]), int(dice.expovariate(1 / 30))
        with subprocess.Popen(
            [sys.executable, PROGRAM, path, safety], stdout=subprocess.PIPE, env=environment
        ) as process:
            assert process.stdout is not None
            for _ in range(count):
                told = int(process.stdout.readline())
            os.kill(process.pid, signal.SIGKILL)
            # What it said before it was killed counts too; a line that was cut off does not.
            for said in process.stdout:
                told = int(said) if said.endswith(b"\n") else told
        assert owner_of(path) is None
        check(path, told)


def check(path: Path, told: int) -> None:
    """Make sure that a journal has all that it was told is written, no half of it, and what belongs together."""
    if not path.exists():
        assert not told
        return
    journal = SqliteJournal(path)
    snapshot = journal.snapshot()
    begin = 0 if snapshot is None else snapshot.number
    assert list(journal.replay()) == [line(number) for number in range(1, journal.number + 1)]
    assert journal.number >= told
    assert journal.number % 7 == 0
    assert begin == journal.number // 91 * 91
    for number in range(7, journal.number + 1, 7 * max(1, journal.number // 700)):
        found = journal.find("shop", f"order {number}")
        assert found is not None
        assert (found.head, found.body) == (b"%d" % number, line(number) * 20)
    assert journal.find("shop", f"order {journal.number + 7}") is None
    journal.close()
