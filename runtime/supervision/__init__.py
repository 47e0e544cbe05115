"""Supervision as pure decisions: which actors restart, how often, and what the end of an actor means."""

from runtime.supervision.exits import KILLED, STOPPED, Exit, ExitReason, Restart, calls_for_restart, ended_by
from runtime.supervision.intensity import RestartIntensity
from runtime.supervision.strategy import Directive, Reroute, Strategy, Supervision, restart_set

__all__ = [
    "KILLED",
    "STOPPED",
    "Directive",
    "Exit",
    "ExitReason",
    "Reroute",
    "Restart",
    "RestartIntensity",
    "Strategy",
    "Supervision",
    "calls_for_restart",
    "ended_by",
    "restart_set",
]
