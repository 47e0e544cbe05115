"""Actors on several machines: refs work near and far, and what is lost with a node is told from what never ran."""

from runtime.cluster.cluster import Cluster
from runtime.cluster.errors import (
    AnswerLost,
    NeverDelivered,
    NodeLost,
    NotOneCluster,
    NotSendable,
    RemoteCrash,
    RemoteRefusal,
)
from runtime.cluster.in_process import InProcessNetwork, NetworkFaults
from runtime.cluster.node import FrameRefused
from runtime.cluster.port import NodeLife, Port, Unreachable, Versions

__all__ = [
    "AnswerLost",
    "Cluster",
    "FrameRefused",
    "InProcessNetwork",
    "NetworkFaults",
    "NeverDelivered",
    "NodeLife",
    "NodeLost",
    "NotOneCluster",
    "NotSendable",
    "Port",
    "RemoteCrash",
    "RemoteRefusal",
    "Unreachable",
    "Versions",
]
