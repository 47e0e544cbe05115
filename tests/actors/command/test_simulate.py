"""`understudy simulate` as people run it: what it prints, its exit codes, and that what it says can be pasted."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from actors.command.app import run_app
from runtime.simulation import NoScenario, ScenarioFailed, Simulation, explore, find_scenario
from runtime.simulation.replay import replay_command

FILE = """
from __future__ import annotations

import asyncio
import functools
import os
import sys

from loguru import logger
from runtime import Actor, ActorSystem, Message, handles
from runtime.simulation import Crash, SlowSystem


class Hello(Message):
    text: str


class Greeter(Actor):
    @handles(Hello)
    def greet(self, message: Hello) -> None:
        self.context.log.info("greeted {}", message.text)


async def greets():
    async with ActorSystem("hall") as system:
        for greeter in [system.spawn(Greeter, name=f"greeter-{number}") for number in range(5)]:
            greeter.tell(Hello("you"))
        await asyncio.sleep(3600)


async def fails_at_5(simulation):
    simulation.inject(SlowSystem(at=1), SlowSystem(at=2), SlowSystem(at=3))
    await asyncio.sleep(10)
    if simulation.seed >= 5:
        slow = {fault.at for fault in simulation.active(SlowSystem)}
        simulation.note(f"slow {sorted(slow)}")
        assert 2 not in slow, "[it] broke"


async def waits_for_ever():
    await asyncio.get_running_loop().create_future()


async def leaves():
    sys.exit(0)


async def spins(simulation):
    # When the second seed of a process begins, that process and its parent have long been set up.
    if simulation.seed < 2:
        return
    os.write(1, b"begun" + os.linesep.encode())
    while True:
        await asyncio.sleep(0)


async def takes_two(one, two): ...
async def takes_one_or_two(one, two=None): ...
def not_async(): ...


def decorated_elsewhere(function):
    @functools.wraps(function)
    async def wrapper():
        return await function()

    return wrapper


@decorated_elsewhere
async def decorated(): ...


hidden = decorated_elsewhere(greets)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Give a folder with scenarios, in which everything takes place."""
    (tmp_path / "my scenarios.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def simulate(capfd):
    """Run the command; return its exit code, what it wrote, and its errors."""

    def simulate(scenario, *options):
        name = scenario if "." in scenario else f"my scenarios.py::{scenario}"
        code = run_app(["simulate", name, *options])
        written = capfd.readouterr()
        return code, written.out, written.err

    return simulate


def execute(*options):
    command = [sys.executable, "-m", "actors.command", "simulate", "my scenarios.py::greets", *options]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


def test_many_seeds_that_pass_are_counted(simulate):
    code, out, err = simulate("greets")
    assert (code, err) == (0, "")
    assert re.fullmatch(r"100 seeds passed: [\d,]+ steps, 360,000 virtual seconds\n", out)
    code, out, err = simulate("greets", "--seeds", "3", "--processes", "1", "--order", "fifo")
    assert (code, err, out.partition(" steps")[0].partition(":")[0]) == (0, "", "3 seeds passed")


def test_one_seed_is_shown_with_its_events_and_what_it_took(simulate):
    code, out, err = simulate("greets", "--seed", "7")
    assert (code, err) == (0, "")
    assert out.startswith("the last events:\n")
    assert "hall/greeter" in out
    verdict = out.splitlines()[-1]
    assert re.fullmatch(r"seed 7 passed: [\d,]+ steps, 3,600 virtual seconds, digest [0-9a-f]{32}", verdict)
    # One seed has one digest.
    assert simulate("greets", "--seed", "7")[1] == out
    assert verdict.endswith(Simulation(7).run(find_scenario("my scenarios.py::greets")).digest)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_events_says_how_many(simulate, count):
    _, out, _ = simulate("greets", "--seed", "7", "--events", str(count))
    assert len(re.findall(r"^ +\d+\.\d{6} ", out, re.MULTILINE)) == count
    assert ("the last events" in out) == (count > 0)


def test_log_lines_are_written_for_one_seed_where_they_are_wanted():
    # In a process of its own, for loguru writes to the standard error of its first import.
    done = [execute("--seed", "1", "--logs"), execute("--seed", "1"), execute("--seeds", "2")]
    assert [one.returncode for one in done] == [0, 0, 0]
    assert ["greeted you" in one.stderr for one in done] == [True, False, False]


def test_a_failure_names_the_smallest_seed_its_fault_and_its_line(simulate):
    code, out, err = simulate("fails_at_5", "--seeds", "30")
    assert (code, err) == (1, "")
    assert out.startswith("seed 5 fails: AssertionError: [it] broke\n")
    assert "it needs these faults:\n  SlowSystem(at=2)\n" in out
    assert "note: slow [2]" in out
    assert re.search(r"\nAssertionError: \[it\] broke\nseed 5, after 10\.\d+ virtual seconds and \d+ steps\n$", out)
    # The traceback begins with the scenario.
    assert [Path(name).name for name in re.findall(r'File "(.*)", line', out)] == ["my scenarios.py"]


def test_the_printed_command_repeats_the_failure(simulate, folder, monkeypatch):
    _, out, _ = simulate("fails_at_5", "--seeds", "30")
    (line,) = re.findall("to repeat it: (.*)", out)
    words = shlex.split(line)
    assert words == ["understudy", "simulate", "my scenarios.py::fails_at_5", "--seed", "5", "--keep", "1"]
    code, out, err = simulate(*words[2:])
    assert (code, err) == (1, "")
    assert "note: slow [2]" in out
    assert "AssertionError: [it] broke" in out
    assert out.splitlines()[-1].startswith("seed 5 failed: ")
    assert [Path(name).name for name in re.findall(r'File "(.*)", line', out)] == ["my scenarios.py"]
    # And elsewhere, as it is printed there, by the shell.
    (folder / "inner").mkdir()
    monkeypatch.chdir("inner")
    with pytest.raises(ScenarioFailed) as caught:
        explore(find_scenario("../my scenarios.py::fails_at_5"), seeds=[9], processes=1)
    command = caught.value.replay.replace("understudy", f"{shlex.quote(sys.executable)} -m actors.command", 1)
    done = subprocess.run(command, shell=True, check=False, capture_output=True, text=True, timeout=60)  # noqa: S602
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith("seed 9 failed: ")
    assert caught.value.digest in done.stdout


def test_keep_leaves_out_the_other_faults(simulate):
    assert simulate("fails_at_5", "--seed", "5")[0] == 1
    assert simulate("fails_at_5", "--seed", "5", "--keep", "0,2")[0] == 0
    assert simulate("fails_at_5", "--seed", "5", "--keep", "none")[0] == 0
    assert "note: --keep names 9, but the run had 3 faults" in simulate("fails_at_5", "--seed", "5", "--keep", "0,9")[1]


def test_a_deadlock_is_told_without_the_lines_that_found_it(simulate):
    for options in (["--seed", "1"], ["--seeds", "2"]):
        code, out, _ = simulate("waits_for_ever", *options)
        assert code == 1
        assert "Deadlock: every task waits" in out
        assert "in waits_for_ever" in out
        assert "Traceback" not in out


def test_a_scenario_that_ends_the_program_has_failed(simulate):
    for options in (["--seed", "1"], ["--seeds", "1"], ["--seeds", "30"]):
        code, out, _ = simulate("leaves", *options)
        assert code == 1
        assert "SystemExit" in out


def test_a_run_of_too_many_steps_has_failed(simulate):
    for options in (["--seed", "2"], ["--seeds", "3"]):
        code, out, _ = simulate("spins", "--max-steps", "2000", *options)
        assert code == 1
        assert "Livelock: 2,000 steps in the run" in out


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (["none.py::f"], ["there is no file none.py"]),
        (["my scenarios.py"], ["'my scenarios.py' does not name a scenario; write path.py::function"]),
        (["nothing"], ["has no async function 'nothing'; there are ", "fails_at_5"]),
        (["not_async"], ["has no async function 'not_async'"]),
        (["takes_two"], ["takes one, two; a scenario takes no parameter, or one"]),
        (["notes.txt::f"], ["notes.txt is not a Python file"]),
        (["broken.py::f"], ["broken.py: line 3: KeyError: 'gone'"]),
        (["wrong.py::f"], ["wrong.py: SyntaxError: ", "line 2"]),
        (["leaving.py::f"], ["leaving.py: line 1: SystemExit: 3"]),
        (["needing.py::f"], ["needing.py: line 1: ModuleNotFoundError: No module named 'not_there'"]),
        (["greets", "--seed", "1", "--seeds", "2"], ["--seed runs one seed and --seeds many"]),
        (["greets", "--keep", "1"], ["--keep: concerns one run; say which with --seed"]),
        (["greets", "--logs"], ["--logs: concerns one run"]),
        (["greets", "--events", "3"], ["--events: concerns one run"]),
        (["greets", "--seed", "1", "--processes", "2"], ["--processes: one seed runs in one process"]),
        (["greets", "--seed", "1", "--keep", "one"], ["--keep: expected numbers of faults"]),
        (["greets", "--seed", "1", "--events", "-1"], ["--events: expected a number from 0 up, got -1"]),
        (["greets", "--seeds", "0"], ["--seeds: expected a number from 1 up, got 0"]),
        (["greets", "--processes", "0"], ["--processes: expected a number from 1 up, got 0"]),
        (["greets", "--max-steps", "0"], ["--max-steps: expected a number from 1 up, got 0"]),
        (["greets", "--order", "any"], ["--order: expected seeded or fifo, got 'any'"]),
        (["greets", "--seed", "x"], ["'--seed'", "understudy simulate --help"]),
    ],
)
def test_bad_input_is_2_in_one_or_two_plain_lines(simulate, folder, arguments, facts):
    (folder / "notes.txt").write_text("")
    (folder / "broken.py").write_text("table = {}\n\ntable['gone']\n")
    (folder / "wrong.py").write_text("\nasync def f(:\n")
    (folder / "leaving.py").write_text("raise SystemExit(3)\n")
    (folder / "needing.py").write_text("import not_there\n")
    code, out, err = simulate(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert len(err.splitlines()) <= 2
    assert "Traceback" not in err
    for fact in facts:
        assert fact in err


@pytest.mark.real_time
@pytest.mark.parametrize("options", [["--seed", "2"], ["--seeds", "9", "--processes", "2"]])
@pytest.mark.parametrize("ignored", [False, True])
def test_an_interrupt_is_130_and_leaves_no_traceback(options, ignored):
    command = [sys.executable, "-m", "actors.command", "simulate", "my scenarios.py::spins", *options]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # As a shell does for a command in the background.
        preexec_fn=(lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) if ignored else None,  # noqa: PLW1509
    ) as process:
        try:
            for _ in range(2 if "--processes" in options else 1):
                assert process.stdout.readline() == "begun\n"
            # A terminal sends it to every process of the command.
            os.killpg(process.pid, signal.SIGINT)
            out, err = process.communicate()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert (process.returncode, out, err) == (130, "", "")


# The way from a name to a scenario and back.


def test_a_file_may_have_the_name_of_a_module_that_exists(folder):
    (folder / "json.py").write_text(FILE)
    (folder / "beside.py").write_text("async def found(): ...\n")
    (folder / "importing.py").write_text("from beside import found\n")
    import json  # noqa: PLC0415 - it is there before.

    scenario = find_scenario("json.py::greets")
    assert sys.modules["json"] is json
    assert scenario.__globals__ is vars(sys.modules[scenario.__module__])
    assert explore(scenario, seeds=range(2), processes=1).runs == 2
    assert find_scenario("importing.py::found").__module__ == "beside"


def test_a_file_that_fails_leaves_no_module_behind(folder):
    (folder / "only_half.py").write_text("raise RuntimeError\n")
    with pytest.raises(RuntimeError):
        find_scenario("only_half.py::f")
    assert "only_half" not in sys.modules


def test_a_scenario_may_have_more_parameters_if_they_need_not_be_given():
    assert find_scenario("my scenarios.py::takes_one_or_two").__name__ == "takes_one_or_two"
    with pytest.raises(NoScenario, match="takes one, two"):
        find_scenario("my scenarios.py::takes_two")


def test_only_what_can_be_found_again_has_a_command():
    async def local(): ...

    module = vars(sys.modules[find_scenario("my scenarios.py::greets").__module__])
    commands = [replay_command(one, 3) for one in (local, partial(local), module["hidden"], module["not_async"])]
    assert commands == [None] * 4
    for name in ("greets", "decorated"):
        command = replay_command(module[name], 3)
        assert command == f"understudy simulate 'my scenarios.py::{name}' --seed 3"


def test_a_command_says_all_that_its_run_depends_on():
    scenario = find_scenario("my scenarios.py::greets")
    options = replay_command(scenario, 3, keep=[], order="fifo", max_steps=50).partition("greets' ")[2]
    assert options == "--seed 3 --keep none --order fifo --max-steps 50"
    assert replay_command(scenario, 3, keep=[1, 4]).endswith("--seed 3 --keep 1,4")
