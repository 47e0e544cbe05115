from __future__ import annotations

import asyncio
import multiprocessing
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runtime import Actor, ActorSystem, Message, handles
from runtime.simulation import (
    CancelTask,
    Fault,
    NoScenario,
    ScenarioFailed,
    Simulation,
    SimulationError,
    SlowSystem,
    explore,
    find_scenario,
)
from runtime.simulation.replay import replay_command

if TYPE_CHECKING:
    from collections.abc import Iterator


def failing_from(smallest: int) -> Any:
    """Return a scenario that fails for every third seed from a certain one on."""

    async def scenario(simulation: Simulation) -> None:
        await asyncio.sleep(1)
        if simulation.seed >= smallest and (simulation.seed - smallest) % 3 == 0:
            raise ValueError(f"seed {simulation.seed} is bad")

    return scenario


@pytest.mark.forks
@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("seeds", [range(200), [190, 3, 44, 41, 150, 38, *range(60, 100)], range(199, -1, -1)])
def test_the_smallest_failing_seed_is_found_in_whatever_order_the_seeds_come(processes: int, seeds: Any) -> None:
    with pytest.raises(ScenarioFailed, match="seed 41 fails: ValueError: seed 41 is bad") as caught:
        explore(failing_from(41), seeds=seeds, processes=processes)
    assert caught.value.seed == 41
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.forks
@pytest.mark.parametrize("processes", [1, 2])
def test_an_exploration_that_ends_well_counts_its_runs(processes: int) -> None:
    found = explore(failing_from(1000), seeds=(seed for seed in range(50)), processes=processes)
    assert (found.runs, found.seconds) == (50, 50.0)
    assert found.steps > 50


@pytest.mark.parametrize(
    ("seeds", "problem"),
    [
        ([], "at least one seed"),
        ([2**63 - 1], "from 0 to"),
        ([1, 2**64], "from 0 to"),
        (range(-1, 5), "from 0 to"),
        ([0, 1.5], "from 0 to"),
    ],
)
def test_seeds_that_nothing_would_be_tested_with_are_refused(seeds: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        explore(failing_from(0), seeds=seeds, processes=1)


class Outage(Fault, frozen=True, kw_only=True):
    name: str


async def needs_two_faults(simulation: Simulation) -> None:
    simulation.inject(*(Outage(at=number, name=str(number)) for number in range(6)), SlowSystem(), CancelTask())
    await asyncio.sleep(10)
    names = {fault.name for fault in simulation.active(Outage)}
    assert not {"2", "4"} <= names, sorted(names)


async def needs_no_fault(simulation: Simulation) -> None:
    simulation.inject(Outage(name="a"), Outage(name="b"))
    raise ValueError("always")


async def needs_all_faults(simulation: Simulation) -> None:
    simulation.inject(Outage(name="a"), Outage(name="b"))
    await asyncio.sleep(1)
    assert len(simulation.active(Outage)) < 2


def explored(scenario: Any, **options: Any) -> ScenarioFailed:
    with pytest.raises(ScenarioFailed) as caught:
        explore(scenario, **{"seeds": [7], **options})
    return caught.value


def test_a_fault_plan_shrinks_to_what_the_failure_needs() -> None:
    failure = explored(needs_two_faults)
    assert failure.faults == (Outage(at=2, name="2"), Outage(at=4, name="4"))
    assert str(failure.__cause__).startswith("['2', '4']")
    assert failure.replay is not None
    assert shlex.split(failure.replay)[2:] == [
        f"{Path(__file__).relative_to(Path.cwd())}::needs_two_faults",
        "--seed",
        "7",
        "--keep",
        "2,4",
    ]
    replayed = Simulation(7, keep=[2, 4])
    with pytest.raises(AssertionError):
        replayed.run(needs_two_faults)
    assert replayed.trace.digest == failure.digest


def test_a_failure_that_needs_no_fault_says_so_and_one_that_needs_all_keeps_all() -> None:
    failure = explored(needs_no_fault)
    assert failure.faults == ()
    assert str(failure.replay).endswith("--keep none")
    assert failure.digest == ended(Simulation(7, keep=[]), needs_no_fault)
    assert "--keep" not in str(explored(needs_all_faults).replay)


def ended(simulation: Simulation, scenario: Any) -> str:
    with pytest.raises(ValueError, match="always"):
        simulation.run(scenario)
    return simulation.trace.digest


def test_a_caller_may_word_the_command_and_learns_which_faults_are_kept() -> None:
    asked: list[Any] = []

    def command(seed: int, keep: Any, deviations: Any) -> str:
        assert deviations is None  # It fails in the order of production, too.
        asked.append((seed, keep))
        return "run it so"

    for scenario in (needs_two_faults, needs_no_fault, needs_all_faults):
        assert "to repeat it: run it so" in str(explored(scenario, command=command))
    assert asked == [(7, [2, 4]), (7, []), (7, None)]


def test_a_closure_has_no_command_but_its_seed() -> None:
    failure = explored(failing_from(7))
    assert failure.replay is None
    assert "Simulation(7).run(scenario)" in str(failure)


def test_a_scenario_that_no_seed_decides_is_called_out() -> None:
    runs = count()

    async def scenario() -> None:
        assert next(runs)

    with pytest.raises(SimulationError, match="failed once and passed when it was repeated"):
        explore(scenario, seeds=[1], processes=1)


@pytest.mark.forks
@pytest.mark.parametrize(
    "error", [SystemExit(3), asyncio.CancelledError(), GeneratorExit(), pytest.fail.Exception("f")]
)
@pytest.mark.parametrize("processes", [1, 2])
def test_what_is_no_plain_exception_fails_the_seed_too(error: BaseException, processes: int) -> None:
    async def scenario(simulation: Simulation) -> None:
        await asyncio.sleep(1)
        if simulation.seed >= 5:
            raise error

    failure = explored(scenario, seeds=range(20), processes=processes)
    assert failure.seed == 5
    assert type(failure.__cause__) is type(error)


@pytest.mark.forks
def test_a_process_that_dies_is_an_error_that_names_the_seed() -> None:
    async def scenario(simulation: Simulation) -> None:
        if simulation.seed == 13:
            os._exit(9)

    with pytest.raises(SimulationError, match="process that ran seed 13 ended without a result, with exit code 9"):
        explore(scenario, seeds=range(50), processes=2)
    assert multiprocessing.active_children() == []


def is_asleep(proc: Path) -> bool:
    return (proc / "stat").read_text().split()[2] == "S"


@pytest.mark.real_time
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc")
def test_an_interrupt_leaves_no_process_and_no_noise(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import asyncio\n"
        "from runtime.simulation import explore\n"
        "async def scenario():\n"
        "    await asyncio.sleep(1)\n"
        "print('begins', flush=True)\n"
        "explore(scenario, seeds=range(10**9), processes=2)\n"
    )
    running = subprocess.Popen(
        [sys.executable, str(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    assert running.stdout is not None
    assert running.stdout.readline() == "begins\n"
    proc = Path(f"/proc/{running.pid}")
    # Until both children run and the parent waits for them.
    while len((proc / f"task/{running.pid}/children").read_text().split()) < 2 or not is_asleep(proc):
        os.sched_yield()
    os.killpg(running.pid, signal.SIGINT)
    _, errors = running.communicate()
    assert errors.count("Traceback") == 1
    assert "KeyboardInterrupt" in errors
    with pytest.raises(ProcessLookupError):
        os.killpg(running.pid, 0)


def test_fewer_processes_than_one_are_refused() -> None:
    with pytest.raises(ValueError, match="processes must be >= 1, got 0"):
        explore(failing_from(1), processes=0)


@pytest.mark.slow
@pytest.mark.real_time
def test_those_that_fork_pass_in_a_process_that_may(request: pytest.FixtureRequest) -> None:
    if not hasattr(request.config, "workerinput"):
        pytest.skip("they are run beside this one")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--color=no",
        "-q",
        "-p",
        "no:xdist",
        "-p",
        "no:cacheprovider",
        "-m",
        "forks",
        __file__,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert re.search(r"\b21 passed", done.stdout), done.stdout


def test_where_there_is_another_thread_nothing_is_forked() -> None:
    async def scenario() -> None:
        seen.add(os.getpid())

    seen, ends = set[int](), threading.Event()
    other = threading.Thread(target=ends.wait)
    other.start()
    try:
        assert explore(scenario, seeds=range(50), processes=2).runs == 50
    finally:
        ends.set()
        other.join()
    assert seen == {os.getpid()}


def test_a_replay_command_leads_back_to_the_scenario() -> None:
    command = replay_command(needs_two_faults, 7, keep=[2], order="fifo")
    assert command is not None
    words = shlex.split(command)
    assert words[3:] == ["--seed", "7", "--keep", "2", "--order", "fifo"]
    assert find_scenario(words[2]).__code__.co_firstlineno == needs_two_faults.__code__.co_firstlineno
    assert replay_command(Simulation, 1) is None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing", "does not name a scenario"),
        ("nothing.py::one", "there is no file"),
        (f"{__file__}::nothing", "has no async function 'nothing'; there are .*needs_two_faults"),
        (f"{__file__}::explored", "has no async function 'explored'"),
    ],
)
def test_a_name_that_leads_nowhere_says_why(name: str, said: str) -> None:
    with pytest.raises(NoScenario, match=said):
        find_scenario(name)


def test_what_a_group_of_exceptions_is_made_of_is_told() -> None:
    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fails())

    async def fails() -> None:
        raise ValueError("the sum is wrong")

    assert "ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)\n  ValueError: the sum is wrong" in str(
        explored(scenario)
    )


# The time limit of a test.


@pytest.fixture
def _time_limit() -> Iterator[None]:
    """Handle the alarm as pytest-timeout does when the time of a test is over."""

    def over(_number: int, _frame: Any) -> None:
        pytest.fail("Timeout (>300.0s)")

    before = signal.signal(signal.SIGALRM, over)
    try:
        yield
        assert signal.getsignal(signal.SIGALRM) is over
    finally:
        signal.signal(signal.SIGALRM, before)


class Ring(Message, frozen=True):
    """Let the alarm go off in the actor."""


class Bell(Actor):
    @handles(Ring)
    def ring(self, message: Ring) -> None:
        signal.raise_signal(signal.SIGALRM)


async def rings_here() -> None:
    signal.raise_signal(signal.SIGALRM)


async def rings_in_a_task() -> None:
    ringing = asyncio.create_task(rings_here())
    await asyncio.wait([ringing])


async def rings_in_an_actor() -> None:
    async with ActorSystem("bells") as system:
        system.spawn(Bell).tell(Ring())
        await asyncio.sleep(1)


async def rings_unheard() -> None:
    with suppress(BaseException):
        signal.raise_signal(signal.SIGALRM)


@pytest.mark.usefixtures("_time_limit")
@pytest.mark.parametrize("ring", [rings_here, rings_in_a_task, rings_in_an_actor, rings_unheard])
def test_a_run_that_the_time_limit_cuts_off_is_no_failure_of_its_seed(ring: Any) -> None:
    async def scenario(simulation: Simulation) -> None:
        await asyncio.sleep(2.5)
        if simulation.seed == 3:
            await ring()

    with pytest.raises(pytest.fail.Exception) as cut_off:
        explore(scenario, seeds=range(10), processes=1)
    assert str(cut_off.value) == "Timeout (>300.0s)"
    seed, reason = cut_off.value.__notes__
    assert re.fullmatch(r"seed 3, after (2|3).5 virtual seconds and \d+ steps", seed)
    assert reason.startswith("a time limit cut this run off before its end")


@pytest.mark.usefixtures("_time_limit")
def test_a_time_limit_that_cuts_off_a_repetition_leaves_the_failure_told() -> None:
    runs = count()

    async def scenario() -> None:
        if next(runs):
            signal.raise_signal(signal.SIGALRM)
        raise ValueError("a bug")

    with pytest.raises(pytest.fail.Exception) as cut_off:
        explore(scenario, seeds=[7], processes=1)
    assert cut_off.value.__notes__[-1].startswith("seed 7 had failed before")


@pytest.mark.forks
@pytest.mark.usefixtures("_time_limit")
def test_a_time_limit_tells_what_seeds_the_processes_were_at() -> None:
    async def scenario(simulation: Simulation) -> None:
        if simulation.seed == 5:
            os.kill(os.getppid(), signal.SIGALRM)
            signal.pause()  # Until the parent ends this process.

    with pytest.raises(pytest.fail.Exception) as cut_off:
        explore(scenario, seeds=range(8), processes=2)
    assert re.fullmatch(r"this cut off the processes that ran the seeds \d, 5", cut_off.value.__notes__[-1])
    assert multiprocessing.active_children() == []


class WithoutText(Exception):
    """An error whose text cannot be read."""

    def __str__(self) -> str:
        raise AttributeError("no such attribute")

    def add_note(self, note: str, /) -> None:
        raise AttributeError("no notes")


async def scenario_that_fails_without_a_text(simulation: Simulation) -> None:
    raise WithoutText


def test_a_failure_that_cannot_be_described_is_still_reported_with_its_seed() -> None:
    with pytest.raises(ScenarioFailed, match="WithoutText") as caught:
        explore(scenario_that_fails_without_a_text, seeds=range(2))
    assert type(caught.value.__cause__) is WithoutText
