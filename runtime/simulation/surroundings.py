"""Replace the clocks and the randomness of the process during a run, and refuse every call that reaches out of it.

Everything is put back at the end. Other threads than the simulating one see no difference. A name imported before the
run (`from time import sleep`) keeps its meaning: call `time.sleep`, or better take time from the loop.
"""

from __future__ import annotations

import asyncio
import multiprocessing.process
import os
import random
import socket
import subprocess
import threading
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

from anyio._backends._asyncio import CancelScope

from runtime.log import log_lines
from runtime.simulation.errors import USE_TRANSPORT, NotSimulated, SimulationError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

EPOCH = 1_767_225_600.0
"""The date at which every run begins, in seconds since 1970: 2026-01-01, 00:00 UTC."""

USE_FUNCTION = "give your code the function that does it, and simulate that function"
USE_SLEEP = "await asyncio.sleep, which takes virtual time and no real one"
USE_ACTOR = "an actor or a task runs beside the others without a thread"


class WayOut(NamedTuple):
    """A call that reaches out of a simulation: the attribute it is, its name in messages, and what to use instead."""

    owner: Any
    name: str
    call: str
    instead: str


WAYS_OUT = (
    WayOut(time, "sleep", "time.sleep", USE_SLEEP),
    WayOut(threading.Thread, "start", "a thread", USE_ACTOR),
    WayOut(socket.socket, "__init__", "a socket", USE_TRANSPORT),
    WayOut(socket, "socketpair", "socket.socketpair", USE_TRANSPORT),
    WayOut(socket, "getaddrinfo", "socket.getaddrinfo", USE_TRANSPORT),
    WayOut(socket, "gethostbyname", "socket.gethostbyname", USE_TRANSPORT),
    WayOut(subprocess.Popen, "__init__", "a subprocess", USE_FUNCTION),
    WayOut(multiprocessing.process.BaseProcess, "start", "a process", USE_FUNCTION),
    *(
        WayOut(os, name, f"os.{name}", USE_FUNCTION)
        for name in ("system", "fork", "forkpty", "posix_spawn", "posix_spawnp")
        if hasattr(os, name)
    ),
)

HASHED_BY_ADDRESS: tuple[Any, ...] = (CancelScope, getattr(asyncio.tasks, "_GatheringFuture"))  # noqa: B009
"""Classes whose instances are kept in sets and hashed by address, so that the sets' order would differ by run."""


@contextmanager
def surroundings(
    now: Callable[[], float], *, seed: str, logs: bool, report: Callable[[NotSimulated], None]
) -> Generator[None]:
    """Let time be `now()` and randomness come from `seed` within the block, and let every call that reaches out raise.

    `logs` says whether log lines are written, with virtual times. `report` is called with the error of each refused
    call, so that it counts even if the program catches it.
    """
    simulating = threading.get_ident()
    if hasattr(time.sleep, "stands_in_for"):
        raise SimulationError("another thread is running a simulation; run one at a time in a process")
    entropy = random.Random(seed)
    state = random.getstate()
    with ExitStack() as stack:
        stack.callback(random.setstate, state)
        random.seed(entropy.getrandbits(64))
        for way_out in WAYS_OUT:
            put(stack, way_out.owner, way_out.name, refusal_of(way_out, simulating, report))
        for owner, name, replacement in (
            *clocks(now, simulating),
            *randomness(entropy, simulating),
            *hashes(simulating),
        ):
            put(stack, owner, name, replacement)
        stack.enter_context(log_lines(lambda: EPOCH + now(), silent=not logs))
        yield


def put(stack: ExitStack, owner: Any, name: str, replacement: Any) -> None:
    """Set an attribute until `stack` is left."""
    if name in owner.__dict__:
        stack.callback(setattr, owner, name, owner.__dict__[name])
    else:
        stack.callback(delattr, owner, name)
    setattr(owner, name, replacement)


def refusal_of(way_out: WayOut, simulating: int, report: Callable[[NotSimulated], None]) -> Callable[..., Any]:
    """Return a function that refuses a call in the simulating thread, and makes it in others."""
    real = way_out.owner.__dict__[way_out.name]

    def refuse(*args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != simulating:
            return real(*args, **kwargs)
        error = NotSimulated(way_out.call, way_out.instead)
        report(error)
        raise error

    refuse.stands_in_for = way_out.call  # type: ignore[attr-defined]  # pyright: ignore[reportFunctionMemberAccess]
    return refuse


def clocks(now: Callable[[], float], simulating: int) -> list[tuple[Any, str, Callable[..., Any]]]:
    """Return the replacements for the functions of `time`, as owner, name and function."""

    def replaced_clock(name: str, begin: float, unit: float) -> Callable[[], float]:
        real = getattr(time, name)

        def clock() -> float:
            if threading.get_ident() != simulating:
                return real()
            seconds = begin + now()
            return seconds if unit == 1 else int(seconds * unit)

        return clock

    def replaced_conversion(name: str) -> Callable[..., Any]:
        """Return a replacement for a function that takes the present time if it is given none."""
        real = getattr(time, name)

        def function(seconds: float | None = None, /) -> Any:
            return real(EPOCH + now() if seconds is None and threading.get_ident() == simulating else seconds)

        # As an attribute of a class it must not become a method, as the builtin does not.
        return staticmethod(function)

    real_strftime, real_asctime = time.strftime, time.asctime

    @staticmethod
    def strftime(layout: str, moment: Any = None, /) -> str:
        return real_strftime(layout, time.localtime() if moment is None else moment)

    @staticmethod
    def asctime(moment: Any = None, /) -> str:
        return real_asctime(time.localtime() if moment is None else moment)

    return [
        *((time, name, replaced_conversion(name)) for name in ("gmtime", "localtime", "ctime")),
        (time, "strftime", strftime),
        (time, "asctime", asctime),
        *(
            (time, name, replaced_clock(name, begin, unit))
            for name, begin, unit in (
                ("time", EPOCH, 1),
                ("time_ns", EPOCH, 1e9),
                ("monotonic", 0.0, 1),
                ("monotonic_ns", 0.0, 1e9),
                ("perf_counter", 0.0, 1),
                ("perf_counter_ns", 0.0, 1e9),
            )
        ),
    ]


def randomness(entropy: random.Random, simulating: int) -> list[tuple[Any, str, Any]]:
    """Return the replacements for the sources of randomness, as owner, name and function."""
    real_urandom, real_seed = os.urandom, random.Random.seed

    def urandom(size: int, /) -> bytes:
        return entropy.randbytes(size) if threading.get_ident() == simulating else real_urandom(size)

    def seed(self: random.Random, a: Any = None, version: int = 2) -> None:
        real_seed(self, entropy.getrandbits(128) if a is None and threading.get_ident() == simulating else a, version)

    # `random.seed` is a method of the generator that all modules share.
    shared: random.Random = getattr(random.seed, "__self__")  # noqa: B009
    return [
        (os, "urandom", urandom),
        (random, "_urandom", urandom),
        (random, "seed", partial(seed, shared)),
        (random.Random, "seed", seed),
    ]


def hashes(simulating: int) -> list[tuple[Any, str, Any]]:
    """Return replacements that hash the instances of `HASHED_BY_ADDRESS` by number: the same in every run."""
    counter = count(1)
    return [replacement for owner in HASHED_BY_ADDRESS for replacement in numbered(owner, counter, simulating)]


def numbered(owner: Any, counter: Iterator[int], simulating: int) -> list[tuple[Any, str, Any]]:
    """Return replacements that hash the instances of a class in the order they are made in."""
    real_init, real_hash = owner.__init__, owner.__hash__
    numbers: dict[int, int] = {}  # By address, so that it has no more entries than there were instances at one time.

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        if threading.get_ident() == simulating:
            numbers[id(self)] = next(counter)
        else:  # It outlives the run, and must keep its hash.
            numbers.pop(id(self), None)
        real_init(self, *args, **kwargs)

    def hash_of(self: Any) -> int:
        number = numbers.get(id(self))
        return number if number is not None else real_hash(self)

    return [(owner, "__init__", init), (owner, "__hash__", hash_of)]
