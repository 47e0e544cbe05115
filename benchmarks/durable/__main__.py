"""`python -m benchmarks.durable` prints the rows."""

from __future__ import annotations

from benchmarks.durable import rows
from benchmarks.harness import report

report(rows.collect, rows.__doc__ or "")
