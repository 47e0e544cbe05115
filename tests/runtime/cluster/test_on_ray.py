"""A real Ray keeps what every port keeps: three nodes in processes of their own, one of them killed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime.cluster.conformance import CHECKS

ROOT = Path(__file__).parents[3]
ALONE = ["unshare", "--net", "--map-root-user", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.real_time,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (extra `ray`)"),
]


def can_be_alone() -> bool:
    """Tell whether a process may have a network of its own here."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return False
    return subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode == 0


def test_nodes_of_a_real_ray_keep_what_every_port_keeps() -> None:
    if not can_be_alone():
        pytest.skip("a network of its own cannot be had here, and Ray would listen on others than loopback")
    done = subprocess.run(
        [*ALONE, sys.executable, "-m", "tests.runtime.cluster.ray_nodes"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    passed = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("passed")]
    assert passed == [check.__name__ for check in CHECKS], done.stdout + done.stderr[-4_000:]
