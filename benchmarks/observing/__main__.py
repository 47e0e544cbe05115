"""`python -m benchmarks.observing` prints the rows."""

from __future__ import annotations

from benchmarks.harness import report
from benchmarks.observing import rows

report(rows.collect, rows.__doc__ or "")
