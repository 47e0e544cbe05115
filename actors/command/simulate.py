"""`understudy simulate`: run a scenario in virtual time, with many seeds to find failures or with one to study it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

import runtime.simulation
from actors.command.bad_input import BadInput, one_line
from actors.report import RECORDED, Recording, html_page
from runtime.simulation import (
    MAX_STEPS,
    NoScenario,
    ScenarioFailed,
    Simulation,
    SimulationError,
    explore,
    find_scenario,
    read_deviations,
    read_keep,
)

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import TracebackType

    from runtime.simulation import Order, Scenario

SEEDS, PROCESSES, EVENTS = 100, 2, 20
RUNNERS = (__file__, *(f"{Path(module.__file__ or '').parent}{os.sep}" for module in (runtime.simulation, asyncio)))
"""The files and folders of the code that runs a scenario; its lines are left out of tracebacks."""


class Rehearsal(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a simulation: `seed` alone, or so many `seeds`; an option that was not given is None.

    Raises `BadInput`, which names the option, for bad values and for options that exclude each other.
    """

    scenario: str
    seed: int | None = None
    keep: str | None = None
    events: int | None = None
    logs: bool = False
    html: str | None = None
    seeds: int | None = None
    processes: int | None = None
    order: str = "seeded"
    max_steps: int | None = None

    def __post_init__(self) -> None:
        """Refuse bad values."""
        if self.seed is not None and self.seeds is not None:
            raise BadInput("--seed runs one seed and --seeds many; give one of the two")
        if self.seed is None:
            for option, given in (
                ("--keep", self.keep is not None),
                ("--events", self.events is not None),
                ("--logs", self.logs),
                ("--html", self.html is not None),
            ):
                if given:
                    raise BadInput(f"{option}: concerns one run; say which with --seed")
        elif self.processes is not None:
            raise BadInput("--processes: one seed runs in one process; leave out --seed or --processes")
        for option, number, least in (
            ("--seeds", self.seeds, 1),
            ("--processes", self.processes, 1),
            ("--max-steps", self.max_steps, 1),
            ("--events", self.events, 0),
        ):
            if number is not None and number < least:
                raise BadInput(f"{option}: expected a number from {least} up, got {number}")
        if self.seed is None and self.order not in {"seeded", "fifo"}:
            raise BadInput(f"--order: expected seeded or fifo, got {self.order!r}")
        if self.seed is not None:
            _ = self.run_order

    @property
    def kept(self) -> tuple[int, ...] | None:
        """The numbers of the faults that are applied; None for all."""
        try:
            return None if self.keep is None else read_keep(self.keep)
        except ValueError as error:
            raise BadInput(f"--keep: {error}") from error

    @property
    def run_order(self) -> Order:
        """The order of one run: also deviations, as a report prints them."""
        if self.order in {"seeded", "fifo"}:
            return self.task_order
        try:
            return read_deviations(self.order)
        except ValueError:
            raise BadInput(
                f"--order: expected seeded, fifo or the deviations that a report prints, got {self.order!r}"
            ) from None

    @property
    def task_order(self) -> Literal["seeded", "fifo"]:
        """The order in which ready tasks run."""
        return "fifo" if self.order == "fifo" else "seeded"


def simulate(rehearsal: Rehearsal) -> int:
    """Run the simulation, write the result to standard output, and return 0 if it passed, else 1.

    Raises `BadInput` for a scenario that cannot be found, and KeyboardInterrupt if it is interrupted.
    """
    with interruptible():
        kept = rehearsal.kept
        scenario = load_scenario(rehearsal.scenario)
        if rehearsal.seed is None:
            return run_many(scenario, rehearsal)
        return run_one(scenario, rehearsal, rehearsal.seed, kept)


@contextmanager
def interruptible() -> Generator[None]:
    """Handle Ctrl-C within the block, even if a shell made the process ignore it, as in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def load_scenario(name: str) -> Scenario[Any]:
    """Return the scenario. Raises `BadInput` if there is none, and for any error that its file raises."""
    try:
        return find_scenario(name)
    except NoScenario as error:
        raise BadInput(str(error)) from error
    except (Exception, SystemExit) as error:
        path = name.partition("::")[0]
        lines = [line for place, line in traceback.walk_tb(error.__traceback__) if is_file(place.f_code, path)]
        where = f"line {lines[-1]}: " if lines else ""
        raise BadInput(f"{path}: {where}{type(error).__name__}: {one_line(str(error))}") from error


def is_file(code: Any, path: str) -> bool:
    """Tell whether code is from a file."""
    return Path(code.co_filename).absolute() == Path(path).absolute()


def run_many(scenario: Scenario[Any], rehearsal: Rehearsal) -> int:
    """Run many seeds, and write the smallest that fails."""
    seeds = SEEDS if rehearsal.seeds is None else rehearsal.seeds
    try:
        passed = explore(
            scenario,
            seeds=range(seeds),
            processes=PROCESSES if rehearsal.processes is None else rehearsal.processes,
            order=rehearsal.task_order,
            max_steps=MAX_STEPS if rehearsal.max_steps is None else rehearsal.max_steps,
        )
    except SimulationError as error:
        parts = [str(error)]
        if isinstance(error, ScenarioFailed) and error.__cause__ is not None:
            parts.append(traceback_of(error.__cause__))
        write("\n\n".join(parts))
        return 1
    write(f"{passed.runs:,} seeds passed: {passed.steps:,} steps, {passed.seconds:,.6g} virtual seconds")
    return 0


def run_one(scenario: Scenario[Any], rehearsal: Rehearsal, seed: int, kept: tuple[int, ...] | None) -> int:
    """Run one seed, and write the last events of the run."""
    simulation = Simulation(
        seed,
        order=rehearsal.run_order,
        keep=kept,
        logs=rehearsal.logs,
        max_steps=MAX_STEPS if rehearsal.max_steps is None else rehearsal.max_steps,
    )
    recording = None if rehearsal.html is None else Recording(simulation.now)
    if recording is not None:
        simulation.observe(recording.receive, RECORDED)
    failure: BaseException | None = None
    try:
        simulation.run(scenario)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - the scenario fails with any error, `sys.exit` included.
        failure = error
    if recording is not None and rehearsal.html is not None:
        write_page(rehearsal.html, html_page(recording, title=f"{rehearsal.scenario}, seed {seed}"))
    events = EVENTS if rehearsal.events is None else rehearsal.events
    lines = simulation.last_events(events) if events else []
    parts = ["the last events:\n" + "\n".join(lines)] if lines else []
    if failure is not None:
        parts.append(traceback_of(failure))
    planned = len(simulation.faults)
    if missing := [str(number) for number in kept or () if number >= planned]:
        parts.append(f"note: --keep names {', '.join(missing)}, but the run had {planned} faults, numbered from 0")
    verdict = "passed" if failure is None else "failed"
    parts.append(
        f"seed {seed} {verdict}: {simulation.loop.steps:,} steps, {simulation.now():,.6g} virtual seconds, "
        f"digest {simulation.trace.digest}"
    )
    write("\n\n".join(parts))
    return 0 if failure is None else 1


def write_page(path: str, page: str) -> None:
    """Write a page, over one of before. Raises `BadInput` if that cannot be done."""
    try:
        Path(path).write_text(page, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"--html: {path} cannot be written: {error.strerror}") from error


def traceback_of(error: BaseException) -> str:
    """Return the traceback of an error, without the lines of the code that runs the scenario."""
    begin: TracebackType | None = error.__traceback__
    while begin is not None and begin.tb_frame.f_code.co_filename.startswith(RUNNERS):
        begin = begin.tb_next
    return "".join(traceback.format_exception(error.with_traceback(begin))).rstrip()


def write(text: str) -> None:
    """Write to standard output, after the scenario's own output."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
