"""A model server on this machine that fails by seed and keeps its own books: for tests, benchmarks and rehearsals."""

from __future__ import annotations

from actors.fake.config import FakeConfig, FakeLimits, FakeModel
from actors.fake.faults import FaultPlan
from actors.fake.prices import FakePrice
from actors.fake.server import FakeServer, fake_server

__all__ = ["FakeConfig", "FakeLimits", "FakeModel", "FakePrice", "FakeServer", "FaultPlan", "fake_server"]
