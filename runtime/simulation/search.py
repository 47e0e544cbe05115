"""Run a scenario with one seed after the other, in one process or several, until the smallest failing one is known."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from runtime.error_text import annotate
from runtime.simulation.errors import SimulationError
from runtime.simulation.simulation import MAX_STEPS, Simulation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from multiprocessing.connection import Connection

    from runtime.simulation.simulation import Order, Scenario

NONE_FAILED = 2**63 - 1


class SeedRun(msgspec.Struct):
    """One run, and what it raised; None if it passed."""

    simulation: Simulation
    error: BaseException | None


class Search(msgspec.Struct, frozen=True):
    """A scenario, and how it is run with each seed."""

    scenario: Scenario[Any]
    order: Order = "seeded"
    max_steps: int = MAX_STEPS

    def attempt(
        self, seed: int, *, keep: Sequence[int] | None = None, order: Order | None = None, is_recorded: bool = False
    ) -> SeedRun:
        """Run the scenario with one seed, in another `order` than that of the search if it is given."""
        order = self.order if order is None else order
        simulation = Simulation(seed, order=order, keep=keep, logs=False, max_steps=self.max_steps)
        if is_recorded:
            simulation.record_order()
        try:
            simulation.run(self.scenario)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if error is simulation.alarm.error:
                raise  # A time limit says nothing about the seed that it cut off.
            # Whatever else it is, `sys.exit` included, the seed fails with it.
            return SeedRun(simulation, error)
        return SeedRun(simulation, None)


class SearchResult(msgspec.Struct):
    """What one process has run: the sums, and the first seed that failed, `NONE_FAILED` if none did."""

    runs: int = 0
    steps: int = 0
    seconds: float = 0.0
    failed: int = NONE_FAILED


def never(_seed: int) -> bool:
    """Return False: no seed is skipped."""
    return False


def run_in_turn(search: Search, seeds: Iterable[int], is_too_late: Callable[[int], bool]) -> SearchResult:
    """Run seeds in their order until one fails, or `is_too_late` says that a smaller one has failed elsewhere."""
    result = SearchResult()
    for seed in seeds:
        if is_too_late(seed):
            break
        attempt = search.attempt(seed)
        result.runs += 1
        result.steps += attempt.simulation.loop.steps
        result.seconds += attempt.simulation.now()
        if attempt.error is not None:
            result.failed = seed
            break
    return result


def can_fork() -> bool:
    """Tell whether this process may be forked: only with one thread, as another's lock would stay locked in the child.

    Threads are counted by the operating system if it lists them, because Python does not see those which a library
    started by itself.
    """
    try:
        threads = len(list(Path("/proc/self/task").iterdir()))
    except OSError:
        threads = threading.active_count()
    return threads == 1 and "fork" in multiprocessing.get_all_start_methods()


def run_in_processes(search: Search, seeds: Sequence[int], processes: int) -> list[SearchResult]:
    """Divide the seeds among processes, which share the smallest seed that failed so far; return the result of each."""
    fork = multiprocessing.get_context("fork")
    # Each process writes to a slot of its own, so that none waits for a lock of a process that was killed.
    failed, at_work, parent = fork.RawArray("q", [NONE_FAILED] * processes), fork.RawArray("q", processes), os.getpid()

    def work(number: int, report: Connection) -> None:
        # An interrupt reaches every process of a terminal; the parent ends the others.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

        def is_too_late(seed: int) -> bool:
            at_work[number] = seed
            return seed > min(failed) or os.getppid() != parent

        result = run_in_turn(search, islice(seeds, number, None, processes), is_too_late)
        failed[number] = result.failed
        report.send_bytes(msgspec.msgpack.encode(result))
        # Without the exit handlers, which are the parent's.
        os._exit(0)

    workers: list[tuple[Any, Any]] = []
    try:
        # A hook that runs at forks may swallow an interrupt in the middle of one, so interrupts have to wait.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            for number in range(processes):
                receiving, sending = fork.Pipe(duplex=False)
                worker = fork.Process(target=work, args=(number, sending), daemon=True)
                worker.start()
                sending.close()
                workers.append((worker, receiving))
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        return [receive(number, *worker, at_work) for number, worker in enumerate(workers)]
    except BaseException as error:
        if not isinstance(error, Exception):  # An interrupt, or the time limit of a test.
            annotate(error, f"this cut off the processes that ran the seeds {', '.join(map(str, at_work))}")
        raise
    finally:
        for worker, connection in workers:
            connection.close()
            if worker.exitcode is None:
                worker.kill()
            worker.join()


def receive(number: int, worker: Any, connection: Connection, at_work: Sequence[int]) -> SearchResult:
    """Return the result of a process once it is done. Raises SimulationError if it ended without one."""
    with suppress(EOFError):
        return msgspec.msgpack.decode(connection.recv_bytes(), type=SearchResult)
    worker.join()
    raise SimulationError(
        f"the process that ran seed {at_work[number]} ended without a result, with exit code {worker.exitcode}"
    )
