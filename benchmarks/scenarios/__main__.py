"""`python -m benchmarks.scenarios` prints the rows."""

from __future__ import annotations

import sys

from benchmarks.scenarios.rows import main

sys.exit(main())
