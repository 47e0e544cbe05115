from __future__ import annotations

import asyncio
import calendar
import gc
import inspect
import logging
import multiprocessing
import os
import random
import secrets
import socket
import subprocess
import threading
import time
import uuid
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest
from loguru import logger

from runtime import Actor, ActorSystem, Message, handles, run_in_process, run_in_thread
from runtime.simulation import NotSimulated, Simulation
from runtime.simulation.surroundings import EPOCH, HASHED_BY_ADDRESS
from tests.real_time import GUARD


def nothing() -> None:
    pass


async def get_page() -> None:
    async with httpx.AsyncClient() as client:
        await client.get("http://127.0.0.1:9/")


def executor() -> Any:
    return asyncio.get_running_loop().run_in_executor(None, nothing)


# Lambdas, because what is refused is what a name stands for within the run.
WAYS_OUT = {
    "a socket": lambda: socket.socket(),
    "socket.socketpair": lambda: socket.socketpair(),
    "socket.getaddrinfo": lambda: socket.create_connection(("127.0.0.1", 9)),
    "socket.gethostbyname": lambda: socket.gethostbyname("localhost"),
    "loop.create_connection": lambda: asyncio.open_connection("127.0.0.1", 9),
    "loop.create_connection ": get_page,
    "loop.create_connection  ": lambda: anyio.connect_tcp("127.0.0.1", 9),
    "loop.create_server": lambda: asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0),
    "loop.getaddrinfo": lambda: asyncio.get_running_loop().getaddrinfo("localhost", 80),
    "loop.add_reader": lambda: asyncio.get_running_loop().add_reader(0, nothing),
    "loop.add_signal_handler": lambda: asyncio.get_running_loop().add_signal_handler(2, nothing),
    "a thread": lambda: threading.Thread(target=nothing).start(),
    "a thread for nothing": executor,
    "a thread for nothing ": lambda: asyncio.to_thread(nothing),
    "a thread ": lambda: anyio.to_thread.run_sync(nothing),
    "a thread  ": lambda: run_in_thread(nothing),
    "a subprocess": lambda: subprocess.run(["true"], check=True),
    "a process": lambda: multiprocessing.get_context("fork").Process(target=nothing).start(),
    "a process ": lambda: multiprocessing.get_context("spawn").Process(target=nothing).start(),
    "os.system": lambda: os.system("true"),
    "os.fork": lambda: os.fork(),
    "os.forkpty": lambda: os.forkpty(),
    "os.posix_spawn": lambda: os.posix_spawn("/bin/true", ["true"], {}),
    "loop.subprocess_exec": lambda: asyncio.create_subprocess_exec("true"),
    "loop.subprocess_shell": lambda: asyncio.create_subprocess_shell("true"),
    "loop.subprocess_exec ": lambda: run_in_process(nothing),
    "time.sleep": lambda: time.sleep(0),
}


@pytest.mark.parametrize("name", WAYS_OUT)
def test_a_way_out_is_refused_and_the_run_fails_although_the_program_swallows_the_error(name: str) -> None:
    raised: list[BaseException] = []

    async def scenario() -> None:
        try:
            outcome = WAYS_OUT[name]()
            if inspect.isawaitable(outcome):
                await outcome
        except Exception as error:
            raised.append(error)

    files = os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd") else []
    with pytest.raises(NotSimulated) as caught:
        Simulation().run(scenario)
    assert str(caught.value).startswith(f"{name.strip()} does not exist in virtual time; ")
    assert raised
    if files:
        assert len(os.listdir("/proc/self/fd")) == len(files)


def test_a_refused_call_says_what_to_use_instead() -> None:
    async def scenario() -> None:
        time.sleep(1)

    with pytest.raises(NotSimulated, match=r"time\.sleep does not exist in virtual time; await asyncio\.sleep"):
        Simulation().run(scenario)


def attributes() -> dict[tuple[str, str], Any]:
    """Return everything of the modules and classes that a simulation touches."""
    owners = (
        time,
        socket,
        socket.socket,
        os,
        subprocess.Popen,
        threading.Thread,
        random,
        random.Random,
        multiprocessing.process.BaseProcess,
        *HASHED_BY_ADDRESS,
    )
    return {(repr(owner), name): value for owner in owners for name, value in vars(owner).items()}


async def ends_well() -> None:
    await asyncio.sleep(1)


async def raises() -> None:
    raise ValueError("no")


async def exits() -> None:
    raise SystemExit(3)


async def interrupts() -> None:
    raise KeyboardInterrupt


async def stalls() -> None:
    await asyncio.Event().wait()


async def leaves() -> None:
    simulation_tasks.append(asyncio.create_task(asyncio.sleep(9)))


async def seeds_anew() -> None:
    random.seed(1)


simulation_tasks: list[Any] = []


@pytest.mark.parametrize("scenario", [ends_well, raises, exits, interrupts, stalls, leaves, seeds_anew, nothing])
@pytest.mark.parametrize("collects", [True, False])
def test_everything_is_put_back_however_the_run_ends(scenario: Any, collects: bool) -> None:
    before, state, descriptors = attributes(), random.getstate(), os.listdir("/proc/self/fd")
    was_enabled = gc.isenabled()
    try:
        (gc.enable if collects else gc.disable)()
        notes: list[str] = ["seed 0"]
        try:
            Simulation().run(scenario)
        except BaseException as error:
            notes = error.__notes__
        assert any("seed 0" in note for note in notes)
        assert gc.isenabled() is collects
    finally:
        (gc.enable if was_enabled else gc.disable)()
        simulation_tasks.clear()
    after = attributes()
    assert {key for key in before | after if before.get(key) is not after.get(key)} == set()
    assert random.getstate() == state
    assert len(os.listdir("/proc/self/fd")) == len(descriptors)


def test_the_garbage_collector_rests_during_the_run() -> None:
    async def scenario() -> bool:
        return gc.isenabled()

    assert Simulation().run(scenario).result is False


async def draws() -> tuple[Any, ...]:
    random.seed()
    return (
        random.random(),
        random.Random().random(),
        random.SystemRandom().random(),
        uuid.uuid4(),
        os.urandom(8),
        secrets.token_hex(8),
    )


def test_all_randomness_comes_from_the_seed() -> None:
    first, again, other = (Simulation(seed).run(draws).result for seed in (1, 1, 2))
    assert first == again
    assert all(one != two for one, two in zip(first, other, strict=True))
    assert len(set(map(str, first))) == len(first)


def test_all_clocks_show_virtual_time() -> None:
    async def scenario() -> tuple[float, ...]:
        await asyncio.sleep(90)
        return (
            time.time() - EPOCH,
            time.time_ns() / 1e9 - EPOCH,
            time.monotonic(),
            time.monotonic_ns() / 1e9,
            time.perf_counter(),
            time.perf_counter_ns() / 1e9,
            calendar.timegm(time.gmtime()) - EPOCH,
            time.mktime(time.localtime()) - EPOCH,
            time.mktime(time.strptime(time.ctime())) - EPOCH,
            time.mktime(time.strptime(time.asctime())) - EPOCH,
            time.mktime(time.strptime(time.strftime("%Y-%m-%d %H:%M:%S"), "%Y-%m-%d %H:%M:%S")) - EPOCH,
            asyncio.get_running_loop().time(),
        )

    assert Simulation().run(scenario).result == pytest.approx((90.0,) * 12)
    assert time.gmtime(0).tm_year == 1970


def test_log_lines_bear_virtual_time_and_none_are_written_where_they_are_not_wanted() -> None:
    lines: list[Any] = []
    sink = logger.add(lambda line: lines.append(line.record["time"].timestamp()))

    async def scenario() -> None:
        await asyncio.sleep(60)
        logger.info("one")

    try:
        Simulation().run(scenario)
        Simulation(logs=False).run(scenario)
        assert lines == [EPOCH + 60]
        logger.info("real again")
        assert abs(lines[1] - time.time()) < 3600
    finally:
        logger.remove(sink)


def test_another_thread_keeps_real_time_real_randomness_and_its_ways_out() -> None:
    asked, answered = threading.Event(), threading.Event()
    seen: list[Any] = []

    def other() -> None:
        asked.wait(GUARD)
        time.sleep(0)
        socket.socket().close()
        seen.extend((time.time(), os.urandom(8), random.Random().random()))
        answered.set()

    thread = threading.Thread(target=other)
    thread.start()

    async def scenario() -> None:
        asked.set()
        assert answered.wait(GUARD)

    real = time.time()
    Simulation().run(scenario)
    thread.join()
    assert abs(seen[0] - real) < 3600


def test_a_second_simulation_at_the_same_time_is_refused() -> None:
    errors: list[BaseException] = []
    go, gone = threading.Event(), threading.Event()

    def other() -> None:
        go.wait(GUARD)
        try:
            Simulation().run(ends_well)
        except BaseException as error:
            errors.append(error)
        gone.set()

    thread = threading.Thread(target=other)
    thread.start()

    async def scenario() -> None:
        go.set()
        assert gone.wait(GUARD)

    Simulation().run(scenario)
    thread.join()
    assert "run one at a time" in str(errors[0])


class Ping(Message):
    pass


class Sleeper(Actor):
    @handles(Ping)
    async def ping(self, message: Ping) -> None:
        await run_in_thread(nothing)


def test_an_actor_that_crashes_on_a_refused_call_fails_the_run() -> None:
    async def scenario() -> None:
        async with ActorSystem("threads", log=False) as system:
            system.spawn(Sleeper).tell(Ping())
            await asyncio.sleep(1)

    with pytest.raises(NotSimulated, match="a thread does not exist"):
        Simulation().run(scenario)


def test_a_clock_is_no_method_of_a_class_that_has_it_as_an_attribute() -> None:
    async def scenario() -> str:
        class Formatter(logging.Formatter):
            converter = time.gmtime

        await asyncio.sleep(90)
        record = logging.LogRecord("x", logging.INFO, "x.py", 1, "hello", None, None)
        return Formatter("%(asctime)s %(message)s", "%H:%M").format(record)

    assert Simulation().run(scenario).result.endswith("hello")
