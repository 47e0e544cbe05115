"""`--ray`: the requests of a run are served on the nodes of a Ray cluster, while its ledger and journal stay here."""

from __future__ import annotations

import importlib.util
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from actors.command.bad_input import BadInput, one_line
from actors.errors.families import Permanent
from actors.market.file import read_text
from actors.spread import GetNodes, Spread, deputy_by_text
from runtime import ActorSystem, RuntimeFault

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from actors.command.plan import Plan
    from actors.command.progress import ProgressDisplay
    from runtime import ActorRef
    from runtime.cluster import Cluster

HERE = "auto"
"""The address that stands for the cluster that runs on this machine, or else a new one of this machine alone."""
CLUSTER = "understudy-run"
"""Runs have nodes of their own: those of other programs may be the homes of keyed actors."""
PLACING = 60.0
"""Seconds in which it must be known of each node whether it can serve."""


def check_ray(address: str | None, *, traces: float | None = None) -> None:
    """Raise `BadInput` if requests are to be served on nodes, and Ray is not installed, or traces are asked for."""
    if address is None:
        return
    if traces is not None:
        raise BadInput("--traces: a run with --ray records none, for its calls are made on the nodes; leave one out")
    if not address:
        raise BadInput(f'--ray: expected the address of a Ray cluster, or "{HERE}", got an empty string')
    if importlib.util.find_spec("ray") is None:
        raise BadInput('--ray: Ray is not installed; write: pip install "understudy[ray]"')


@asynccontextmanager
async def system_for(plan: Plan) -> AsyncGenerator[tuple[ActorSystem, Cluster | None]]:
    """Run the actor system of a run; with `--ray` it is that of a guest of the cluster."""
    address = plan.options.ray
    if address is None:
        async with ActorSystem("run", seed=plan.options.seed) as system:
            yield system, None
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Otherwise Ray warns of what it will change.
    on_ray: Any = importlib.import_module("runtime.cluster.on_ray")
    joining = on_ray.join(None if address == HERE else address, cluster=CLUSTER)
    try:
        cluster: Cluster = await joining.__aenter__()
    except (RuntimeFault, ConnectionError, ValueError, RuntimeError) as error:
        raise BadInput(f"--ray: the cluster at {address} cannot be joined: {one_line(str(error))}") from error
    try:
        yield cluster.node.system, cluster
    finally:
        await joining.__aexit__(None, None, None)


def spawn_spread(system: ActorSystem, plan: Plan, ledger: ActorRef[Any], cluster: Cluster) -> ActorRef[Any]:
    """Start the supervisor of a run that is served on nodes."""
    path = plan.market_path
    args = (read_text(path), path)
    return system.spawn(
        lambda: Spread(plan.market, ledger=ledger, cluster=cluster, deputy=deputy_by_text, args=args),
        name="supervisor",
    )


async def note_nodes(supervisor: ActorRef[Any], cluster: Cluster | None, progress: ProgressDisplay) -> None:
    """Say which nodes of a cluster serve, once that is known. Raises `BadInput` if none can."""
    if cluster is None:
        return
    try:
        nodes = await supervisor.ask(GetNodes(), timeout=PLACING)
    except (Permanent, RuntimeFault) as error:
        raise BadInput(f"--ray: {one_line(str(error))}") from error
    progress.note(f"served on {', '.join(nodes)}")
