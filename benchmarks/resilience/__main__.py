"""`python -m benchmarks.resilience` prints the rows."""

from __future__ import annotations

from benchmarks.harness import report
from benchmarks.resilience import rows

report(rows.collect, rows.__doc__ or "")
