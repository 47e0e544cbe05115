"""The life of an actor as one table: the next phase, and what to do, for each event in each phase.

Pure: no clock, no tasks, no I/O. `life` performs what the table says.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable


class Phase(Enum):
    """Where a cell is in its life."""

    STARTING = "starting"
    ALIVE = "running"
    ENDING = "ending"
    AWAITING_RESTART = "awaiting restart"
    ENDED = "ended"

    __hash__ = object.__hash__  # That of an Enum is a function of Python, which would slow each look-up down.


class Goal(IntEnum):
    """Why the present instance ends, and so what follows. A higher goal overrules a lower one."""

    NONE = 0
    PAUSE = 1
    """Its supervisor restarts it together with a sibling that failed."""
    CRASH = 2
    RENEW = 3
    """It stopped itself, and is of the kind that is restarted then (`Restart.PERMANENT`)."""
    RETIRE = 4
    """It stopped itself, for good."""
    STOP = 5
    KILL = 6


class LifeEvent(Enum):
    """What happens to an actor, beside the demand that it end, which is a `Goal`."""

    STARTED = "started"
    """Its `started` hook returned."""
    QUIET = "quiet"
    """No handler or hook of it is on the stack, so that it may end now if it is to."""
    CLEANED_UP = "cleaned up"
    """Its instance handles nothing any more, its children have ended, and its `stopped` hook has run."""
    RESTART_DUE = "restart due"
    GIVEN_UP = "given up"
    """Its supervisor does not restart it."""

    __hash__ = object.__hash__


class Action(Enum):
    """What a transition makes a cell do."""

    CLOSE_MAILBOX = "close the mailbox"
    CANCEL_RESTART = "cancel the restart that is due"
    CANCEL_HANDLERS = "cancel the handlers"
    KILL_CHILDREN = "kill the children"
    WIND_DOWN = "wind down"
    """Let handlers and children end, run the `stopped` hook, and then report `CLEANED_UP`."""
    RELEASE = "release the instance"
    """Give up what belonged to the instance, and put its mail back into the mailbox."""
    ASK_SUPERVISOR = "ask the supervisor"
    """Have it decide: it restarts the actor (`RESTART_DUE`) or does not (`GIVEN_UP`)."""
    END_STOPPED = "end as stopped"
    END_KILLED = "end as killed"
    END_GIVEN_UP = "end as the supervisor says"
    NOTIFY = "wake what waits for the end of the instance"
    ENQUEUE_START = "enqueue the start"
    """Let a new instance start in the cell's next turn."""

    __hash__ = object.__hash__


Event: TypeAlias = LifeEvent | Goal
"""What the table is asked about: something that happened, or the demand that the instance end with this goal."""


class Transition(NamedTuple):
    """What follows an event: the phase and goal from now on, and the actions, in their order."""

    phase: Phase
    goal: Goal
    actions: tuple[Action, ...] = ()


# A global name is read ten times faster than an attribute of an Enum.
STARTING, ALIVE, ENDING, ENDED = Phase.STARTING, Phase.ALIVE, Phase.ENDING, Phase.ENDED
AWAITING_RESTART = Phase.AWAITING_RESTART
NO_GOAL, PAUSE, CRASH, RENEW = Goal.NONE, Goal.PAUSE, Goal.CRASH, Goal.RENEW
RETIRE, STOP, KILL = Goal.RETIRE, Goal.STOP, Goal.KILL
STARTED, QUIET, CLEANED_UP = LifeEvent.STARTED, LifeEvent.QUIET, LifeEvent.CLEANED_UP
RESTART_DUE, GIVEN_UP = LifeEvent.RESTART_DUE, LifeEvent.GIVEN_UP

INSTANCE_OVER: dict[Goal, Transition] = {
    Goal.NONE: Transition(AWAITING_RESTART, NO_GOAL, (Action.RELEASE, Action.NOTIFY)),
    Goal.PAUSE: Transition(AWAITING_RESTART, NO_GOAL, (Action.RELEASE, Action.NOTIFY)),
    Goal.CRASH: Transition(AWAITING_RESTART, NO_GOAL, (Action.RELEASE, Action.ASK_SUPERVISOR, Action.NOTIFY)),
    Goal.RENEW: Transition(AWAITING_RESTART, NO_GOAL, (Action.RELEASE, Action.ASK_SUPERVISOR, Action.NOTIFY)),
    Goal.RETIRE: Transition(ENDED, NO_GOAL, (Action.RELEASE, Action.END_STOPPED, Action.NOTIFY)),
    Goal.STOP: Transition(ENDED, NO_GOAL, (Action.RELEASE, Action.END_STOPPED, Action.NOTIFY)),
    Goal.KILL: Transition(ENDED, NO_GOAL, (Action.RELEASE, Action.END_KILLED, Action.NOTIFY)),
}
"""What follows once an instance is cleaned up, by its goal."""
AT_ONCE: dict[Goal, tuple[Action, ...]] = {
    Goal.CRASH: (Action.CANCEL_HANDLERS,),
    Goal.KILL: (Action.CANCEL_HANDLERS, Action.KILL_CHILDREN),
}
"""What an instance does as soon as it begins to end; with other goals, its handlers and children have their time."""


def next_transition(phase: Phase, goal: Goal, event: Event) -> Transition:
    """Decide what follows an event. An event that changes nothing gives the same phase and goal, and no action.

    An actor that crashes while it runs is wound down, and then its supervisor decides:

    >>> next_transition(Phase.ALIVE, Goal.NONE, Goal.CRASH)
    Transition(phase=<Phase.ALIVE: 'running'>, goal=<Goal.CRASH: 2>, actions=())
    >>> next_transition(Phase.ALIVE, Goal.CRASH, LifeEvent.QUIET).actions
    (<Action.CANCEL_HANDLERS: 'cancel the handlers'>, <Action.WIND_DOWN: 'wind down'>)
    >>> next_transition(Phase.ENDING, Goal.CRASH, LifeEvent.CLEANED_UP).actions[1]
    <Action.ASK_SUPERVISOR: 'ask the supervisor'>

    A stop during the backoff before a restart is final, and a crash does not overrule it:

    >>> next_transition(Phase.AWAITING_RESTART, Goal.NONE, Goal.STOP).phase
    <Phase.ENDED: 'ended'>
    >>> next_transition(Phase.ENDING, Goal.STOP, Goal.CRASH)
    Transition(phase=<Phase.ENDING: 'ending'>, goal=<Goal.STOP: 5>, actions=())
    """
    unchanged = Transition(phase, goal)
    if phase is ENDED:
        return unchanged
    if isinstance(event, Goal):
        return transition_to_end(phase, goal, event)
    match event:
        case LifeEvent.STARTED if phase is STARTING and goal is NO_GOAL:
            return Transition(ALIVE, goal)
        case LifeEvent.QUIET if phase in (STARTING, ALIVE) and goal is not NO_GOAL:
            return Transition(ENDING, goal, (*AT_ONCE.get(goal, ()), Action.WIND_DOWN))
        case LifeEvent.CLEANED_UP if phase is ENDING:
            return INSTANCE_OVER[goal]
        case LifeEvent.RESTART_DUE if phase is AWAITING_RESTART:
            return Transition(STARTING, goal, (Action.ENQUEUE_START,))
        case LifeEvent.GIVEN_UP:
            return Transition(ENDED, NO_GOAL, (Action.END_GIVEN_UP, Action.NOTIFY))
        case _:
            return unchanged


def transition_to_end(phase: Phase, goal: Goal, demanded: Goal) -> Transition:
    """Decide what follows the demand that the instance end with a goal.

    There are five cases: 1. it has ended already, and is to wait for its group; 2. a goal that is as high or higher
    stands; 3. there is no instance to clean up; 4. an end under way is cut short; 5. it ends once it is quiet, or does
    so already.
    """
    if phase is AWAITING_RESTART and demanded is PAUSE:  # 1.
        return Transition(phase, goal, (Action.CANCEL_RESTART,))
    if demanded <= goal:  # 2.
        return Transition(phase, goal)
    close = (Action.CLOSE_MAILBOX,) if demanded >= RETIRE else ()
    if phase is AWAITING_RESTART:  # 3.
        over = INSTANCE_OVER[demanded]
        return Transition(over.phase, over.goal, (*close, Action.CANCEL_RESTART, *over.actions))
    if phase is ENDING and demanded is KILL:  # 4.
        return Transition(phase, demanded, (*close, Action.CANCEL_HANDLERS, Action.KILL_CHILDREN))
    return Transition(phase, demanded, close)  # 5.


class LifeState:
    """A phase and a goal, as a cell holds them together, and where each event leads from there."""

    __slots__ = ("goal", "phase", "plan")

    def __init__(self, phase: Phase, goal: Goal) -> None:
        self.phase = phase
        self.goal = goal
        self.plan: dict[Event, tuple[LifeState, tuple[Callable[[Any], None], ...]]] = {}
        """The table's row, with functions in place of the actions: `life` fills it in."""

    def __repr__(self) -> str:
        return f"<LifeState {self.phase.value}, goal {self.goal.name}>"


TRANSITIONS: dict[tuple[Phase, Goal, Event], Transition] = {
    key: next_transition(*key) for key in product(Phase, Goal, (*Goal, *LifeEvent))
}
"""The whole table."""
LIFE_STATES = {(phase, goal): LifeState(phase, goal) for phase, goal in product(Phase, Goal)}
IN_SERVICE = LIFE_STATES[ALIVE, NO_GOAL]
"""The state of an actor that handles its mail, and is to go on."""
STARTING_UP = LIFE_STATES[STARTING, NO_GOAL]
"""The state of an actor whose `started` hook is to run, or runs, and which is to go on."""
