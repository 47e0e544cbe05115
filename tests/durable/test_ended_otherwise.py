"""A run that is interrupted, whose disk is full or whose power fails goes on as exactly as one that was killed."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.durable.kept_run import kept_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.durable.kept_run import KeptRun

REQUESTS = 12
PRICE = 10_000


def signalled(*numbers: signal.Signals, codes: set[int]) -> Callable[[KeptRun], None]:
    def harm(run: KeptRun) -> None:
        with run.start() as process:
            run.wait_for(process, 4)
            for number in numbers:
                process.send_signal(number)
            assert process.wait(60) in codes

    return harm


def fill_disk(run: KeptRun) -> None:
    """Let no file become larger than 200 blocks of 512 bytes, which the journal's log does with the third item."""
    with run.start(first="ulimit -f 200") as process:
        _, told = process.communicate()
        assert process.returncode == 1
        assert b"Traceback" not in told
    assert run.report["ending"] == "failed"
    assert run.report["lost"] == []


def close_standard_error(run: KeptRun) -> None:
    with run.start(is_quiet=False) as process:
        assert process.stderr is not None
        process.stderr.close()
        assert process.wait(60) == 0


def cut_power(run: KeptRun) -> None:
    """Leave a write that was cut off at the end of the log, as a disk without power does."""
    log = run.folder / "results.jsonl.journal-wal"
    run.kill_after(5, 0.05)
    with log.open("ab") as file:
        file.write(log.read_bytes()[-2_000:])


def own_twice(run: KeptRun) -> None:
    with run.start() as first:
        run.wait_for(first, 2)
        first.send_signal(signal.SIGSTOP)
        with run.start() as second:
            _, told = second.communicate()
        first.send_signal(signal.SIGCONT)
        assert second.returncode == 2
        assert b"by another run" in told or b"in use by process" in told
        assert first.wait(60) == 0


# Each takes three processes, and some seconds; what is also tested without going on is left to the night.
@pytest.mark.slow
@pytest.mark.real_time
@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(signalled(signal.SIGTERM, codes={143}), id="SIGTERM", marks=pytest.mark.nightly),
        pytest.param(signalled(signal.SIGHUP, codes={129}), id="SIGHUP", marks=pytest.mark.nightly),
        pytest.param(
            signalled(signal.SIGINT, signal.SIGINT, codes={130, -signal.SIGINT}),
            id="SIGINT twice",
            marks=pytest.mark.nightly,
        ),
        pytest.param(fill_disk, id="disk full"),
        pytest.param(close_standard_error, id="standard error gone", marks=pytest.mark.nightly),
        pytest.param(cut_power, id="power cut"),
        pytest.param(own_twice, id="two owners", marks=pytest.mark.nightly),
    ],
)
def test_however_a_run_has_ended_it_goes_on_and_pays_for_nothing_twice(
    tmp_path: Path, harm: Callable[[KeptRun], None]
) -> None:
    with kept_run(tmp_path, honours=True, requests=REQUESTS) as run:
        harm(run)
        assert run.finish() == 0
        assert run.check() == {"done": REQUESTS}
        assert run.charged == REQUESTS * PRICE
        assert (run.report["spent"], run.report["in_doubt"]) == (f"{REQUESTS / 100:.2f}", "0.00")
