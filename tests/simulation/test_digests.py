"""One seed is one run, to the last step, wherever it runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.proofs import repeated

HERE = Path(__file__).parent
SEEDS = repeated(200, part=20)
PRINT_DIGESTS = f"""
from runtime.simulation import Simulation, find_scenario
scenario = find_scenario({str(HERE / "test_cast_under_stress.py")!r} + "::a_market_that_misbehaves")
for seed in range({SEEDS}):
    run = Simulation(seed, logs=False).run(scenario)
    print(run.digest, run.steps, run.seconds)
"""


@pytest.mark.slow
def test_one_seed_has_one_digest_in_any_process_under_any_hash_seed():
    """G10."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PRINT_DIGESTS],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=HERE.parents[1],
            stdout=subprocess.PIPE,
            text=True,
        )
        for hash_seed in ("1", "2")
    ]
    first, second = (process.communicate()[0].splitlines() for process in processes)
    assert [process.returncode for process in processes] == [0, 0]
    assert len(first) == SEEDS
    assert len(set(first)) == SEEDS
    assert first == second
