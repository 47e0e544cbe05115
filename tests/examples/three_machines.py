"""Runs the example on Ray over three machines in one; a program of its own, in a network of its own."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

EXAMPLE = Path(__file__).parents[2] / "examples" / "on_ray.py"


def main() -> int:
    """Start three machines of Ray, and run the example from the first."""
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    cluster_utils: Any = importlib.import_module("ray.cluster_utils")
    options = {"num_cpus": 1, "object_store_memory": 80_000_000}
    machines = cluster_utils.Cluster(
        initialize_head=True, head_node_args={**options, "include_dashboard": False, "node_name": "a"}
    )
    try:
        for name in "bc":
            machines.add_node(**options, node_name=name)
        return subprocess.run([sys.executable, str(EXAMPLE), machines.address], check=False).returncode
    finally:
        machines.shutdown()


if __name__ == "__main__":
    sys.exit(main())
