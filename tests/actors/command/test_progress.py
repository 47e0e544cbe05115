"""Progress and the engine's log, each in the form that suits where it goes."""

from __future__ import annotations

import asyncio
import io

import pytest
from rich.console import Console

from actors.command.progress import LiveProgress, NoProgress, PlainProgress, choose_progress, logging_to, ticking
from actors.command.report import RunTally
from runtime import logger_for


@pytest.fixture
def tally() -> RunTally:
    return RunTally(requests=100, prices={"alder": 1_000}, started=0.0)


async def test_plain_lines_come_every_two_seconds_while_there_is_news_and_at_the_end(tally):
    lines: list[str] = []
    async with ticking(PlainProgress(lines.append), tally):
        for _ in range(10):
            await asyncio.sleep(0.5)
            tally.count("done")
        await asyncio.sleep(60.0)
        tally.count("failed")
    assert [line.split(",")[0] for line in lines] == [
        "0.0 s: 0/100",
        "2.0 s: 3/100",
        "4.0 s: 7/100",
        "6.0 s: 10/100",
        "65.0 s: 11/100",
    ]
    assert all(line.endswith("alder closed\n") for line in lines)


async def test_the_pace_and_the_time_left_follow_the_last_ten_seconds(tally):
    lines: list[str] = []
    tally.note_before("done")
    async with ticking(PlainProgress(lines.append), tally):
        for _ in range(20):
            await asyncio.sleep(0.5)
            tally.count("done")
        await asyncio.sleep(3600.0)
        for _ in range(20):
            await asyncio.sleep(1.0)
            tally.count("done")
        # The run stands still, and nothing is said of its end.
        await asyncio.sleep(60.0)
        tally.count("done")
    told = [line.split(": ", 1)[1].split(", ")[:3] for line in lines]
    assert told[4] == ["16/100", "1.9/s", "about 45 s left"]
    assert told[-2][1] in {"0.9/s", "1.0/s", "1.1/s"}
    assert told[-1][1] == "0.1/s"
    tally.look(10_000.0)
    tally.look(10_020.0)
    assert tally.seconds_left is None


async def test_the_ticker_ends_with_its_block(tally):
    with pytest.raises(ValueError, match="stop"):
        async with ticking(NoProgress(), tally):
            raise ValueError("stop")
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_a_terminal_gets_a_live_display_and_its_cursor_back(tally, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")  # One whose cursor can move; "dumb" gets plain lines.
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    progress = choose_progress(console, quiet=False, alone=True)
    assert isinstance(progress, LiveProgress)
    progress.show(tally, now=1.0)
    progress.note("a [bold]note[/bold]")
    progress.close()
    progress.close()
    text = console.file.getvalue()
    assert "0/100" in text
    assert "a [bold]note[/bold]" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


@pytest.mark.parametrize(("terminal", "alone"), [(False, True), (True, False)])
def test_elsewhere_and_beside_results_there_are_plain_lines(terminal, alone):
    console = Console(file=io.StringIO(), force_terminal=terminal)
    assert isinstance(choose_progress(console, quiet=False, alone=alone), PlainProgress)


def test_quiet_shows_nothing_but_errors(tally, capsys):
    progress = choose_progress(Console(file=io.StringIO()), quiet=True, alone=True)
    progress.show(tally, now=1.0)
    progress.note("a note")
    log = logger_for("x")
    with logging_to(progress, is_stopping=lambda: False):
        log.warning("a warning")
        log.error("an error")
    assert capsys.readouterr() == ("", "error: an error\n")


def test_the_log_becomes_notes_of_one_line_each():
    lines: list[str] = []
    log = logger_for("x")
    stopping = False
    with logging_to(PlainProgress(lines.append), is_stopping=lambda: stopping):
        log.info("unseen")
        log.warning("dead letter {}", 1)
        try:
            raise KeyError("k")
        except KeyError as error:
            log.opt(exception=error).error("it failed")
        stopping = True
        log.warning("cut off")
        log.error("still an error")
    log.warning("after the block")
    assert lines == ["warning: dead letter 1\n", "error: it failed: KeyError: 'k'\n", "error: still an error\n"]
