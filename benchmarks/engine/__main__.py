"""`python -m benchmarks.engine` prints the rows."""

from __future__ import annotations

from benchmarks.engine import rows
from benchmarks.harness import report

report(rows.collect, rows.__doc__ or "")
