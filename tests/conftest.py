"""What every test runs under: virtual time, unless the test says that it needs the real one."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings

from runtime.simulation import VirtualTimeLoop
from tests.real_time import RealTimeLoop

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    import pytest

pytest_plugins = ["pytester", "runtime.simulation.plugin"]

# Files below typing/ hold deliberate mistakes: project/test_typing.py type-checks them, nothing runs them.
collect_ignore = ["typing"]


def pytest_configure() -> None:
    # A busy machine is no failure: neither has an example a deadline, nor is it too slow to make one.
    settings.register_profile("understudy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("understudy")
    # A shell that starts the tests in the background has them ignore SIGINT, and so would every program that
    # they start; those which interrupt a program need the default.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # A process of pytest-xdist has a second thread, and so does not fork; one test there starts these elsewhere.
    if hasattr(config, "workerinput"):
        items[:] = [item for item in items if item.get_closest_marker("forks") is None]


def pytest_asyncio_loop_factories(
    config: pytest.Config,  # noqa: ARG001 - the hook's signature.
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Give an async test a loop in virtual time; `real_time` marks those that use sockets, processes or threads."""
    if item.get_closest_marker("real_time"):
        return {"real": RealTimeLoop}
    return {"virtual": VirtualTimeLoop}
