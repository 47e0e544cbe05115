"""Many seeds, in several processes: the smallest one that fails, and what is left of its fault plan without the rest."""

from __future__ import annotations

import multiprocessing
import os
import threading
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from runtime.simulation.errors import SimulationError
from runtime.simulation.replay import replay_command
from runtime.simulation.simulation import MAX_STEPS, Simulation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from multiprocessing.connection import Connection

    from runtime.simulation.faults import Fault
    from runtime.simulation.simulation import Scenario

LAST_EVENTS = 20
NONE_FAILED = 2**63 - 1


class Exploration(msgspec.Struct, frozen=True, kw_only=True):
    """What came of many runs that all ended well."""

    runs: int
    steps: int
    seconds: float
    """Virtual ones, of all runs together."""


class ScenarioFailed(SimulationError, AssertionError):
    """A scenario failed: at `seed`, the smallest that does, with `faults`, of which none can be left out.

    Its cause is what the scenario raised. `replay` is the command that repeats it, None for a scenario that no
    command can find; `events` are the last lines of its trace, and `digest` tells that a replay is the same run.
    """

    def __init__(
        self,
        seed: int,
        cause: Exception,
        *,
        faults: Sequence[Fault] = (),
        events: Sequence[str] = (),
        replay: str | None = None,
        digest: str = "",
    ) -> None:
        lines = [f"seed {seed} fails: {type(cause).__name__}: {cause}"]
        if faults:
            lines += ["", "it takes these faults:", *(f"  {fault!r}" for fault in faults)]
        if events:
            lines += ["", "the last events before:", *(f"  {event}" for event in events)]
        lines += ["", f"to repeat it: {replay or f'Simulation({seed}).run(scenario)'}"]
        super().__init__("\n".join(lines))
        self.seed = seed
        self.faults = tuple(faults)
        self.events = tuple(events)
        self.replay = replay
        self.digest = digest


class Attempt(msgspec.Struct):
    """One run, and what it raised, if anything."""

    simulation: Simulation
    error: Exception | None


class Search(msgspec.Struct, frozen=True):
    """What is run for each seed."""

    scenario: Scenario[Any]
    order: Literal["seeded", "fifo"] = "seeded"
    max_steps: int = MAX_STEPS

    def attempt(self, seed: int, *, keep: Sequence[int] | None = None) -> Attempt:
        """Run one seed."""
        simulation = Simulation(seed, order=self.order, keep=keep, logs=False, max_steps=self.max_steps)
        try:
            simulation.run(self.scenario)
        except Exception as error:  # noqa: BLE001 - whatever it is, the seed fails with it.
            return Attempt(simulation, error)
        return Attempt(simulation, None)


class Part(msgspec.Struct):
    """What one process found."""

    runs: int = 0
    steps: int = 0
    seconds: float = 0.0
    failed: int = NONE_FAILED


def explore(
    scenario: Scenario[Any],
    *,
    seeds: Iterable[int] = range(1_000),
    processes: int = 2,
    order: Literal["seeded", "fifo"] = "seeded",
    max_steps: int = MAX_STEPS,
    command: Callable[[int, Sequence[int]], str] | None = None,
) -> Exploration:
    """Run a scenario with every seed, and raise `ScenarioFailed` for the smallest that fails.

    It raises no earlier than all smaller seeds have passed. The faults that the scenario injects are reduced to those
    without which it does not fail. `processes` share the work, where the machine can fork; log lines are not written.
    `command` words how a failure is repeated, given its seed and the numbers of its faults.
    """
    if processes < 1:
        raise ValueError(f"processes must be >= 1, got {processes}")
    search = Search(scenario, order, max_steps)
    ordered = seeds if isinstance(seeds, range) and seeds.step > 0 else sorted(seeds)
    can_fork = "fork" in multiprocessing.get_all_start_methods() and threading.active_count() == 1
    if processes == 1 or not can_fork or len(ordered) < 2 * processes:
        parts = [look(search, ordered, never)]
    else:
        parts = look_in_processes(search, ordered, processes)
    failed = min(part.failed for part in parts)
    if failed != NONE_FAILED:
        raise explained(search, failed, command)
    return Exploration(
        runs=sum(part.runs for part in parts),
        steps=sum(part.steps for part in parts),
        seconds=sum(part.seconds for part in parts),
    )


def never(_seed: int) -> bool:
    """Say that no seed is too late to be of interest."""
    return False


def look(search: Search, seeds: Iterable[int], is_too_late: Callable[[int], bool]) -> Part:
    """Run seeds in their order until one fails, or somebody has found a smaller one."""
    part = Part()
    for seed in seeds:
        if is_too_late(seed):
            break
        attempt = search.attempt(seed)
        part.runs += 1
        part.steps += attempt.simulation.loop.steps
        part.seconds += attempt.simulation.now()
        if attempt.error is not None:
            part.failed = seed
            break
    return part


def look_in_processes(search: Search, seeds: Sequence[int], processes: int) -> list[Part]:
    """Deal the seeds out to processes, which tell each other of the smallest that fails."""
    fork = multiprocessing.get_context("fork")
    smallest = fork.Value("q", NONE_FAILED)

    def work(number: int, report: Connection) -> None:
        part = look(search, islice(seeds, number, None, processes), lambda seed: seed > smallest.value)
        with smallest.get_lock():
            smallest.value = min(smallest.value, part.failed)
        report.send_bytes(msgspec.msgpack.encode(part))
        # Without the exit handlers, which are the parent's.
        os._exit(0)

    workers: list[tuple[Any, Connection]] = []
    try:
        for number in range(processes):
            receiving, sending = fork.Pipe(duplex=False)
            worker = fork.Process(target=work, args=(number, sending), daemon=True)
            worker.start()
            sending.close()
            workers.append((worker, receiving))
        return [received(worker, connection) for worker, connection in workers]
    finally:
        for worker, connection in workers:
            connection.close()
            if worker.exitcode is None:
                worker.kill()
            worker.join()


def received(worker: Any, connection: Connection) -> Part:
    """Return what a process found, once it is done."""
    with suppress(EOFError):
        return msgspec.msgpack.decode(connection.recv_bytes(), type=Part)
    worker.join()
    raise SimulationError(f"a process that ran seeds ended without a word, with exit code {worker.exitcode}")


def explained(
    search: Search, seed: int, command: Callable[[int, Sequence[int]], str] | None = None
) -> Exception:
    """Repeat a seed that failed, leave out what faults it does not need, and say everything about it."""
    first = search.attempt(seed)
    if first.error is None:
        return SimulationError(
            f"seed {seed} failed once and passed when it was repeated: the scenario depends on something that no seed "
            "decides, such as the order of a set of strings, an address in memory, or what an earlier run left behind"
        )
    keep, last = shrink(search, seed, first)
    assert last.error is not None  # noqa: S101 - it is one of those that failed.
    simulation = last.simulation
    needed = len(keep) < len(first.simulation.faults)
    failure = ScenarioFailed(
        seed,
        last.error,
        faults=[first.simulation.faults[number] for number in keep],
        events=simulation.trace.tail(LAST_EVENTS),
        replay=command(seed, keep if needed else ()) if command else replay_command(
            search.scenario, seed, keep=keep if needed else None, order=search.order
        ),
        digest=simulation.trace.digest,
    )
    failure.__cause__ = last.error
    return failure


def shrink(search: Search, seed: int, first: Attempt) -> tuple[list[int], Attempt]:
    """Leave out one fault after the other for as long as the run fails with an error of the same type."""
    keep = list(range(len(first.simulation.faults)))
    last = first
    again = True
    while again:
        again = False
        for number in tuple(reversed(keep)):
            fewer = [one for one in keep if one != number]
            attempt = search.attempt(seed, keep=fewer)
            if attempt.error is not None and type(attempt.error) is type(first.error):
                keep, last, again = fewer, attempt, True
    return keep, last
