"""Tracebacks in log lines: they name places and causes, and no value of a variable, whatever the sink is."""

from __future__ import annotations

import pytest
from loguru import logger

from runtime import Actor, ActorSystem, Message, handles, logger_for

PLANTED = "sk-planted-0123456789"


class Job(Message):
    key: str


class Failing(Actor[Job]):
    @handles(Job)
    def work(self, message: Job) -> None:
        headers = {"Authorization": message.key}
        try:
            raise KeyError(len(headers["Authorization"]))
        except KeyError as error:
            raise OSError("lost\x1b[31m") from error


def fail(key: str) -> None:
    raise OSError(f"{len(key)} lost")


def failing(key: str) -> OSError:
    try:
        fail(key)
    except OSError as error:
        return error
    raise AssertionError(key)


@pytest.fixture(params=[{}, {"serialize": True}, {"colorize": True}, {"enqueue": True}], ids=str)
def written(request):
    """What a sink writes that is added as loguru's own standard sink is."""
    texts: list[str] = []
    sink = logger.add(texts.append, level=0, backtrace=True, diagnose=True, **request.param)
    yield texts
    logger.remove(sink)


async def test_a_crash_is_logged_with_its_place_and_without_values(written):
    async with ActorSystem("s") as system:
        ref = system.spawn(Failing, name="a")
        ref.tell(Job(PLANTED))
    await logger.complete()
    text = "".join(written)
    assert "s/a failed while handling Job" in text
    assert "in work" in text
    assert "KeyError: 21" in text
    assert PLANTED not in text
    assert "\x1b[31m" not in text.partition("lost")[2].partition("\n")[0]


async def test_the_logger_of_an_actor_writes_no_values_either(written):
    for log in (logger_for("a"), logger_for("a").bind(b=1), logger_for("a").opt(depth=1)):
        log.opt(exception=failing(PLANTED)).error("it failed")
    try:
        fail(PLANTED)
    except OSError:
        logger_for("a").exception("it failed")
    logger_for("a").opt(exception=True).error("nothing was raised")
    await logger.complete()
    assert "".join(written).count("in fail") >= 4
    assert PLANTED not in "".join(written)


async def test_values_are_written_if_they_are_asked_for(written, monkeypatch):
    monkeypatch.setenv("LOGURU_DIAGNOSE", "YES")
    logger_for("a").opt(exception=failing(PLANTED)).error("it failed")
    await logger.complete()
    assert PLANTED in "".join(written)


def test_a_sink_gets_the_exception_itself():
    records = []
    sink = logger.add(lambda line: records.append(line.record), level=0)
    error = failing(PLANTED)
    logger_for("a").opt(exception=error).error("it failed")
    logger.remove(sink)
    exception = records[0]["exception"]
    assert (exception.type, exception.value, exception.traceback) == (OSError, error, error.__traceback__)


def test_an_endless_traceback_is_cut_in_its_middle():
    texts: list[str] = []
    sink = logger.add(texts.append, level=0)
    logger_for("a").opt(exception=OSError("begin" + "x" * 4_000_000 + "end")).error("it failed")
    logger.remove(sink)
    assert len(texts[0]) < 25_000
    assert "begin" in texts[0]
    assert texts[0].rstrip().endswith("end")
