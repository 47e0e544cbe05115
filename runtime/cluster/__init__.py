"""Actors on several machines: refs work near and far, and what is lost with a node is told from what never ran."""

from runtime.cluster.adoption import adopt
from runtime.cluster.cluster import Cluster
from runtime.cluster.contact import TAKEOVER
from runtime.cluster.errors import AnswerLost, NeverDelivered, NodeLost, NotSendable, RemoteCrash, RemoteRefusal
from runtime.cluster.hosting import ContactLost, ContactRegained
from runtime.cluster.in_process import InProcessNetwork, NetworkFaults
from runtime.cluster.journals import JournalFolder, MemoryFolder
from runtime.cluster.moving import ANYWHERE
from runtime.cluster.node import FrameRefused

__all__ = [
    "ANYWHERE",
    "TAKEOVER",
    "AnswerLost",
    "Cluster",
    "ContactLost",
    "ContactRegained",
    "FrameRefused",
    "InProcessNetwork",
    "JournalFolder",
    "MemoryFolder",
    "NetworkFaults",
    "NeverDelivered",
    "NodeLost",
    "NotSendable",
    "RemoteCrash",
    "RemoteRefusal",
    "adopt",
]
