"""What every test runs under: virtual time, unless the test says that it needs the real one."""

from __future__ import annotations

import signal
from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, settings

from runtime.simulation import VirtualTimeLoop
from tests.proofs import EXTENT, repeated
from tests.real_time import RealTimeLoop

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    import pytest

pytest_plugins = ["pytester", "runtime.simulation.plugin"]

# Files below typing/ hold deliberate mistakes: project/test_typing.py type-checks them, nothing runs them.
collect_ignore = ["typing"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--nightly", action="store_true", help="run every proof by repetition in its whole length")


def pytest_configure(config: pytest.Config) -> None:
    EXTENT.is_whole = config.getoption("--nightly")
    # A busy machine is no failure: neither has an example a deadline, nor is it too slow to make one.
    settings.register_profile(
        "understudy", deadline=None, max_examples=repeated(250), suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("understudy")
    # A shell that starts the tests in the background has them ignore SIGINT, and so would every program that
    # they start; those which interrupt a program need the default.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = set[str]()
    if not EXTENT.is_whole:
        left_out.add("nightly")
    if "browser" not in config.option.markexpr:
        left_out.add("browser")  # It drives a browser, which need not be there, for half a minute.
    if hasattr(config, "workerinput"):
        # A process of pytest-xdist has a second thread, and so does not fork; one test there starts these elsewhere.
        left_out.add("forks")
    deselected = [item for item in items if any(map(item.get_closest_marker, left_out))]
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        items[:] = [item for item in items if item not in deselected]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say of a night what was run in it, and how long each file took."""
    if not config.getoption("--nightly"):
        return
    ran, took = Counter[str](), Counter[str]()
    for report in chain.from_iterable(terminalreporter.stats.values()):
        if hasattr(report, "when") and hasattr(report, "duration"):
            file = report.nodeid.partition("::")[0]
            ran[file] += report.when == "call"
            took[file] += report.duration
    terminalreporter.section("what was run, and how long it took")
    for file, seconds in took.most_common():
        terminalreporter.write_line(f"{seconds:8.1f} s  {ran[file]:5d} tests  {file}")


def pytest_asyncio_loop_factories(
    config: pytest.Config,  # noqa: ARG001 - the hook's signature.
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Give an async test a loop in virtual time; `real_time` marks those that use sockets, processes or threads."""
    if item.get_closest_marker("real_time"):
        return {"real": RealTimeLoop}
    return {"virtual": VirtualTimeLoop}
