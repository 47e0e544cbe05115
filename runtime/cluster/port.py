"""The port to what joins machines: four calls, behind which another engine can take the place of Ray."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol

import msgspec

from runtime.cluster.errors import NotOneCluster


class Versions(msgspec.Struct, frozen=True):
    """What two nodes must have in common: messages are decoded by the same classes at both."""

    python: str
    understudy: str
    engine: str = ""

    def check(self, node: str, other: Versions) -> None:
        """Raise `NotOneCluster`, naming what differs, unless a node's `other` versions are these."""
        different = [
            f"{field} {getattr(other, field)!r} instead of {getattr(self, field)!r}"
            for field in self.__struct_fields__
            if getattr(other, field) != getattr(self, field)
        ]
        if different:
            raise NotOneCluster(f"node {node!r} cannot be joined: it has {', '.join(different)}; install the same")


class NodeLife(msgspec.Struct, frozen=True):
    """One life of a node: a node that is started again has the same name and a higher epoch."""

    name: str
    epoch: int

    def __str__(self) -> str:
        return self.name


class Unreachable(Exception):
    """A batch did not get through, or its reply did not come back; the node may be alive, and it may be sent again."""


class Port(Protocol):
    """What a node needs of the engine that places nodes, restarts them, and notices their death."""

    versions: Versions

    async def place(self, node: str) -> NodeLife:
        """Start the node of that name if it does not run, and return its life."""
        ...

    async def resolve(self, node: str) -> NodeLife:
        """Return the life that a node has now. Raises `NodeLost` if there is no such node."""
        ...

    async def send_batch(self, to: NodeLife, batch: bytes) -> bytes:
        """Hand a batch to a node, and return its reply. Raises `Unreachable`; `NodeLost` if that life is over."""
        ...

    async def watch(self, life: NodeLife) -> str:
        """Return, with the reason, when a life of a node is over or it counts as such."""
        ...


def own_versions(engine: str = "") -> Versions:
    """Return the versions of this process."""
    try:
        own = version("understudy")
    except PackageNotFoundError:
        own = "source"
    python = ".".join(platform.python_version_tuple()[:2])
    return Versions(python=python, understudy=own, engine=engine)
