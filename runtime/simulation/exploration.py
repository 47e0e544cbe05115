"""Run a scenario with many seeds, and report the smallest that fails with the fewest faults that make it fail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from runtime.error_text import annotate, described
from runtime.simulation.errors import SimulationError
from runtime.simulation.replay import replay_command
from runtime.simulation.schedule import write_deviations
from runtime.simulation.search import NONE_FAILED, Search, can_fork, never, run_in_processes, run_in_turn
from runtime.simulation.shrinking import Shrinking
from runtime.simulation.simulation import MAX_STEPS, refuse_nested

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from runtime.simulation.schedule import Deviation
    from runtime.simulation.simulation import Scenario
    from runtime.simulation.world import Fault

LAST_EVENTS = 20

Command: TypeAlias = "Callable[[int, Sequence[int] | None, Sequence[Deviation] | None], str]"
"""Returns the command that repeats a failure: given its seed, and the faults and the deviations that it needs."""


class Exploration(msgspec.Struct, frozen=True, kw_only=True):
    """The sum of many runs, all of which passed."""

    runs: int
    steps: int
    seconds: float
    """Virtual seconds of all runs together."""


class ScenarioFailed(SimulationError, AssertionError):
    """A scenario failed: at `seed`, the smallest that fails, with `faults`, none of which can be left out.

    `deviations` are the fewest from the order of production with which it fails: none if it fails in that order, or if
    the whole order of its seed is needed. `runs` counts the runs that it took to find them.

    Its cause is what the scenario raised. `replay` is the command that repeats it, None if no command can name the
    scenario. `events` are the last lines of its trace. A replay that has the same `digest` is the same run.
    """

    def __init__(
        self,
        seed: int,
        cause: BaseException,
        *,
        faults: Sequence[Fault] = (),
        deviations: Sequence[Deviation] | None = None,
        events: Sequence[str] = (),
        replay: str | None = None,
    ) -> None:
        lines = [f"seed {seed} fails: {described(cause)}", *(f"  {one}" for one in parts_of(cause))]
        if faults:
            lines += ["", "it needs these faults:", *(f"  {fault!r}" for fault in faults)]
        if deviations:
            lines += ["", "it needs this order, and passes in that of production:", *(f"  {one}" for one in deviations)]
        if events:
            lines += ["", "the last events before:", *(f"  {event}" for event in events)]
        lines += ["", f"to repeat it: {replay or f'Simulation({seed}{in_order(deviations)}).run(scenario)'}"]
        super().__init__("\n".join(lines))
        self.seed = seed
        self.faults = tuple(faults)
        self.deviations = tuple(deviations or ())
        self.runs = 0
        self.events = tuple(events)
        self.replay = replay
        self.digest = ""


def in_order(deviations: Sequence[Deviation] | None) -> str:
    """Return the argument of `Simulation` that gives a run this order."""
    return f", order=read_deviations({write_deviations(deviations)!r})" if deviations else ""


def parts_of(cause: BaseException) -> Iterator[str]:
    """Yield a line for each exception in a group, such as one that a task group raises; none for other exceptions."""
    parts: Sequence[BaseException] = getattr(cause, "exceptions", ())
    for one in parts:
        if not hasattr(one, "exceptions"):
            yield f"{type(one).__name__}: {one}"
        yield from parts_of(one)


def explore(
    scenario: Scenario[Any],
    *,
    seeds: Iterable[int] = range(1_000),
    processes: int = 2,
    order: Literal["seeded", "fifo"] = "seeded",
    max_steps: int = MAX_STEPS,
    command: Command | None = None,
) -> Exploration:
    """Run a scenario with every seed, and raise `ScenarioFailed` for the smallest that fails.

    It raises once all smaller seeds have passed, and not before. The faults that the scenario injects are reduced to
    those without which it does not fail, and so is what differs from the order of production. `processes` share the
    work if the machine can fork and this process has no other thread; otherwise one process does it. No log lines are
    written. `command` returns the command that repeats a failure, given its seed, the numbers of the faults that it
    needs, None for all, and the deviations that it needs, None for the order of the seed; by default it is
    `understudy simulate`. Raises ValueError for seeds that cannot be run, and SimulationError for a seed that fails
    once and passes when it is repeated, or if an event loop is running.
    """
    refuse_nested()
    if processes < 1:
        raise ValueError(f"processes must be >= 1, got {processes}")
    search = Search(scenario, order, max_steps)
    ordered = seeds if isinstance(seeds, range) and seeds.step > 0 else sorted(seeds)
    if not ordered:
        raise ValueError("seeds must name at least one seed; without one, nothing would be tested")
    for seed in (ordered[0], ordered[-1]) if isinstance(ordered, range) else ordered:
        if type(seed) is not int or not 0 <= seed < NONE_FAILED:
            raise ValueError(f"seeds must be whole numbers from 0 to {NONE_FAILED - 1}, got {seed!r}")
    if processes == 1 or len(ordered) < 2 * processes or not can_fork():
        results = [run_in_turn(search, ordered, never)]
    else:
        results = run_in_processes(search, ordered, processes)
    failed = min(result.failed for result in results)
    if failed != NONE_FAILED:
        try:
            failure = failure_of(search, failed, command)
        except BaseException as cut_off:
            annotate(cut_off, f"seed {failed} had failed before, and was being repeated to explain it")
            raise
        raise failure
    return Exploration(
        runs=sum(result.runs for result in results),
        steps=sum(result.steps for result in results),
        seconds=sum(result.seconds for result in results),
    )


def failure_of(search: Search, seed: int, command: Command | None = None) -> Exception:
    """Repeat a seed that failed, leave out the faults that it does not need, and return the error that reports it."""
    first = search.attempt(seed)
    if first.error is None:
        return SimulationError(
            f"seed {seed} failed once and passed when it was repeated: the scenario depends on something that no seed "
            "decides, such as the order of a set of strings, an address in memory, or what an earlier run left behind"
        )
    shrinking = Shrinking(search, seed, first)
    shrinking.shrink()
    keep, last, deviations = shrinking.keep, shrinking.last, shrinking.deviations
    assert last.error is not None  # noqa: S101 - `shrink` ends with a run that failed.
    simulation = last.simulation
    needed = keep if len(keep) < len(first.simulation.faults) else None
    if command is None:
        max_steps = None if search.max_steps == MAX_STEPS else search.max_steps
        order = search.order if deviations is None else deviations
        replay = replay_command(search.scenario, seed, keep=needed, order=order, max_steps=max_steps)
    else:
        replay = command(seed, needed, deviations)
    failure = ScenarioFailed(
        seed,
        last.error,
        faults=[first.simulation.faults[number] for number in keep],
        deviations=deviations,
        events=simulation.last_events(LAST_EVENTS),
        replay=replay,
    )
    failure.digest, failure.runs = simulation.trace.digest, shrinking.runs
    failure.__cause__ = last.error
    return failure
