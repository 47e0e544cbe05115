"""`python -m benchmarks.cluster` prints the rows; it needs Ray, and a network of its own, which it makes."""

from __future__ import annotations

import os
import sys

from benchmarks.cluster import rows
from benchmarks.harness import report

IN_NAMESPACE = "UNDERSTUDY_ALONE"
ALONE = ["unshare", "--net", "--map-root-user", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]

if IN_NAMESPACE not in os.environ:
    # Ray listens on every address but loopback if there are others; here there are none.
    os.environ[IN_NAMESPACE] = "1"
    os.execvp(ALONE[0], [*ALONE, sys.executable, "-m", "benchmarks.cluster", *sys.argv[1:]])  # noqa: S606 - constants.
report(rows.collect, rows.__doc__ or "")
