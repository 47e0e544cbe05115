"""A pytest plugin that runs each async test marked `simulate` in virtual time, once for every seed.

Put `pytest_plugins = ["runtime.simulation.plugin"]` into your `conftest.py`, and mark the tests to be simulated:

    @pytest.mark.simulate(seeds=1000)
    async def test_no_money_is_lost(simulation): ...

The mark takes `seeds` (how many, a range or a list; by default 100), `part` (see `--seeds` below; by default 1), and
`processes`, `order` and `max_steps` as `explore` does. A parameter named `simulation` is the `Simulation` of each run.
Fixtures, and the instance of a test class, are made once for all seeds: what one run changes in them stays changed for
the next.

`pytest path::test --seed 17` runs one seed alone, in this process and with its log lines; `--keep 1,4` applies only
these of its faults, `--keep none` none of them; `--seeds 5000` runs the seeds from 0 to 4999. A test whose runs are
long says `simulate(part=10)`: of the seeds that `--seeds` asks for it runs a tenth, from 0 to 499 here.
"""

from __future__ import annotations

import functools
import inspect
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import pytest

from runtime.simulation.exploration import LAST_EVENTS, ScenarioFailed, explore
from runtime.simulation.replay import read_keep
from runtime.simulation.schedule import read_deviations, write_deviations
from runtime.simulation.simulation import MAX_STEPS, Simulation

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from runtime.simulation.schedule import Deviation
    from runtime.simulation.simulation import Scenario

MARK = "simulate"
OWN_FOLDER = Path(__file__).parent
MAX_SEED = 2**63 - 2
"""Processes share seeds as numbers of 64 bits."""
OPTIONS = (
    ("--seed", "N", int, "run simulated tests with this seed alone, in this process and with log lines"),
    (
        "--seeds",
        "N",
        int,
        "run simulated tests with the seeds from 0 to N - 1, whatever their marks say; one in P if marked with part=P",
    ),
    ("--keep", "1,4", str, "with --seed: apply only these faults of the run, by their numbers; or none"),
    (
        "--deviations",
        "JSON",
        str,
        "with --seed: the order of production but for these deviations, as a report says; or none",
    ),
)


class MarkOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a mark: how many seeds or which, and how `explore` is to run them.

    If the command line says how many, one in `part` of those is run.
    """

    seeds: int | Sequence[int] = 100
    part: int = 1
    processes: int = 2
    order: Literal["seeded", "fifo"] = "seeded"
    max_steps: int = MAX_STEPS

    def __post_init__(self) -> None:
        for name, value in (("part", self.part), ("processes", self.processes), ("max_steps", self.max_steps)):
            if not is_whole(value) or value < 1:
                raise ValueError(f"{name} must be a whole number >= 1, got {value!r}")
        if self.order not in {"seeded", "fifo"}:
            raise ValueError(f'order must be "seeded" or "fifo", got {self.order!r}')
        check_seeds(self.seeds)

    @property
    def all_seeds(self) -> Sequence[int]:
        """Every seed to run."""
        return range(self.seeds) if isinstance(self.seeds, int) else self.seeds


def check_seeds(seeds: Any) -> None:
    """Raise ValueError unless these seeds can be run."""
    if is_whole(seeds):
        if seeds < 1:
            raise ValueError(f"seeds must be >= 1, got {seeds}; without a seed, nothing would be tested")
        return
    if type(seeds) not in {range, list, tuple}:
        raise ValueError(f"seeds must be a number, a range or a list of numbers, got {seeds!r}")
    if not seeds:
        raise ValueError(f"seeds must name at least one seed, got {seeds!r}")
    for seed in (seeds[0], seeds[-1]) if type(seeds) is range else seeds:
        if not is_whole(seed) or not 0 <= seed <= MAX_SEED:
            raise ValueError(f"each of the seeds must be a whole number from 0 up, got {seed!r}")


def is_whole(value: Any) -> bool:
    """Tell whether a value is a whole number; True and False are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def read_mark(positional: Sequence[Any], keywords: dict[str, Any]) -> MarkOptions:
    """Return the options of a mark. Raises ValueError for those that it does not take.

    >>> list(read_mark([], {"seeds": 3}).all_seeds)
    [0, 1, 2]
    """
    known = MarkOptions.__struct_fields__
    wrong = [str(name) for name in keywords if name not in known]
    if positional or wrong:
        got = repr(positional[0]) if positional else wrong[0]
        raise ValueError(f"it takes the keywords {', '.join(known)}, got {got}; write @pytest.mark.{MARK}(seeds=1000)")
    return MarkOptions(**keywords)


# The hooks that pytest calls.


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the command line."""
    group = parser.getgroup("simulation", "simulation (understudy)")
    for name, metavar, kind, text in OPTIONS:
        try:
            group.addoption(name, metavar=metavar, type=kind, default=None, help=text)
        except ValueError as error:
            raise pytest.UsageError(
                f"runtime.simulation.plugin needs the option {name}, which another plugin or conftest.py has taken "
                "already; rename that one, or leave one of the two plugins out"
            ) from error


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark, and refuse options that contradict each other."""
    config.addinivalue_line(
        "markers",
        f"{MARK}(seeds=100, part=1, processes=2, order='seeded', max_steps=...): run this async test in virtual time, "
        "once for every seed; a parameter named simulation is the Simulation of the run",
    )
    seed, seeds, keep = (config.getoption(name) for name in ("seed", "seeds", "keep"))
    if seed is not None and seeds is not None:
        raise pytest.UsageError("--seed runs one seed and --seeds many; give one of the two")
    if seed is not None and not 0 <= seed <= MAX_SEED:
        raise pytest.UsageError(f"--seed: expected a number from 0 up, got {seed}")
    if seeds is not None and seeds < 1:
        raise pytest.UsageError(f"--seeds: expected a number from 1 up, got {seeds}")
    if keep is not None:
        if seed is None:
            raise pytest.UsageError("--keep chooses among the faults of one run; say which with --seed")
        try:
            read_keep(keep)
        except ValueError as error:
            raise pytest.UsageError(f"--keep: {error}") from error
    deviations = config.getoption("deviations")
    if deviations is not None:
        if seed is None:
            raise pytest.UsageError("--deviations decide the order of one run; say which with --seed")
        try:
            read_deviations(deviations)
        except ValueError as error:
            raise pytest.UsageError(f"--deviations: {error}") from error


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> Generator[None, object, object]:
    """Hide from pytest-asyncio that the test is async, before it adds event loops to its parameters."""
    if metafunc.definition.get_closest_marker(MARK) is not None:
        metafunc.definition.obj = as_plain_function(metafunc.definition.obj)
    return (yield)


# The last of all wrappers is the innermost: when that of pytest-asyncio runs, the test is no longer async.
@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_pycollect_makeitem() -> Generator[None, Any, Any]:
    """Replace marked tests by simulated ones."""
    made: Any = yield
    if isinstance(made, list):
        return [as_simulated(one) for one in made]  # pyright: ignore[reportUnknownVariableType] - of pytest.
    return as_simulated(made)


@pytest.fixture
def simulation(request: pytest.FixtureRequest) -> Any:
    """Give a simulated test the `Simulation` of each of its runs."""
    item: Any = request.node  # pyright: ignore[reportUnknownMemberType] - of pytest.
    if not isinstance(item, SimulatedTest):
        pytest.fail(
            f"{item.nodeid}: only a simulated test has a simulation; mark it with @pytest.mark.{MARK}(seeds=100), "
            "or make one in the test: Simulation(seed).run(scenario)",
            pytrace=False,
        )
    return PLACEHOLDER


class SimulationOfEachRun:
    """A placeholder for the simulation until a run begins."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"there is no simulation (.{name}) yet: fixtures are made once, before the first run, and each run has a "
            "simulation of its own; use it in the test"
        )

    def __repr__(self) -> str:
        return "<the simulation of each run>"


PLACEHOLDER = SimulationOfEachRun()


# The test item.


def as_simulated(made: Any) -> Any:
    """Return a simulated test in place of a marked one; return anything else unchanged."""
    if not isinstance(made, pytest.Function) or made.get_closest_marker(MARK) is None:
        return made
    parent: Any = made.parent
    test: Any = SimulatedTest.from_parent(  # pyright: ignore[reportUnknownMemberType] - of pytest.
        parent,
        name=made.name,
        callspec=getattr(made, "callspec", None),
        fixtureinfo=made._fixtureinfo,  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - there is no public way.
        keywords=made.keywords,
        originalname=made.originalname,
    )
    test.own_markers = made.own_markers
    return test


def as_plain_function(test: Any) -> Callable[..., None]:
    """Return a function that looks like the test but is not async; it wraps the test."""

    @functools.wraps(test, updated=())
    def placeholder(*_args: Any, **_kwargs: Any) -> None:
        raise TypeError(f"{placeholder.__qualname__} is a simulated test; let pytest run it")

    return placeholder


class SimulatedTest(pytest.Function):
    """A test that is run as a scenario."""

    def _getobj(self) -> Any:
        # pytest calls this again whenever it needs another instance of the test's class.
        return as_plain_function(super()._getobj())

    def _traceback_filter(self, excinfo: pytest.ExceptionInfo[BaseException]) -> Any:
        traceback = super()._traceback_filter(excinfo)
        if not traceback or self.config.getoption("fulltrace"):
            return traceback
        # An error from outside the test, such as a deadlock, has only lines of the code that runs it: keep those.
        return traceback.filter(lambda _: Path(traceback[0].path).parent != OWN_FOLDER)

    def setup(self) -> None:
        problem = self.problem()
        if problem:
            pytest.fail(f"{self.nodeid}: {problem}", pytrace=False)
        super().setup()

    def problem(self) -> str | None:
        """Return why the test cannot be simulated; None if it can."""
        if not inspect.iscoroutinefunction(self.obj.__wrapped__):
            return f"@pytest.mark.{MARK} is for async tests; write `async def`, or remove the mark"
        try:
            self.settings()
        except ValueError as error:
            return f"@pytest.mark.{MARK}: {error}"
        for name, definitions in self._fixtureinfo.name2fixturedefs.items():
            make = definitions[-1].func
            if inspect.iscoroutinefunction(make) or inspect.isasyncgenfunction(make):
                return (
                    f"the fixture {name!r} is async and would run in another event loop than this test; "
                    "make its value in the test, or write it as a plain function"
                )
        return None

    def settings(self) -> MarkOptions:
        """Return the options of the mark, with those of the command line."""
        mark = self.get_closest_marker(MARK)
        settings = read_mark(mark.args, dict(mark.kwargs)) if mark is not None else MarkOptions()
        seeds: int | None = self.config.getoption("seeds")
        return settings if seeds is None else msgspec.structs.replace(settings, seeds=-(-seeds // settings.part))

    def runtest(self) -> None:
        __tracebackhide__ = True
        settings = self.settings()
        seed: int | None = self.config.getoption("seed")
        if seed is not None:
            self.run_alone(seed, settings)
            return
        try:
            explore(
                self.scenario(),
                seeds=settings.all_seeds,
                processes=settings.processes,
                order=settings.order,
                max_steps=settings.max_steps,
                command=self.command,
            )
        except ScenarioFailed as failed:
            # The traceback that matters is that of its cause.
            raise failed.with_traceback(None)  # noqa: B904 - it has a cause.

    def run_alone(self, seed: int, settings: MarkOptions) -> None:
        """Run one seed in this process, so that its error is the test's own and a debugger can stop in it."""
        __tracebackhide__ = True
        keep: str | None = self.config.getoption("keep")
        deviations: str | None = self.config.getoption("deviations")
        run = Simulation(
            seed,
            order=settings.order if deviations is None else read_deviations(deviations),
            keep=None if keep is None else read_keep(keep),
            max_steps=settings.max_steps,
        )
        try:
            run.run(self.scenario())
        finally:
            lines = [*run.last_events(LAST_EVENTS), f"digest {run.trace.digest}"]
            self.add_report_section("call", f"events of seed {seed}", "\n".join(lines))

    def scenario(self) -> Scenario[None]:
        """Return the test as a scenario, with the values of its fixtures."""
        test = self.obj.__wrapped__
        given = {name: self.funcargs[name] for name in self._fixtureinfo.argnames}

        async def scenario(simulation: Simulation) -> None:
            __tracebackhide__ = True
            try:
                await test(**{name: simulation if one is PLACEHOLDER else one for name, one in given.items()})
            except (pytest.skip.Exception, pytest.xfail.Exception) as ended:
                raise RuntimeError(
                    f"a simulated test cannot be skipped while it runs ({ended}), which would skip some seeds only; "
                    "use @pytest.mark.skipif or @pytest.mark.xfail"
                ) from None

        return scenario

    def command(self, seed: int, keep: Sequence[int] | None, deviations: Sequence[Deviation] | None) -> str:
        """Return the command that repeats one run of this test, from the directory in which pytest was started."""
        path = os.path.relpath(self.path, self.config.invocation_params.dir)
        _, _, name = self.nodeid.partition("::")
        words = ["pytest", f"{path}::{name}", "--seed", str(seed)]
        if keep is not None:
            words += ["--keep", ",".join(map(str, keep)) or "none"]
        if deviations is not None:
            words += ["--deviations", write_deviations(deviations)]
        return shlex.join(words)
