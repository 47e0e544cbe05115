"""Tools for testing actors: a probe that records messages, a wait until a system is idle, and a check for leaks."""

from runtime.testing.leaks import assert_no_leaks as assert_no_leaks
from runtime.testing.probe import TestProbe as TestProbe
from runtime.testing.quiet import until_idle as until_idle
