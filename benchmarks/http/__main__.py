"""`python -m benchmarks.http` prints the rows."""

from __future__ import annotations

from benchmarks.harness import report
from benchmarks.http import rows

report(rows.collect, rows.__doc__ or "")
