"""The life of an actor as a table: every event is decided in every phase, whatever the goal. G7, G8."""

from __future__ import annotations

from itertools import product

import pytest

from runtime.cell.phases import TRANSITIONS, Action, Goal, LifeEvent, Phase, Transition, next_transition

DEMANDS = [goal for goal in Goal if goal]
EVERYTHING = list(product(Phase, Goal, (*Goal, *LifeEvent)))
IN_LIFE = [Phase.STARTING, Phase.ALIVE]


def steps(phase: Phase, *events: LifeEvent | Goal) -> list[Transition]:
    """Return the transitions of an actor that goes through these events from a phase, without a goal, on."""
    goal, taken = Goal.NONE, []
    for event in events:
        taken.append(TRANSITIONS[phase, goal, event])
        phase, goal, _ = taken[-1]
    return taken


def test_every_event_is_decided_in_every_phase_with_every_goal():
    assert set(TRANSITIONS) == set(EVERYTHING)
    for key, step in TRANSITIONS.items():
        assert step == next_transition(*key)
        assert (type(step.phase), type(step.goal)) == (Phase, Goal)
        assert len(set(step.actions)) == len(step.actions), "no action twice"


def test_every_phase_is_reached_and_every_action_taken():
    reached, ahead = set(), [(Phase.STARTING, Goal.NONE), (Phase.ALIVE, Goal.NONE)]
    taken: set[Action] = set()
    while ahead:
        if (now := ahead.pop()) in reached:
            continue
        reached.add(now)
        for event in (*Goal, *LifeEvent):
            step = TRANSITIONS[(*now, event)]
            ahead.append((step.phase, step.goal))
            taken |= set(step.actions)
    assert {phase for phase, _ in reached} == set(Phase)
    assert taken == set(Action)
    rests = {phase for phase, goal in reached if goal is Goal.NONE}
    assert rests == {Phase.STARTING, Phase.ALIVE, Phase.AWAITING_RESTART, Phase.ENDED}, "what ends has a goal"
    assert {goal for phase, goal in reached if phase in (Phase.AWAITING_RESTART, Phase.ENDED)} == {Goal.NONE}


def test_nothing_happens_to_an_actor_that_has_ended():
    for goal, event in product(Goal, (*Goal, *LifeEvent)):
        assert TRANSITIONS[Phase.ENDED, goal, event] == (Phase.ENDED, goal, ())


def test_a_higher_goal_overrules_a_lower_one_and_never_the_other_way_round():
    for phase, goal, demanded in product((*IN_LIFE, Phase.ENDING), Goal, Goal):
        step = TRANSITIONS[phase, goal, demanded]
        assert (step.phase, step.goal) == (phase, max(goal, demanded))
        if demanded <= goal:
            assert step.actions == ()


@pytest.mark.parametrize(("phase", "demanded"), list(product(IN_LIFE, DEMANDS)))
def test_an_instance_ends_once_it_is_quiet_and_only_if_it_is_to(phase: Phase, demanded: Goal):
    assert TRANSITIONS[phase, Goal.NONE, LifeEvent.QUIET] == (phase, Goal.NONE, ())
    demand, quiet = steps(phase, demanded, LifeEvent.QUIET)
    assert demand.phase is phase
    assert quiet.phase is Phase.ENDING
    assert quiet.actions[-1] is Action.WIND_DOWN
    assert (Action.CANCEL_HANDLERS in quiet.actions) == (demanded in (Goal.CRASH, Goal.KILL))


@pytest.mark.parametrize(("phase", "demanded"), list(product([*IN_LIFE, Phase.AWAITING_RESTART], DEMANDS)))
def test_the_mailbox_is_closed_as_soon_as_the_end_is_final(phase: Phase, demanded: Goal):
    final = demanded in (Goal.RETIRE, Goal.STOP, Goal.KILL)
    assert (Action.CLOSE_MAILBOX in TRANSITIONS[phase, Goal.NONE, demanded].actions) == final


@pytest.mark.parametrize(
    ("demanded", "phase", "then"),
    [
        (Goal.PAUSE, Phase.AWAITING_RESTART, None),
        (Goal.CRASH, Phase.AWAITING_RESTART, Action.ASK_SUPERVISOR),
        (Goal.RENEW, Phase.AWAITING_RESTART, Action.ASK_SUPERVISOR),
        (Goal.RETIRE, Phase.ENDED, Action.END_STOPPED),
        (Goal.STOP, Phase.ENDED, Action.END_STOPPED),
        (Goal.KILL, Phase.ENDED, Action.END_KILLED),
    ],
)
def test_what_follows_an_instance_is_its_goal(demanded: Goal, phase: Phase, then: Action | None):
    """G7, G8."""
    over = steps(Phase.ALIVE, demanded, LifeEvent.QUIET, LifeEvent.CLEANED_UP)[-1]
    assert (over.phase, over.goal) == (phase, Goal.NONE)
    assert over.actions == (Action.RELEASE, *((then,) if then else ()), Action.NOTIFY)


def test_a_kill_cuts_an_end_short_and_nothing_else_does():
    for demanded in DEMANDS:
        step = TRANSITIONS[Phase.ENDING, Goal.PAUSE, demanded]
        hurries = Action.CANCEL_HANDLERS in step.actions and Action.KILL_CHILDREN in step.actions
        assert hurries == (demanded is Goal.KILL)
        assert step.phase is Phase.ENDING, "it is wound down once"


def test_a_restart_makes_a_new_instance_that_lives():
    """G7."""
    events = (Goal.CRASH, LifeEvent.QUIET, LifeEvent.CLEANED_UP, LifeEvent.RESTART_DUE, LifeEvent.STARTED)
    taken = steps(Phase.ALIVE, *events)
    assert taken[-1] == (Phase.ALIVE, Goal.NONE, ())
    assert [action for step in taken for action in step.actions] == [
        Action.CANCEL_HANDLERS,
        Action.WIND_DOWN,
        Action.RELEASE,
        Action.ASK_SUPERVISOR,
        Action.NOTIFY,
        Action.ENQUEUE_START,
    ]


def test_an_end_during_the_backoff_is_final_and_a_pause_puts_the_restart_off():
    """G7, G8."""
    (stop,) = steps(Phase.AWAITING_RESTART, Goal.STOP)
    assert stop.phase is Phase.ENDED
    assert stop.actions[:2] == (Action.CLOSE_MAILBOX, Action.CANCEL_RESTART)
    assert Action.END_STOPPED in stop.actions
    pause = TRANSITIONS[Phase.AWAITING_RESTART, Goal.NONE, Goal.PAUSE]
    assert pause == (Phase.AWAITING_RESTART, Goal.NONE, (Action.CANCEL_RESTART,))


def test_a_start_that_comes_after_the_demand_to_end_begins_no_life():
    """G8."""
    for demanded in DEMANDS:
        assert TRANSITIONS[Phase.STARTING, demanded, LifeEvent.STARTED] == (Phase.STARTING, demanded, ())
        assert TRANSITIONS[Phase.ENDING, demanded, LifeEvent.STARTED] == (Phase.ENDING, demanded, ())


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.AWAITING_RESTART])
def test_only_an_actor_that_awaits_it_is_restarted(phase: Phase):
    """G7."""
    for goal in Goal:
        assert TRANSITIONS[phase, goal, LifeEvent.RESTART_DUE] == (phase, goal, ())
    assert TRANSITIONS[Phase.AWAITING_RESTART, Goal.NONE, LifeEvent.RESTART_DUE].phase is Phase.STARTING


def test_an_actor_that_its_supervisor_gives_up_has_ended():
    """G7."""
    for phase in Phase:
        step = TRANSITIONS[phase, Goal.NONE, LifeEvent.GIVEN_UP]
        assert step.phase is Phase.ENDED
        assert (Action.END_GIVEN_UP in step.actions) == (phase is not Phase.ENDED)
