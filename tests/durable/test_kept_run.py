"""A run that is killed at any moment goes on: no request is lost, none is there twice, and none is paid for twice."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.durable.kept_run import kept_run
from tests.proofs import repeated

if TYPE_CHECKING:
    from pathlib import Path

TIMES = repeated(100, part=100)
"""How often each run is killed: each time takes a process, and that a second."""
PRICE = 10_000


@pytest.mark.slow
@pytest.mark.real_time
@pytest.mark.parametrize("honours", [True, False], ids=["keys honoured", "keys not honoured"])
def test_a_run_that_is_killed_at_any_moment_pays_for_nothing_twice(tmp_path: Path, *, honours: bool) -> None:
    dice = random.Random(17)
    with kept_run(tmp_path, honours=honours, requests=5 * TIMES + 5) as run:
        for _ in range(TIMES):
            run.kill_after(dice.randrange(4), dice.random() * 0.2)
        code = run.finish()
        ended, calls = run.check(), run.calls
        if honours:
            assert (code, ended) == (0, {"done": run.requests})
            assert run.charged == run.requests * PRICE
            assert (run.report["spent"], run.report["in_doubt"]) == (f"{run.requests / 100:.2f}", "0.00")
            return
        assert set(ended) <= {"done", "unknown"}
        assert code == (1 if ended["unknown"] else 0)
        assert len(calls) <= run.requests  # None was bought again.
        assert ended["done"] * PRICE <= run.charged <= (ended["done"] + ended["unknown"]) * PRICE
        assert float(run.report["spent"]) == pytest.approx(ended["done"] / 100)
        assert float(run.report["in_doubt"]) == pytest.approx(ended["unknown"] / 100)
        # Each of them can be paid for again, if that is said.
        assert run.finish("--retry-unknown") == 0
        assert run.check() == {"done": run.requests}
