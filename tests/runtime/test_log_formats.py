"""Where the lines of a system go, and that no text in them acts on a terminal or passes for another line."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest
from loguru import logger

from runtime import Actor, ActorSystem, Message, handles, logger_for
from runtime.log_text import MAX_ERRORS, harmless, short_traceback
from runtime.testing import until_idle

HOSTILE = [
    "two\nlines",
    "return\rover",
    "\x1b[31mred\x1b[0m",
    "\x1b]8;;http://evil/\x07link\x1b]8;;\x07",
    "\x9b2J",
    "bell\x07",
    "\u202egnp.exe",
    "\u2028separate\u2029",
    "zero\u200bwidth",
    "nul\x00",
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "<red>tag</red>",
    "[bold]rich[/bold]",
    "{0} {message} {actor}",
    "%s %(message)s",
    "\ud800 lone",
    '"}\n{"level":"FORGED"',
    "2026-01-01 | ERROR | forged",
    "x" * 100_000,
]


class Job(Message):
    text: str


class Talking(Actor[Job]):
    @handles(Job)
    def work(self, message: Job) -> None:
        self.context.log.bind(provider=message.text).warning("said {}", message.text)


class Failing(Actor[Job]):
    @handles(Job)
    def work(self, message: Job) -> None:
        raise OSError(message.text)


async def lines_of(actor: type[Actor[Job]], text: str, log: Any) -> None:
    async with ActorSystem("s", log=log) as system:
        system.spawn(actor, name="a").tell(Job(text))
        await until_idle(system)


@pytest.mark.parametrize("actor", [Talking, Failing])
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
async def test_a_hostile_text_is_one_harmless_line_of_json(actor, text, capsys):
    await lines_of(actor, text, "json")
    written = capsys.readouterr().err
    lines = written.splitlines()
    assert written.replace("\n", "").isprintable()
    assert "<" not in written
    assert len(written) < 50_000
    for line in map(json.loads, lines):
        assert line["actor"] == "s/a"
        assert line["logger"].endswith(actor.__name__)
        assert line["level"] != "FORGED"
    assert len(lines) == {Talking: 1, Failing: 2}[actor], lines


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
async def test_a_hostile_text_is_one_harmless_line_of_text(text):
    lines: list[str] = []
    sink = logger.add(lines.append, level=0, colorize=False, format="{message} {extra[provider]}")
    await lines_of(Talking, text, log=True)
    logger.remove(sink)
    (line,) = lines
    assert line.endswith("\n")
    assert line[:-1].isprintable()


async def test_the_lines_of_a_system_go_to_logging_by_the_class_of_the_actor(caplog):
    caplog.set_level(logging.DEBUG)
    elsewhere: list[str] = []
    sink = logger.add(elsewhere.append, level=0)
    async with ActorSystem("s", log="logging") as system:
        for number in range(100):
            system.spawn(Talking, name=f"a{number}").tell(Job("hello"))
        system.spawn(Failing, name="b").tell(Job("lost"))
        await until_idle(system)
    logger.remove(sink)
    assert elsewhere == []
    told = [one for one in caplog.records if one.getMessage() == "said hello"]
    assert len(told) == 100
    assert {one.name.rpartition(".")[2] for one in told} == {"Talking"}
    assert {one.__dict__["actor"] for one in told} == {f"s/a{number}" for number in range(100)}
    assert told[0].__dict__["fields"]["provider"] == "hello"
    assert told[0].levelno == logging.WARNING
    (failed,) = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert "OSError: lost" in logging.Formatter().format(failed)


async def test_a_line_of_a_handler_without_a_context_goes_where_those_of_its_system_go(capsys):
    class Plain(Actor[Job]):
        @handles(Job)
        async def work(self, message: Job) -> None:
            logger_for("beside").info("beside the actor")

    await lines_of(Plain, "x", "json")
    (line,) = map(json.loads, capsys.readouterr().err.splitlines())
    assert (line["actor"], line["message"]) == ("beside", "beside the actor")


async def test_two_systems_write_each_in_its_own_way(capsys, caplog):
    async with ActorSystem("one", log="json") as one, ActorSystem("two", log="logging") as two:
        for system in (one, two):
            system.spawn(Talking, name="a").tell(Job(system.name))
            await until_idle(system)
    (line,) = map(json.loads, capsys.readouterr().err.splitlines())
    assert line["message"] == "said one"
    assert [record.getMessage() for record in caplog.records] == ["said two"]


def test_an_unknown_format_is_refused():
    with pytest.raises(ValueError, match="log must be True, False, 'json' or 'logging', got 'xml'"):
        ActorSystem(log="xml")  # type: ignore[arg-type]


async def test_without_lines_no_function_of_the_log_is_called():
    called: set[str] = set()

    def profile(frame: Any, _event: str, _argument: object) -> None:
        name = frame.f_globals.get("__name__", "")
        if name.startswith(("loguru", "runtime.log", "logging")):
            called.add(f"{name}.{frame.f_code.co_name}")

    async with ActorSystem("s", log=False) as system:
        ref = system.spawn(Failing, name="a")
        sys.setprofile(profile)
        try:
            ref.tell(Job("lost"))
            await until_idle(system)
        finally:
            sys.setprofile(None)
    assert called == set()


# Tracebacks.


def deep(depth: int) -> None:
    if depth:
        deep(depth - 1)
    json.loads("{broken")


def test_the_programs_own_frames_come_before_the_one_that_raised():
    try:
        deep(50)
    except ValueError as error:
        text = short_traceback(error)
    lines = text.splitlines()
    assert lines[0].startswith("JSONDecodeError: ")
    assert lines[1].endswith("in deep")
    assert lines[-1].endswith("frames more)")
    assert lines[-3].endswith("in raw_decode")
    assert len(lines) < 20


def test_a_group_a_chain_and_a_circle_of_errors_are_shown_once_and_not_endlessly():
    first, second = OSError("first\x1b[2J"), ValueError("second")
    first.__cause__, second.__context__ = second, first
    text = short_traceback(ExceptionGroup("all", [first, *(KeyError(number) for number in range(1_000))]))
    assert text.count("second") == 1
    assert "in the group: OSError: first\\x1b[2J" in text
    assert "caused by ValueError: second" in text
    assert text.count("KeyError") <= MAX_ERRORS
    assert text.replace("\n", "").isprintable()


def test_an_error_that_cannot_be_shown_spoils_no_line():
    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert "cannot be read" in short_traceback(Odd())


def test_a_line_of_any_text_is_printable():
    for text in HOSTILE:
        assert harmless(text).isprintable()
        assert len(harmless(text)) <= 11_000
