"""An actor runtime on asyncio: mailboxes, supervision and deadlines. It has no notion of providers."""

from runtime.actor import Actor, Context
from runtime.backoff import IMMEDIATELY, Backoff
from runtime.blocking import ThreadPool, run_in_process, run_in_thread
from runtime.cancellation import is_being_cancelled
from runtime.deadline import DeadlineWatch, current_deadline, earlier
from runtime.errors import (
    ActorCrashed,
    ActorStopped,
    AskTimeout,
    MailboxFull,
    NameTaken,
    Refusal,
    RuntimeFault,
    SystemClosed,
    Unhandled,
    WrongThread,
)
from runtime.event_stream import EventStream, Subscription
from runtime.events import (
    ActorEnded,
    ActorFailed,
    ActorRestarted,
    ActorStarted,
    CancellationIgnored,
    DeadLetter,
    DeadReason,
    Event,
    Terminated,
)
from runtime.handlers import handles
from runtime.interceptor import Interceptor
from runtime.log import logger_for
from runtime.mailbox import Mailbox, Overflow
from runtime.messages import Message, Request
from runtime.ref import ActorRef
from runtime.registry import ActorRegistry, Key, Registered
from runtime.routing import ConsistentHash, LeastBusy, RoundRobin, Routing, ask_first, pool, router
from runtime.snapshot import ActorSnapshot
from runtime.streams import feed, outlet, through
from runtime.supervision import Directive, Exit, ExitReason, Reroute, Restart, RestartIntensity, Strategy, Supervision
from runtime.system import ActorSystem
from runtime.timers import Timer

__all__ = [
    "IMMEDIATELY",
    "Actor",
    "ActorCrashed",
    "ActorEnded",
    "ActorFailed",
    "ActorRef",
    "ActorRegistry",
    "ActorRestarted",
    "ActorSnapshot",
    "ActorStarted",
    "ActorStopped",
    "ActorSystem",
    "AskTimeout",
    "Backoff",
    "CancellationIgnored",
    "ConsistentHash",
    "Context",
    "DeadLetter",
    "DeadReason",
    "DeadlineWatch",
    "Directive",
    "Event",
    "EventStream",
    "Exit",
    "ExitReason",
    "Interceptor",
    "Key",
    "LeastBusy",
    "Mailbox",
    "MailboxFull",
    "Message",
    "NameTaken",
    "Overflow",
    "Refusal",
    "Registered",
    "Request",
    "Reroute",
    "Restart",
    "RestartIntensity",
    "RoundRobin",
    "Routing",
    "RuntimeFault",
    "Strategy",
    "Subscription",
    "Supervision",
    "SystemClosed",
    "Terminated",
    "ThreadPool",
    "Timer",
    "Unhandled",
    "WrongThread",
    "ask_first",
    "current_deadline",
    "earlier",
    "feed",
    "handles",
    "is_being_cancelled",
    "logger_for",
    "outlet",
    "pool",
    "router",
    "run_in_process",
    "run_in_thread",
    "through",
]
