"""Supervision as pure decisions: which actors restart, how often, and what the end of an actor means."""

from runtime.supervision.exits import KILLED as KILLED
from runtime.supervision.exits import STOPPED as STOPPED
from runtime.supervision.exits import Exit as Exit
from runtime.supervision.exits import ExitReason as ExitReason
from runtime.supervision.exits import Restart as Restart
from runtime.supervision.exits import calls_for_restart as calls_for_restart
from runtime.supervision.exits import ended_by as ended_by
from runtime.supervision.intensity import RestartIntensity as RestartIntensity
from runtime.supervision.strategy import DEFAULT_SUPERVISION as DEFAULT_SUPERVISION
from runtime.supervision.strategy import Directive as Directive
from runtime.supervision.strategy import Reroute as Reroute
from runtime.supervision.strategy import Strategy as Strategy
from runtime.supervision.strategy import Supervision as Supervision
from runtime.supervision.strategy import restart_set as restart_set
