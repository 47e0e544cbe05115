"""`python -m benchmarks.front_door` prints the rows."""

from __future__ import annotations

from benchmarks.front_door import rows
from benchmarks.harness import report

if __name__ == "__main__":
    report(rows.collect, rows.__doc__ or "")
