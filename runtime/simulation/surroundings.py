"""What surrounds a program, for the length of a run: clocks and randomness of the simulation, and no way out of it.

Everything is put back at the end. Only the thread that simulates sees any of it. A name that a module took by itself
before (`from time import sleep`) keeps its meaning: use `time.sleep`, or better the loop's time.
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
from typing import TYPE_CHECKING, Any

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

CLOSED = (
    (time, "sleep", "time.sleep", USE_SLEEP),
    (threading.Thread, "start", "a thread", USE_ACTOR),
    (socket.socket, "__init__", "a socket", USE_TRANSPORT),
    (socket, "socketpair", "socket.socketpair", USE_TRANSPORT),
    (socket, "getaddrinfo", "socket.getaddrinfo", USE_TRANSPORT),
    (socket, "gethostbyname", "socket.gethostbyname", USE_TRANSPORT),
    (subprocess.Popen, "__init__", "a subprocess", USE_FUNCTION),
    (multiprocessing.process.BaseProcess, "start", "a process", USE_FUNCTION),
    *(
        (os, name, f"os.{name}", USE_FUNCTION)
        for name in ("system", "fork", "forkpty", "posix_spawn", "posix_spawnp")
        if hasattr(os, name)
    ),
)
"""The ways out of a simulation, and what to use instead."""

HASHED_BY_ADDRESS: tuple[Any, ...] = (CancelScope, getattr(asyncio.tasks, "_GatheringFuture"))  # noqa: B009
"""What anyio and programs keep in sets, which would have another order in each run."""


@contextmanager
def surroundings(
    now: Callable[[], float], *, seed: str, logs: bool, report: Callable[[NotSimulated], None]
) -> Generator[None]:
    """Let the time of this program be `now()`, its randomness come from `seed`, and every way out raise.

    `logs` says whether log lines are written, in virtual time. `report` hears of each call that was refused, also
    where the program swallows the error.
    """
    me = threading.get_ident()
    if hasattr(time.sleep, "stands_in_for"):
        raise SimulationError("another thread simulates: a process runs one simulation at a time")
    entropy = random.Random(seed)
    state = random.getstate()
    with ExitStack() as stack:
        stack.callback(random.setstate, state)
        random.seed(entropy.getrandbits(64))
        for owner, name, call, instead in CLOSED:
            put(stack, owner, name, closed(owner, name, call, instead, me, report))
        for owner, name, replacement in (*clocks(now, me), *randomness(entropy, me), *hashes()):
            put(stack, owner, name, replacement)
        stack.enter_context(log_lines(lambda: EPOCH + now(), silent=not logs))
        yield


def put(stack: ExitStack, owner: Any, name: str, replacement: Any) -> None:
    """Set an attribute until the stack is left."""
    if name in owner.__dict__:
        stack.callback(setattr, owner, name, owner.__dict__[name])
    else:
        stack.callback(delattr, owner, name)
    setattr(owner, name, replacement)


def closed(
    owner: Any, name: str, call: str, instead: str, me: int, report: Callable[[NotSimulated], None]
) -> Callable[..., Any]:
    """Return what stands in for a way out."""
    real = owner.__dict__[name]

    def refuse(*args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != me:
            return real(*args, **kwargs)
        error = NotSimulated(call, instead)
        report(error)
        raise error

    refuse.stands_in_for = call  # type: ignore[attr-defined]  # pyright: ignore[reportFunctionMemberAccess]
    return refuse


def clocks(now: Callable[[], float], me: int) -> list[tuple[Any, str, Callable[..., Any]]]:
    """Return what stands in for the clocks of the machine."""

    def standing_in(name: str, begin: float, unit: float) -> Callable[[], float]:
        real = getattr(time, name)

        def clock() -> float:
            if threading.get_ident() != me:
                return real()
            seconds = begin + now()
            return seconds if unit == 1 else int(seconds * unit)

        return clock

    def taking_seconds(name: str) -> Callable[..., Any]:
        """Stand in for a function that takes the time of now where it is given none."""
        real = getattr(time, name)

        def function(seconds: float | None = None, /) -> Any:
            return real(EPOCH + now() if seconds is None and threading.get_ident() == me else seconds)

        # As an attribute of a class it must not become a method, which a builtin does not either.
        return staticmethod(function)

    real_strftime, real_asctime = time.strftime, time.asctime

    @staticmethod
    def strftime(layout: str, moment: Any = None, /) -> str:
        return real_strftime(layout, time.localtime() if moment is None else moment)

    @staticmethod
    def asctime(moment: Any = None, /) -> str:
        return real_asctime(time.localtime() if moment is None else moment)

    return [
        *((time, name, taking_seconds(name)) for name in ("gmtime", "localtime", "ctime")),
        (time, "strftime", strftime),
        (time, "asctime", asctime),
        *(
            (time, name, standing_in(name, begin, unit))
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


def randomness(entropy: random.Random, me: int) -> list[tuple[Any, str, Any]]:
    """Return what stands in for the randomness of the machine."""
    real_urandom, real_seed = os.urandom, random.Random.seed

    def urandom(size: int, /) -> bytes:
        return entropy.randbytes(size) if threading.get_ident() == me else real_urandom(size)

    def seed(self: random.Random, a: Any = None, version: int = 2) -> None:
        real_seed(self, entropy.getrandbits(128) if a is None and threading.get_ident() == me else a, version)

    # What a module has as `random.seed` is bound to the generator that all share.
    shared: random.Random = getattr(random.seed, "__self__")  # noqa: B009
    return [
        (os, "urandom", urandom),
        (random, "_urandom", urandom),
        (random, "seed", partial(seed, shared)),
        (random.Random, "seed", seed),
    ]


def hashes() -> list[tuple[Any, str, Any]]:
    """Number what is kept in sets and would be hashed by its address, so that it has the same order in every run."""
    births = count(1)
    return [replacement for owner in HASHED_BY_ADDRESS for replacement in numbered(owner, births)]


def numbered(owner: Any, births: Iterator[int]) -> list[tuple[Any, str, Any]]:
    """Return what hashes the instances of a class by the number of their birth."""
    real_init, real_hash = owner.__init__, owner.__hash__
    numbers: dict[int, int] = {}  # By address, so that it grows no larger than the memory that they ever took.

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        numbers[id(self)] = next(births)
        real_init(self, *args, **kwargs)

    def hash_of(self: Any) -> int:
        number = numbers.get(id(self))
        return number if number is not None else real_hash(self)

    return [(owner, "__init__", init), (owner, "__hash__", hash_of)]
