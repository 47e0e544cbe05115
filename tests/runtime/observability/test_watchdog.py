"""A watchdog says which handler holds the loop, and at which line; which mailboxes grow; and what the clocks did."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from runtime import Actor, ActorSystem, Message, Request, handles
from runtime.observability import ClockJumped, LoopStalled, MailboxGrows, Suspended, Watchdog, WatchdogConfig
from runtime.observability.clocks import Clocks, changes
from runtime.observability.growth import LEAST_WAITING, LOOKS, Growth
from runtime.simulation import explore

SLOW = WatchdogConfig(slow_after=0.1)
ROOT = Path(__file__).resolve().parents[3]


class Work(Message):
    seconds: float


class Ask(Request[int]):
    seconds: float


class Sleeper(Actor[Work | Ask]):
    """Stops the loop in a sync handler."""

    @handles(Work)
    def work(self, message: Work) -> None:
        time.sleep(message.seconds)  # The sync line.

    @handles(Ask)
    def asked(self, message: Ask) -> int:
        time.sleep(message.seconds)  # The asked line.
        return 1


class AsyncSleeper(Actor[Work]):
    """Stops the loop in an async handler, in a function that it calls."""

    @handles(Work)
    async def work(self, message: Work) -> None:
        await asyncio.sleep(0)
        burn(message.seconds)


def burn(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        sorted(range(100))  # The burnt line.


def line_of(comment: str) -> int:
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.endswith(f"# {comment}"))


TRIES = 10
"""On a starved machine the watchdog may sleep through a stall; in one of so many it does not."""


async def stall_of(actor: type[Actor[Any]], message: Any) -> LoopStalled:
    """Return the longest stall of an actor that handles a message, which names it."""
    found: list[LoopStalled] = []
    async with ActorSystem("s", log=False) as system, Watchdog(system, SLOW):
        system.events.subscribe(LoopStalled, found.append)
        ref = system.spawn(actor, name="a")
        for _ in range(TRIES):
            await asyncio.sleep(0.1)
            if isinstance(message, Ask):
                await ref.ask(message, timeout=5.0)
            else:
                ref.tell(message)
            await asyncio.sleep(0.2)
            if any(stall.actor for stall in found):
                break
    return max((stall for stall in found if stall.actor), key=lambda one: one.seconds)


@pytest.mark.real_time
@pytest.mark.slow
@pytest.mark.parametrize(
    ("actor", "message", "comment"),
    [
        (Sleeper, Work(0.5), "The sync line."),
        (Sleeper, Ask(0.5), "The asked line."),
        (AsyncSleeper, Work(0.5), "The burnt line."),
    ],
)
async def test_a_handler_that_stops_the_loop_is_named_with_its_line(actor, message, comment):
    stall = await stall_of(actor, message)
    assert (stall.actor, stall.message) == ("s/a", type(message).__name__)
    assert 0.3 <= stall.seconds <= 5.0
    place, line = re.fullmatch(r"(.*):(\d+) in .*", stall.place).groups()
    assert Path(place).name == "test_watchdog.py"
    assert abs(int(line) - line_of(comment)) <= 1


@pytest.mark.real_time
@pytest.mark.slow
async def test_what_stops_the_loop_outside_of_handlers_is_told_by_its_place_alone():
    found: list[LoopStalled] = []
    burnt: list[LoopStalled] = []
    async with ActorSystem("s", log=False) as system, Watchdog(system, SLOW):
        system.events.subscribe(LoopStalled, found.append)
        for _ in range(TRIES):
            await asyncio.sleep(0.1)
            burn(0.5)
            await asyncio.sleep(0.1)
            burnt = [stall for stall in found if "in burn" in stall.place]
            if burnt:
                break
    assert burnt[0].actor is None


@pytest.mark.real_time
@pytest.mark.slow
async def test_a_handler_that_never_lets_go_is_in_the_log_while_it_holds_the_loop():
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(line.record["message"]), level=0)
    during: list[str] = []

    class Endless(Actor[Work]):
        @handles(Work)
        def work(self, message: Work) -> None:
            until = time.monotonic() + 5.0
            while not lines and time.monotonic() < until:
                time.sleep(0.01)
            during.extend(lines)

    async with ActorSystem("s") as system, Watchdog(system, SLOW):
        ref = system.spawn(Endless, name="a")
        await asyncio.sleep(0.05)
        ref.tell(Work(0.0))
        await asyncio.sleep(0.1)
    logger.remove(sink)
    assert re.fullmatch(
        r"the event loop has not turned for 0\.\d\d s: s/a, handling Work, is at .*test_watchdog.py:\d+ in .*work",
        during[0],
    )


@pytest.mark.real_time
@pytest.mark.slow
async def test_the_thread_ends_with_the_block_and_nothing_is_published_after_it():
    found: list[object] = []
    async with ActorSystem("s", log=False) as system:
        system.events.subscribe(LoopStalled, found.append)
        async with Watchdog(system, SLOW) as watchdog:
            assert watchdog._thread is not None
            assert watchdog._thread.is_alive()
        assert not watchdog._thread.is_alive()
        burn(0.3)
        await asyncio.sleep(0.05)
    assert found == []


def test_it_adds_no_call_to_a_handler():
    """Counted: a thousand messages make as many calls on the loop with a watchdog as without."""

    class Quiet(Actor[Work]):
        @handles(Work)
        def work(self, message: Work) -> None:
            pass

    async def calls(*, watched: bool) -> int:
        count = 0

        def profile(_frame: Any, event: str, _argument: object) -> None:
            nonlocal count
            count += event == "call"

        async with ActorSystem("s", log=False) as system:
            watchdog = Watchdog(system, WatchdogConfig(slow_after=3600.0))
            if watched:
                await watchdog.__aenter__()
            ref = system.spawn(Quiet)
            await asyncio.sleep(0)
            sys.setprofile(profile)
            for _ in range(1_000):
                ref.tell(Work(0.0))
            await asyncio.sleep(0)
            sys.setprofile(None)
            if watched:
                await watchdog.__aexit__(None, None, None)
        return count

    # The thread may ask the loop for a sign of life meanwhile.
    assert (
        asyncio.run(calls(watched=True)) <= asyncio.run(calls(watched=False)) + 200
    )  # Its own beats, of which there are more on a busy machine.


async def watched(_: Any) -> None:
    async with ActorSystem("s", log=False) as system, Watchdog(system) as watchdog:
        system.spawn(Sleeper)
        assert watchdog._thread is None
        await asyncio.sleep(3600.0)


def test_in_a_simulation_it_has_no_thread():
    explore(watched, seeds=range(1), processes=1)


# Clocks.


@pytest.mark.parametrize(
    ("wall", "awake", "elapsed", "found"),
    [
        (1.0, 1.0, 1.0, []),
        (1.5, 1.0, 1.0, []),
        (3601.0, 1.0, 1.0, [ClockJumped(seconds=3600.0)]),
        (-3599.0, 1.0, 1.0, [ClockJumped(seconds=-3600.0)]),
        (3601.0, 1.0, 3601.0, [Suspended(seconds=3600.0)]),
        (1.0, 1.0, 3601.0, [Suspended(seconds=3600.0), ClockJumped(seconds=-3600.0)]),
        (600.0, 600.0, 600.0, []),  # The loop was held for ten minutes: no clock did anything.
    ],
)
def test_a_jump_is_told_from_a_sleep(wall, awake, elapsed, found):
    assert changes(Clocks(0.0, 0.0, 0.0), Clocks(wall, awake, elapsed)) == found


def test_the_clocks_of_this_machine_go_on_together():
    before = Clocks.now()
    assert changes(before, Clocks.now()) == []


# Mailboxes.


class Stuck(Actor[Work]):
    @handles(Work)
    async def work(self, message: Work) -> None:
        await asyncio.Event().wait()


async def test_a_mailbox_that_grows_with_each_look_is_told_once_until_it_has_shrunk():
    growth, told = Growth(), list[MailboxGrows]()
    async with ActorSystem("s", log=False) as system:
        stuck, full = system.spawn(Stuck, name="stuck"), system.spawn(Stuck, name="full")
        for _ in range(500):
            full.tell(Work(0.0))
        for _ in range(3 * LOOKS):
            for _ in range(LEAST_WAITING):
                stuck.tell(Work(0.0))
            await asyncio.sleep(0)
            told += growth.look(system.children.values())
        stuck.kill()
        full.kill()
    assert [(one.actor, one.capacity) for one in told] == [("s/stuck", 10_000)]
    assert told[0].waiting >= LEAST_WAITING * LOOKS - 1


async def test_ten_thousand_actors_are_looked_at_in_slices_and_what_has_ended_is_forgotten():
    growth = Growth()
    async with ActorSystem("s", log=False) as system:
        refs = [system.spawn(Stuck) for _ in range(3_000)]
        await asyncio.sleep(0)
        for ref in refs:
            ref.tell(Work(0.0))
            ref.tell(Work(0.0))
        await asyncio.sleep(0)
        list(growth.look(system.children.values()))
        assert len(growth._next) == 1_000
        for _ in range(2):
            list(growth.look(system.children.values()))
        assert len(growth._next) == 3_000
        for ref in refs:
            ref.kill()
        for _ in range(10):
            await asyncio.sleep(0)
            list(growth.look(system.children.values()))
        assert growth._next == growth._seen == {}


@pytest.mark.parametrize("bad", [{"slow_after": 0.0}, {"slow_after": float("nan")}, {"look_every": 0.0}])
def test_a_configuration_that_cannot_be_is_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        WatchdogConfig(**bad)


def test_one_file_looks_at_the_frames_of_other_threads():
    using = [
        path.name
        for package in ("runtime", "actors")
        for path in (ROOT / package).rglob("*.py")
        if "sys._current_frames()" in path.read_text(encoding="utf-8")
    ]
    assert using == ["stack.py"]
