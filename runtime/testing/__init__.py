"""Tools for testing actors: a probe that records messages, a wait until a system is idle, and a check for leaks."""

from runtime.testing.leaks import assert_no_leaks
from runtime.testing.probe import TestProbe
from runtime.testing.quiet import until_idle

__all__ = [
    "TestProbe",
    "assert_no_leaks",
    "until_idle",
]
