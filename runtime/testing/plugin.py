"""A pytest plugin with the fixture `system`: an actor system for one test, which must leave nothing behind.

Put `pytest_plugins = ["runtime.testing.plugin"]` into your `conftest.py`. It needs pytest-asyncio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest_asyncio

from runtime.system import ActorSystem
from runtime.testing.leaks import assert_no_leaks

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import pytest


@pytest_asyncio.fixture
async def system(request: pytest.FixtureRequest) -> AsyncGenerator[ActorSystem]:
    """Give the test a running system of its own, named after it, and fail the test if it leaves anything behind.

    A failure that no supervisor handles fails the test too. The system's randomness has the seed 0.
    """
    name: str = request.node.name  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - of pytest.
    async with assert_no_leaks(), ActorSystem(name.replace("/", "-"), seed=0) as running:
        yield running
