"""`python -m benchmarks.growth` prints the rows."""

from __future__ import annotations

from benchmarks.growth import rows
from benchmarks.harness import report

report(rows.collect, rows.__doc__ or "")
