"""Runs the checks of conformance over nodes a, b and c on a real Ray; a program of its own, in a network of its own.

Ray avoids loopback addresses if there are others, so `test_on_ray.py` starts it in a namespace that has no others.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import sys
import traceback
from contextlib import AsyncExitStack
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tests.runtime.cluster.conformance import CHECKS

if TYPE_CHECKING:
    from runtime.cluster import Cluster

HEALTH = {"initial_delay_ms": 0, "period_ms": 300, "timeout_ms": 600, "failure_threshold": 3}
"""With which Ray notices a dead machine within 2 seconds."""


class NodesOnRay:
    """Nodes of a real Ray, each with a raylet of its own."""

    def __init__(self, here: Cluster) -> None:
        self.here = here

    async def kill(self, node: str) -> None:
        port: Any = self.here.node.port
        os.kill(await port.process_of(node), signal.SIGKILL)

    async def revive(self, node: str) -> None:
        """Ray has it begin again by itself."""


async def check_all() -> int:
    """Run every check; return how many failed."""
    on_ray = importlib.import_module("runtime.cluster.on_ray")
    failed = 0
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory())
        here = await stack.enter_async_context(on_ray.join(homes=["a", "b", "c"], journals=folder))
        for check in CHECKS:
            end = "passed"
            try:
                async with asyncio.timeout(60):
                    await check(NodesOnRay(here))
            except Exception:  # noqa: BLE001 - printed; the others are still of interest.
                traceback.print_exc()
                end, failed = "failed", failed + 1
            sys.stdout.write(f"{end} {check.__name__}\n")
            sys.stdout.flush()
    return failed


def main() -> int:
    """Start three machines of Ray in this one, and check them."""
    os.environ.update({f"RAY_health_check_{name}": str(value) for name, value in HEALTH.items()})
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    cluster_utils: Any = importlib.import_module("ray.cluster_utils")
    options = {"num_cpus": 1, "object_store_memory": 80_000_000}
    machines = cluster_utils.Cluster(
        initialize_head=True, head_node_args={**options, "include_dashboard": False, "node_name": "a"}
    )
    for name in "bc":
        machines.add_node(**options, node_name=name)
    ray: Any = importlib.import_module("ray")
    ray.init(address=machines.address, namespace="understudy", log_to_driver=False)
    try:
        return asyncio.run(check_all())
    finally:
        ray.shutdown()
        machines.shutdown()


if __name__ == "__main__":
    sys.exit(main())
