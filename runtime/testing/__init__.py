"""Tools to test your own actors with: a probe, waiting until all is quiet, and the proof that nothing leaked."""

from runtime.testing.leaks import assert_no_leaks as assert_no_leaks
from runtime.testing.probe import TestProbe as TestProbe
from runtime.testing.quiet import until_idle as until_idle
