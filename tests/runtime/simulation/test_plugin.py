"""The plugin as its users meet it: a test file, a command line, and what pytest then says."""

from __future__ import annotations

import re
import shlex

import pytest

from runtime.simulation.plugin import MAX_SEED, MarkOptions, read_mark
from runtime.simulation.replay import read_keep

HEAD = """
import asyncio
import pytest
from runtime.simulation import SlowSystem
"""
INI = """
[pytest]
asyncio_mode = {mode}
asyncio_default_fixture_loop_scope = function
addopts = --strict-markers --strict-config -p no:cacheprovider -p no:hypothesispytest
filterwarnings = error
"""
FAILS_AT_17 = """
@pytest.mark.simulate(seeds=40)
@pytest.mark.parametrize("word", ["it's $5", "other"])
async def test_it(simulation, word):
    simulation.inject(SlowSystem(at=1), SlowSystem(at=2), SlowSystem(at=3), SlowSystem(at=4))
    await asyncio.sleep(10)
    if simulation.seed >= 17 and word != "other":
        active = {fault.at for fault in simulation.active(SlowSystem)}
        assert not active >= {2, 4}, "the line that fails"
"""


@pytest.fixture
def run(pytester):
    """Write a test file and run pytest on it; only on the command line where the file is None."""
    pytester.makeini(INI.format(mode="auto"))
    pytester.makeconftest('pytest_plugins = ["runtime.simulation.plugin"]\n')

    def run(content, *arguments):
        if content is not None:
            pytester.makepyfile(test_file=HEAD + content)
        return pytester.runpytest_inprocess(*arguments)

    return run


def replay_line(result):
    # Where pytest does not shorten its summary, as in CI, the line stands there once more.
    (command,) = {line.partition("to repeat it: ")[2] for line in result.outlines if "to repeat it: " in line}
    return command


def test_a_marked_test_runs_once_for_every_seed_with_a_simulation_of_its_own(run):
    done = run(
        """
        seen = []

        @pytest.mark.simulate(seeds=range(3, 6), processes=1)
        async def test_one(simulation):
            seen.append((simulation.seed, simulation.now()))
            await asyncio.sleep(3600)
            assert simulation.now() == 3600

        @pytest.mark.simulate(seeds=[9, 1], processes=1, order="fifo")
        async def test_two(simulation):
            assert type(simulation.choices).__name__ == "FifoSchedule"
            seen.append(simulation.seed)

        @pytest.mark.simulate(processes=1)
        async def test_by_default_100():
            seen.append("default")

        def test_what_was_seen():
            assert seen == [(3, 0.0), (4, 0.0), (5, 0.0), 1, 9] + ["default"] * 100
        """.replace("\n        ", "\n")
    )
    done.assert_outcomes(passed=4)


def test_other_fixtures_parameters_and_classes_work_as_ever(run):
    done = run(
        """
@pytest.fixture(params=[1, 2])
def number(request):
    return request.param

@pytest.mark.parametrize("word", ["a", "b"])
class TestClass:
    @pytest.fixture(autouse=True)
    def prepare(self):
        self.prepared = True

    @pytest.mark.simulate(seeds=5)
    async def test_method(self, word, simulation, number, tmp_path):
        assert self.prepared
        assert (word in "ab", number in (1, 2), tmp_path.is_dir()) == (True, True, True)
        await asyncio.sleep(1)

    async def test_that_pytest_asyncio_runs(self, word):
        await asyncio.sleep(0)
"""
    )
    done.assert_outcomes(passed=6)


@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_pytest_asyncio_takes_no_simulated_test_whatever_its_mode_and_loops(run, pytester, mode):
    pytester.makeini(INI.format(mode=mode))
    pytester.makeconftest(
        """
import asyncio
pytest_plugins = ["runtime.simulation.plugin"]

def pytest_asyncio_loop_factories(config, item):
    return {"one": asyncio.SelectorEventLoop, "two": asyncio.SelectorEventLoop}
"""
    )
    done = run(
        """
pytestmark = pytest.mark.asyncio

class TestClass:
    @pytest.mark.simulate(seeds=3)
    async def test_simulated(self):
        assert type(asyncio.get_running_loop()).__name__ == "SimulatedLoop"

async def test_other():
    assert type(asyncio.get_running_loop()).__name__ != "SimulatedLoop"
"""
    )
    done.assert_outcomes(passed=3)


def test_a_failure_names_the_smallest_seed_shows_the_line_and_prints_a_command_that_repeats_it(run):
    done = run(FAILS_AT_17)
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(
        [
            ">*assert not active >= {2, 4}, *",
            "E*AssertionError: the line that fails",
            "*direct cause*",
            "*ScenarioFailed: seed 17 fails: AssertionError: the line that fails",
            "*SlowSystem(at=2)*",
            "*SlowSystem(at=4)*",
        ]
    )
    assert "SlowSystem(at=3, " not in done.stdout.str()
    # The lines that run the test are not what its author looks for.
    assert "explore.py" not in done.stdout.str()
    words = shlex.split(replay_line(done))
    assert words == ["pytest", "test_file.py::test_it[it's $5]", "--seed", "17", "--keep", "1,3"]
    again = run(None, *words[1:])
    again.assert_outcomes(failed=1)
    # Here the error is the test's own.
    again.stdout.no_fnmatch_line("*ScenarioFailed*")
    again.stdout.fnmatch_lines(
        ["E*AssertionError: the line that fails", "E*seed 17, after * virtual seconds*", "*events of seed 17*"]
    )
    assert len(re.findall("fault: slow system", again.stdout.str())) == 2


def test_the_command_is_right_where_pytest_was_started_elsewhere(run, pytester):
    pytester.mkdir("inner")
    pytester.makepyfile(test_file=HEAD + FAILS_AT_17)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(pytester.path / "inner")
        done = run(None, "..", "-k", "not other")
        words = shlex.split(replay_line(done))
        assert words[1].startswith("../test_file.py::")
        run(None, *words[1:]).assert_outcomes(failed=1)


@pytest.mark.parametrize(
    ("arguments", "seeds"),
    [(["--seed", "7"], [7]), (["--seed=7", "--keep", "none"], [7]), (["--seeds", "3"], [0, 1, 2])],
)
def test_the_command_line_says_which_seeds(run, arguments, seeds):
    done = run(
        f"""
seen = []

@pytest.mark.simulate(seeds=50, processes=1)
async def test_it(simulation):
    seen.append(simulation.seed)
    simulation.inject(SlowSystem())
    assert bool(simulation.active(SlowSystem)) is {"none" not in arguments}

def test_seen():
    assert seen == {seeds}
""",
        *arguments,
        "test_file.py",
    )
    done.assert_outcomes(passed=2)


@pytest.mark.parametrize(("asked", "ran"), [("21", 3), ("20", 2), ("1", 1), (None, 50)])
def test_of_the_seeds_that_the_command_line_asks_for_a_long_test_runs_a_part(run, asked, ran):
    done = run(
        f"""
seen = []

@pytest.mark.simulate(seeds=50, part=10, processes=1)
async def test_it(simulation):
    seen.append(simulation.seed)

def test_seen():
    assert seen == list(range({ran}))
""",
        *([] if asked is None else ["--seeds", asked]),
    )
    done.assert_outcomes(passed=2)


@pytest.mark.parametrize("place", ["before", "after"])
def test_the_seed_may_stand_before_and_after_the_file(run, place):
    name = "test_file.py::test_it[other]"
    done = run(FAILS_AT_17, *(["--seed", "17", name] if place == "before" else [name, "--seed", "17"]))
    done.assert_outcomes(passed=1)


def test_log_lines_are_written_for_one_seed_and_not_for_many(run):
    content = """
import sys
from loguru import logger

@pytest.mark.simulate(seeds=3, processes=1)
async def test_it():
    sink = logger.add(lambda line: print("LINE", line), format="{message}")
    logger.info("hello")
    logger.remove(sink)

@pytest.fixture(autouse=True)
def lines():
    sink = logger.add(lambda line: print("OUTER", line), format="{message}")
    yield
    logger.remove(sink)
"""
    assert "OUTER hello" not in run(content, "-s").stdout.str()
    assert run(content, "-s", "--seed", "1").stdout.str().count("OUTER hello") == 1


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        ("@pytest.mark.simulate\ndef test_it(): pass", ["test_file.py::test_it: ", "is for async tests", "async def"]),
        ("@pytest.mark.simulate(seeds=0)\nasync def test_it(): pass", ["seeds must be >= 1, got 0"]),
        ("@pytest.mark.simulate(part=0)\nasync def test_it(): pass", ["part must be a whole number >= 1, got 0"]),
        ("@pytest.mark.simulate(sedes=3)\nasync def test_it(): pass", ["it takes the keywords seeds, ", "got sedes"]),
        ("@pytest.mark.simulate(3)\nasync def test_it(): pass", ["keywords seeds, ", "got 3", "simulate(seeds=1000)"]),
        (
            "@pytest.fixture\nasync def slow(): pass\n@pytest.mark.simulate\nasync def test_it(slow): pass",
            ["test_file.py::test_it: the fixture 'slow' is async", "make its value in the test"],
        ),
        (
            """
@pytest.fixture
async def slow(): yield
@pytest.fixture
def fast(slow): pass
@pytest.mark.simulate
@pytest.mark.usefixtures("fast")
async def test_it(): pass
""",
            ["the fixture 'slow' is async"],
        ),
        ("def test_it(simulation): pass", ["only a simulated test has a simulation", "@pytest.mark.simulate"]),
        (
            """
@pytest.fixture
def early(simulation): simulation.inject()
@pytest.mark.simulate
async def test_it(early): pass
""",
            ["there is no simulation (.inject) yet", "use it in the test"],
        ),
    ],
)
def test_what_cannot_be_simulated_is_an_error_that_says_why(run, content, facts):
    done = run(content)
    done.assert_outcomes(errors=1)
    for fact in facts:
        assert fact in done.stdout.str()


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        (["--seed", "1", "--seeds", "2"], "--seed runs one seed and --seeds many"),
        (["--keep", "1"], "say which with --seed"),
        (["--seed", "1", "--keep", "one"], "--keep: expected numbers of faults"),
        (["--seed=-1"], "--seed: expected a number from 0 up, got -1"),
        (["--seeds", "0"], "--seeds: expected a number from 1 up, got 0"),
        (["--seed", "x"], "--seed: invalid int value: 'x'"),
    ],
)
def test_a_wrong_command_line_is_refused(run, arguments, fact):
    done = run("def test_it(): pass", *arguments)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert fact in done.stderr.str()
    assert "Traceback" not in done.stderr.str()


def test_an_option_that_somebody_else_has_is_named(pytester, run):
    pytester.makepyfile(other="def pytest_addoption(parser): parser.addoption('--seed')")
    pytester.makeconftest('pytest_plugins = ["other", "runtime.simulation.plugin"]\n')
    pytester.syspathinsert()
    done = run("def test_it(): pass")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert "runtime.simulation.plugin needs the option --seed, which another" in done.stderr.str()


def test_what_pytest_itself_raises_fails_the_seed_in_every_process(run):
    done = run(
        """
@pytest.mark.simulate(seeds=20)
async def test_fail(simulation):
    if simulation.seed == 5:
        pytest.fail("no good")

@pytest.mark.simulate(seeds=20)
async def test_raises():
    with pytest.raises(ValueError):
        await asyncio.sleep(1)

@pytest.mark.simulate(seeds=20)
async def test_skip():
    pytest.skip("not today")

@pytest.mark.simulate(seeds=20)
@pytest.mark.skip
async def test_that_is_skipped(): ...

@pytest.mark.simulate(seeds=20)
@pytest.mark.xfail(strict=True)
async def test_that_is_to_fail():
    assert False
"""
    )
    done.assert_outcomes(failed=3, skipped=1, xfailed=1)
    done.stdout.fnmatch_lines(
        [
            "*ScenarioFailed: seed 5 fails: Failed: no good",
            "*ScenarioFailed: seed 0 fails: Failed: DID NOT RAISE *ValueError*",
            "*cannot be skipped while it runs (not today)*@pytest.mark.skipif*",
        ]
    )


def test_a_deadlock_is_told_without_the_lines_that_found_it(run):
    done = run(
        """
@pytest.mark.simulate
async def test_it():
    await asyncio.get_running_loop().create_future()
"""
    )
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*Deadlock: *", "*scenario waits at *test_file.py:* in test_it*", "*--seed 0"])
    done.stdout.no_fnmatch_line("*loop.py:*: Deadlock")
    run(None, "--full-trace").stdout.fnmatch_lines(["*loop.py:*: Deadlock"])


def test_the_mark_explains_itself(run):
    run("", "--markers").stdout.fnmatch_lines(["@pytest.mark.simulate(seeds=100, *every seed*"])


@pytest.mark.parametrize(
    ("keywords", "fact"),
    [
        ({"seeds": True}, "seeds must be a number, a range or a list of numbers, got True"),
        ({"seeds": "12"}, "got '12'"),
        ({"seeds": []}, "at least one seed"),
        ({"seeds": range(0)}, "at least one seed"),
        ({"seeds": [1, 2.5]}, "got 2.5"),
        ({"seeds": range(3, -3, -1)}, "got -2"),
        ({"seeds": [MAX_SEED + 1]}, "from 0 up"),
        ({"processes": 0}, "processes must be a whole number >= 1, got 0"),
        ({"max_steps": 1.5}, "max_steps must be a whole number >= 1, got 1.5"),
        ({"order": "random"}, "order must be"),
    ],
)
def test_a_mark_with_a_wrong_value_is_refused(keywords, fact):
    with pytest.raises(ValueError, match=re.escape(fact)):
        read_mark([], keywords)


def test_a_mark_may_say_seeds_in_three_ways():
    assert MarkOptions(seeds=3).all_seeds == range(3)
    assert MarkOptions(seeds=range(2, 9, 3)).all_seeds == range(2, 9, 3)
    assert read_mark([], {"seeds": [5, 1]}).all_seeds == [5, 1]


@pytest.mark.parametrize("text", ["", "1,", "-1", "a", "1;2"])
def test_keep_takes_numbers_alone(text):
    with pytest.raises(ValueError, match="expected numbers of faults"):
        read_keep(text)


def test_a_failure_that_takes_no_fault_says_so(run):
    done = run(
        """
@pytest.mark.simulate(seeds=3)
async def test_it(simulation):
    simulation.inject(SlowSystem())
    assert simulation.seed != 1
"""
    )
    assert replay_line(done) == "pytest test_file.py::test_it --seed 1 --keep none"


@pytest.mark.simulate(seeds=20)
async def test_this_project_uses_it_itself(simulation):
    simulation.note("begun")
    assert len(simulation.trace) == 1


@pytest.mark.usefixtures("run")
def test_a_test_that_its_time_limit_cuts_off_says_so_and_where(pytester):
    pytester.makepyfile(
        test_file=HEAD
        + """
import signal

@pytest.mark.timeout(600)
@pytest.mark.simulate(seeds=40, processes=1)
async def test_it(simulation):
    await asyncio.sleep(2.5)
    if simulation.seed == 17:
        await asyncio.create_task(rings())

async def rings():
    signal.raise_signal(signal.SIGALRM)  # the line that was reached
"""
    )
    # In a process of its own, because the time limit of this test rings by the same alarm.
    done = pytester.runpytest_subprocess()
    done.assert_outcomes(failed=1)
    text = done.stdout.str()
    assert "Failed: Timeout (>600.0s) from pytest-timeout." in text
    assert "seed 17, after 2.5 virtual seconds" in text
    assert "a time limit cut this run off before its end" in text
    assert "the line that was reached" in text
    assert "KeyboardInterrupt" not in text
