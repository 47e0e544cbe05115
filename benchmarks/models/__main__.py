"""`python -m benchmarks.models` prints the rows."""

from __future__ import annotations

from benchmarks.harness import report
from benchmarks.models import rows

report(rows.collect, rows.__doc__ or "")
