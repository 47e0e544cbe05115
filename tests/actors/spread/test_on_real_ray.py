"""`understudy run --ray` over three machines of a real Ray, one of which is killed while another one joins."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from tests.proofs import repeated
from tests.runtime.cluster.test_on_ray import ALONE, can_be_alone

ROOT = Path(__file__).parents[3]
PRICE = Decimal("0.001")

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.real_time,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (extra `ray`)"),
]


def test_a_batch_outlives_the_kill_of_a_machine_and_pays_for_nothing_twice(tmp_path: Path) -> None:
    if not can_be_alone():
        pytest.skip("a network of its own cannot be had here, and Ray would listen on others than loopback")
    count = repeated(2_000, part=8)
    done = subprocess.run(
        [*ALONE, sys.executable, "-m", "tests.actors.spread.ray_batch", str(tmp_path), str(count)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(lines) == 2, done.stdout + done.stderr[-4_000:]
    for found, is_honoured in zip(lines, (True, False), strict=True):
        unknown = found["statuses"]["unknown"]
        spent, in_doubt = ([Decimal(one) for one in found[name]] for name in ("spent", "in_doubt"))
        assert found["codes"] == [3, 1 if unknown else 0]  # First there was too little money.
        assert found["statuses"]["done"] + unknown == found["lines"] == count
        assert not (unknown if is_honoured else unknown > 60)
        assert not (found["charged_twice"] if is_honoured else found["repeated"])
        assert not found["wrong"]
        assert found["most_in_a_second"] <= 120 + 10  # The rate and the burst that the provider allows.
        for number, charged in enumerate(found["charged"]):
            assert spent[number] <= PRICE * charged <= spent[number] + in_doubt[number]
        assert PRICE * found["charged"][0] <= Decimal("0.00095") * count
