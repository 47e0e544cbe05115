"""The door to AGIRAILS, on the real SDK and its mock network, with real agents as providers.

Wherever a call is cut off, every micro-unit is in a balance, or in an escrow that is listed.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import math
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from agirails.runtime.types import MOCK_STATE_DEFAULTS

import actors.agirails.purchases as purchases_module
from actors.agirails.network import AgirailsNetwork
from actors.agirails.transport import MIN_PRICE
from actors.errors.families import BudgetExceeded, CallFailed, NotAdmitted, OutcomeUnknown, Permanent, Transient
from actors.money import Micros
from actors.providers.provider import Provider
from actors.transports.reconciliation import Answered, Cancels, Finding, LooksUp, Lost, NeverRan, UnderWay
from actors.transports.transport import ProviderReply
from tests.actors.agirails.agirails_town import MINTED, PRICE, REQUESTER, Town, a_call, shout, town_in
from tests.proofs import repeated
from tests.real_time import FAR, skip

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from actors.agirails.transport import AgirailsTransport

pytestmark = pytest.mark.real_time

HELLO = ProviderReply(output="HELLO", cost=PRICE)


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    before = asyncio.all_tasks()
    async with town_in(tmp_path / "books") as town:
        yield town
        assert await town.is_even()
    while asyncio.all_tasks() - before - {asyncio.current_task()}:  # noqa: ASYNC110 - it ends in its own time.
        await asyncio.sleep(0)


@contextmanager
def books_locked(town: Town) -> Iterator[None]:
    """Hold the lock of the books as another process would, and let nobody wait for it long."""
    manager = town.network._purchases._sdk._opened._state_manager
    with (
        mock.patch.object(manager, "_lock_timeout_ms", 100),
        (town.directory / "mock-state.json.lock").open("w") as file,
    ):
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def fail_at(town: Town, monkeypatch: pytest.MonkeyPatch, step: str, times: int = 1) -> None:
    """Have the books locked by somebody else whenever this step is taken, so many times."""
    sdk, left = town.network._purchases._sdk, [times]
    original = getattr(sdk, step)

    async def locked(*args: Any, **kwargs: Any) -> Any:
        if not left[0]:
            return await original(*args, **kwargs)
        left[0] -= 1
        with books_locked(town):
            return await original(*args, **kwargs)

    monkeypatch.setattr(sdk, step, locked)


class Gate:
    """Holds up the first taking of a step before or after it has its effect, until it is opened."""

    def __init__(self, town: Town, monkeypatch: pytest.MonkeyPatch, step: str, *, after: bool) -> None:
        self.reached, self.opened = asyncio.Event(), asyncio.Event()
        sdk = town.network._purchases._sdk
        original = getattr(sdk, step)

        async def held_up(*args: Any, **kwargs: Any) -> Any:
            if self.reached.is_set():
                return await original(*args, **kwargs)
            self.reached.set()
            if after:
                result = await original(*args, **kwargs)
                await self.opened.wait()
                return result
            await self.opened.wait()
            return await original(*args, **kwargs)

        monkeypatch.setattr(sdk, step, held_up)


async def failure(door: AgirailsTransport, **changes: Any) -> CallFailed:
    with pytest.raises(CallFailed) as caught:
        await door.call(a_call(**changes))
    return caught.value


async def unanswered(town: Town, door: AgirailsTransport, *states: str, **changes: Any) -> CallFailed:
    """Call, and let all the time of the call be over when its delivery is awaited and our transactions are in `states`.

    Without `states`, in whatever state they are.
    """
    call = asyncio.create_task(failure(door, **changes))
    while not door._waits and not call.done():  # noqa: ASYNC110 - it waits in its own time.
        await asyncio.sleep(0)
    if states:
        await town.until_states(*states)
    await skip(FAR)
    return await call


async def look_up(door: AgirailsTransport, **changes: Any) -> Finding:
    return await door.look_up(a_call(**changes), timeout=FAR)


async def cancel(door: AgirailsTransport, **changes: Any) -> Finding:
    return await door.cancel(a_call(**changes), timeout=FAR)


async def forever(_input: Any) -> None:
    await asyncio.Event().wait()


async def crash(_input: Any) -> None:
    raise RuntimeError("a handler that crashed")


async def test_an_answer_is_delivered_and_paid(town: Town):
    await town.open_shop("alder", shout)

    assert await town.door("alder").call(a_call()) == HELLO
    assert (await town.network.balances())[REQUESTER] == MINTED - PRICE
    assert await town.network.locked() == []
    assert await town.states() == ["SETTLED"]


async def test_an_input_of_any_shape_arrives_as_it_was(town: Town):
    async def echo(value: Any) -> Any:
        return value

    await town.open_shop("alder", echo)
    door = town.door("alder")
    for number, value in enumerate([{"text": "a;input:b\nc", "n": [1, 2.5, None]}, "Bäcker;key:7", 7, None, True]):
        reply = await door.call(a_call(input=value, idempotency_key=f";input:{number} ü"))
        assert reply.output == value


@pytest.mark.slow
async def test_a_hundred_requests_at_three_providers_are_answered_paid_and_accounted_for(town: Town):
    names = ("alder", "birch", "cedar")
    for name in names:
        await town.open_shop(name, shout)
    doors = [town.door(name) for name in names]
    places = asyncio.Semaphore(10)

    async def request(number: int) -> ProviderReply:
        async with places:
            return await doors[number % 3].call(a_call(input=f"text {number}", idempotency_key=f"key-{number}"))

    count = repeated(100, at_least=30)  # Each rewrites the books, which grow with every one.
    replies = await asyncio.gather(*(request(number) for number in range(count)))

    assert [reply.output for reply in replies] == [f"TEXT {number}" for number in range(count)]
    assert await town.states() == ["SETTLED"] * count
    assert (await town.network.balances())[REQUESTER] == MINTED - count * PRICE


async def test_a_handler_that_crashes_leaves_the_money_held_and_listed(town: Town):
    await town.open_shop("alder", crash)
    door = town.door("alder")

    error = await unanswered(town, door, "IN_PROGRESS")

    assert (type(error), error.charged) == (OutcomeUnknown, "held")
    assert await look_up(door) == UnderWay()
    assert await cancel(door) == UnderWay()
    (held,) = await town.network.locked()
    assert (held.state, held.amount, held.key) == ("IN_PROGRESS", PRICE, "key-1")
    assert held.provider == town.provider("alder").address
    assert f"IN_PROGRESS: $0.06 for {held.provider}, key 'key-1'" in str(held)


async def test_what_nobody_has_begun_can_be_called_off(town: Town):
    door = town.door("alder")

    assert isinstance(await unanswered(town, door), OutcomeUnknown)
    assert [one.state for one in await town.network.locked()] == ["COMMITTED"]
    assert await look_up(door) == UnderWay()
    assert await cancel(door) == NeverRan()
    assert await look_up(door) == NeverRan()
    assert await cancel(door) == NeverRan()
    assert await town.network.locked() == []
    assert (await town.network.balances())[REQUESTER] == MINTED


async def test_by_the_rules_of_the_chain_nothing_is_called_off_before_its_deadline(town: Town):
    network = town.another_network(chain_rules=True, delivery_within=3600)
    door = network.transport(town.provider("alder"))
    await unanswered(town, door)

    refused = await cancel(door)
    assert isinstance(refused, UnderWay)
    assert refused.until is not None
    assert 3000 < refused.until - asyncio.get_running_loop().time() <= 3602
    runtime = await network._purchases._sdk._runtime()
    await runtime.time.advance_time(3601)
    assert await cancel(door) == NeverRan()


async def test_an_answer_that_comes_too_late_is_found_and_paid_once(town: Town):
    may_answer = asyncio.Event()

    async def slow(text: str) -> str:
        await may_answer.wait()
        return text.upper()

    await town.open_shop("alder", slow)
    door = town.door("alder")
    assert isinstance(await unanswered(town, door, "IN_PROGRESS"), OutcomeUnknown)
    may_answer.set()
    await town.until_states("DELIVERED")

    while (found := await look_up(door)) == UnderWay():
        pass  # It is delivered, and what is following.
    assert found == Answered(HELLO)
    assert await look_up(door) == Answered(HELLO)
    assert await cancel(door) == Answered(HELLO)
    assert (await town.network.balances())[REQUESTER] == MINTED - PRICE
    assert await town.network.locked() == []


async def test_late_answers_that_nobody_looks_up_are_paid_when_the_network_settles(town: Town):
    may_answer = asyncio.Event()

    async def slow(text: str) -> str:
        await may_answer.wait()
        return text.upper()

    await town.open_shop("alder", slow)
    await unanswered(town, town.door("alder"), "IN_PROGRESS")
    assert await town.network.settle() == 0
    may_answer.set()
    await town.until_states("DELIVERED")

    assert [one.state for one in await town.network.locked()] == ["DELIVERED"]
    assert await town.network.settle() == PRICE
    assert await town.network.locked() == []


async def test_a_repeated_call_is_answered_from_the_books_and_not_paid_again(town: Town):
    await town.open_shop("alder", shout)

    assert await town.door("alder").call(a_call()) == HELLO
    assert await town.door("alder").call(a_call()) == HELLO
    # As after a restart: nothing is remembered but the books.
    again = town.another_network().transport(town.provider("alder"))
    assert await again.call(a_call()) == HELLO
    assert await town.states() == ["SETTLED"]


async def test_a_repeated_call_without_time_to_read_the_answer_does_not_say_that_nothing_was_paid(
    town: Town, monkeypatch: pytest.MonkeyPatch
):
    await town.open_shop("alder", shout)
    door = town.door("alder")
    await door.call(a_call())
    monkeypatch.setattr(town.network._purchases._deliveries, "_read", lambda: forever(None))

    assert isinstance(await unanswered(town, door), OutcomeUnknown)
    assert await look_up(door) == Answered(HELLO)


async def test_a_repeated_call_goes_on_waiting_for_what_the_first_has_paid(town: Town):
    door = town.door("alder")
    assert isinstance(await unanswered(town, door), OutcomeUnknown)
    await town.open_shop("alder", shout)

    assert await door.call(a_call()) == HELLO
    assert await town.states() == ["SETTLED"]


async def test_calls_under_one_key_at_the_same_time_make_one_transaction(town: Town):
    await town.open_shop("alder", shout)
    doors = [town.door("alder"), town.door("alder")]
    doors += [town.another_network().transport(town.provider("alder")) for _ in range(2)]

    replies = await asyncio.gather(*(door.call(a_call()) for door in doors), return_exceptions=True)

    # Networks that do not know of each other may both create one; whoever comes second calls its own off.
    states = await town.states()
    assert states[0] == "SETTLED"
    assert set(states[1:]) <= {"CANCELLED"}
    assert (await town.network.balances())[REQUESTER] == MINTED - PRICE
    assert HELLO in replies
    assert all(reply == HELLO or isinstance(reply, OutcomeUnknown) for reply in replies)
    for door in doors:
        assert await look_up(door) == Answered(HELLO)


async def test_another_provider_is_another_purchase_under_the_same_key(town: Town):
    for name in ("alder", "birch"):
        await town.open_shop(name, shout)

    assert await town.door("alder").call(a_call()) == HELLO
    assert await town.door("birch").call(a_call()) == HELLO
    assert await town.states() == ["SETTLED"] * 2


async def test_a_key_that_belongs_to_another_request_is_refused(town: Town):
    door = town.door("alder")
    await unanswered(town, door)

    error = await failure(door, input="something else")

    assert (type(error), error.outcome, error.charged) == (Permanent, "not_started", "no")
    assert len(await town.states()) == 1
    for find_out in (look_up, cancel):  # Nor is what became of the one told to the other, or called off for it.
        with pytest.raises(Permanent, match="the idempotency key 'key-1' belongs to another request"):
            await find_out(door, input="something else")
    assert await town.states() == ["COMMITTED"]


async def test_an_equal_input_in_another_order_is_the_same_request(town: Town):
    async def count(words: dict[str, int]) -> int:
        return sum(words.values())

    await town.open_shop("alder", count)
    door = town.door("alder")
    for words in ({"a": 1, "b": 2}, {"b": 2, "a": 1}):
        assert (await door.call(a_call(input=words))).output == 3
    assert await town.states() == ["SETTLED"]


async def test_an_answer_that_is_no_json_to_others_is_an_answer(town: Town):
    async def measure(_input: Any) -> Any:
        return {"score": math.inf, "text": "done"}

    await town.open_shop("alder", measure)
    assert (await town.door("alder").call(a_call())).output == {"score": math.inf, "text": "done"}


@pytest.mark.parametrize("by", ["an offer", "another process"])
async def test_no_more_is_locked_than_was_offered_whatever_is_agreed_meanwhile(
    town: Town, monkeypatch: pytest.MonkeyPatch, by: str
):
    """Between the writing down of a transaction and the locking of its money, its amount may change, or its place."""
    await town.open_shop("alder", shout)
    door, sdk = town.door("alder"), town.network._purchases._sdk
    runtime = await sdk._runtime()
    create = sdk.create

    async def create_and_raise(**terms: Any) -> str:
        if by == "another process":
            await create(**terms | {"amount": 15 * PRICE})  # Which comes first, and is what both go on with.
            return await create(**terms)
        made = await create(**terms)
        await runtime.transition_state(made, "QUOTED", "0x1")
        await runtime.accept_quote(made, str(int(15 * PRICE)))
        return made

    monkeypatch.setattr(sdk, "create", create_and_raise)
    error = await failure(door)
    assert (type(error), error.charged) == (NotAdmitted, "no")
    assert "is for $0.90, and $0.06 was offered" in str(error)
    assert await town.network.locked() == []

    monkeypatch.setattr(sdk, "create", create)
    assert await door.call(a_call()) == HELLO  # What nobody has paid for is called off, and made anew.
    assert (await town.network.balances())[REQUESTER] == MINTED - PRICE


async def test_what_was_written_down_and_not_paid_before_its_time_was_up_is_made_anew(
    town: Town, monkeypatch: pytest.MonkeyPatch
):
    door, sdk = town.door("alder"), town.network._purchases._sdk
    with monkeypatch.context() as patch:
        for step in ("lock", "cancel"):
            fail_at(town, patch, step)
        await failure(door)
    assert await town.states() == ["INITIATED"]
    await (await sdk._runtime()).time.advance_time(7200)
    await town.open_shop("alder", shout)

    assert await door.call(a_call()) == HELLO
    assert await town.states() == ["CANCELLED", "SETTLED"]


async def test_what_another_process_has_paid_for_is_not_called_off_by_one_that_gives_up(
    town: Town, monkeypatch: pytest.MonkeyPatch
):
    door, other = town.door("alder"), town.another_network().transport(town.provider("alder"))
    sdk = town.network._purchases._sdk
    create, read = sdk.create, sdk.read
    has_read, goes_on = asyncio.Event(), asyncio.Event()

    async def read_and_wait() -> Any:
        monkeypatch.setattr(sdk, "read", read)
        books = await read()
        has_read.set()
        await goes_on.wait()
        return books

    async def create_and_have_the_next_reading_wait(**terms: Any) -> str:
        created = await create(**terms)
        monkeypatch.setattr(sdk, "read", read_and_wait)
        return created

    monkeypatch.setattr(sdk, "create", create_and_have_the_next_reading_wait)
    first = asyncio.create_task(door.call(a_call()))
    await has_read.wait()
    paid = asyncio.create_task(other.call(a_call()))
    await town.until_states("COMMITTED")
    first.cancel()
    goes_on.set()
    await asyncio.wait([first])
    await skip(FAR)
    await asyncio.wait([paid])

    assert isinstance(paid.exception(), OutcomeUnknown)
    assert await town.states() == ["COMMITTED"]


async def test_what_was_called_off_is_bought_anew_under_its_key(town: Town):
    door = town.door("alder")
    await unanswered(town, door)
    await cancel(door)
    await town.open_shop("alder", shout)

    assert await door.call(a_call()) == HELLO
    assert await town.states() == ["CANCELLED", "SETTLED"]


async def test_without_enough_money_nothing_is_bought_and_nobody_else_is_tried(town: Town):
    error = await failure(town.door("alder"), max_cost=MINTED + 1)

    assert (type(error), error.outcome, error.charged) == (Permanent, "not_started", "no")
    assert "InsufficientBalanceError" in str(error)
    assert await town.states() == ["CANCELLED"]


@pytest.mark.parametrize(
    "changes", [{"service": "a;b"}, {"service": ""}, {"input": {1, 2}.__iter__()}, {"input": "\ud800"}]
)
async def test_what_cannot_be_described_is_the_callers_mistake(town: Town, changes: dict[str, Any]):
    error = await failure(town.door("alder"), **changes)

    assert (type(error), error.outcome) == (Permanent, "not_started")
    assert await town.states() == []


async def test_less_than_the_least_price_is_not_offered(town: Town):
    assert MOCK_STATE_DEFAULTS["min_amount_wei"] == MIN_PRICE
    assert isinstance(await failure(town.door("alder"), max_cost=MIN_PRICE - 1), BudgetExceeded)
    assert await town.states() == []


@pytest.mark.parametrize("step", ["create", "lock"])
async def test_books_locked_by_others_before_the_money_is_locked_mean_that_it_never_ran(
    town: Town, monkeypatch: pytest.MonkeyPatch, step: str
):
    await town.open_shop("alder", shout)
    fail_at(town, monkeypatch, step)
    door = town.door("alder")

    error = await failure(door)

    assert type(error) is NotAdmitted
    assert (error.outcome, error.charged, error.retryable) == ("not_started", "no", True)
    assert await look_up(door) == NeverRan()
    assert set(await town.states()) <= {"CANCELLED"}
    assert await door.call(a_call()) == HELLO


async def test_what_could_not_even_be_called_off_is_gone_on_with_under_its_key(
    town: Town, monkeypatch: pytest.MonkeyPatch
):
    await town.open_shop("alder", shout)
    fail_at(town, monkeypatch, "lock")
    fail_at(town, monkeypatch, "cancel")
    door = town.door("alder")

    assert type(await failure(door)) is NotAdmitted
    assert await town.states() == ["INITIATED"]
    assert await look_up(door) == NeverRan()
    assert await door.call(a_call()) == HELLO
    assert await town.states() == ["SETTLED"]


async def test_an_answer_that_cannot_be_paid_yet_is_given_all_the_same(town: Town, monkeypatch: pytest.MonkeyPatch):
    await town.open_shop("alder", shout)
    fail_at(town, monkeypatch, "release")

    assert await town.door("alder").call(a_call()) == HELLO
    assert [one.state for one in await town.network.locked()] == ["DELIVERED"]
    assert await town.network.settle() == PRICE


@pytest.mark.parametrize("step", ["create", "lock", "release", "cancel"])
async def test_a_writing_that_broke_after_it_was_done_is_known_by_its_effect(
    town: Town, monkeypatch: pytest.MonkeyPatch, step: str
):
    sdk = town.network._purchases._sdk
    original = getattr(sdk, step)

    async def broken(*args: Any, **kwargs: Any) -> None:
        await original(*args, **kwargs)
        raise TimeoutError("with_lock operation timed out")

    monkeypatch.setattr(sdk, step, broken)
    door = town.door("alder")
    if step == "create":
        assert type(await failure(door)) is NotAdmitted
        assert await look_up(door) == NeverRan()
    elif step == "lock":
        error = await failure(door)
        assert (type(error), error.charged) == (OutcomeUnknown, "held")
        assert await look_up(door) == UnderWay()
        assert len(await town.network.locked()) == 1
    elif step == "release":
        await town.open_shop("alder", shout)
        with monkeypatch.context() as patch:
            patch.setattr(sdk, "release", original)
            fail_at(town, patch, "release")
            assert await door.call(a_call()) == HELLO
        assert await town.network.settle() == PRICE
        assert await town.network.locked() == []
    else:
        await unanswered(town, door)
        assert await cancel(door) == NeverRan()


async def test_an_answer_that_is_no_json_is_lost_and_paid(town: Town):
    async def unspeakable(_input: Any) -> Any:
        return {1, 2}

    await town.open_shop("alder", unspeakable)
    door = town.door("alder")

    assert isinstance(await failure(door), OutcomeUnknown)
    assert await look_up(door) == Lost(PRICE)
    assert await town.network.locked() == []


async def test_a_delivery_without_its_answer_is_waited_for_and_then_lost(town: Town, monkeypatch: pytest.MonkeyPatch):
    door = town.door("alder")
    await unanswered(town, door)
    runtime = await town.network._purchases._sdk._runtime()
    (held,) = await town.network.locked()
    for state in ("IN_PROGRESS", "DELIVERED"):
        await runtime.transition_state(held.transaction, state, "0x00")

    assert isinstance(await unanswered(town, door), OutcomeUnknown)
    assert await look_up(door) == UnderWay()
    monkeypatch.setattr(purchases_module, "PROOF_WITHIN", 0.0)
    assert await look_up(door) == Lost(PRICE)
    assert await town.network.locked() == []


async def test_how_long_an_answer_is_waited_for_does_not_begin_anew_with_another_door(
    town: Town, monkeypatch: pytest.MonkeyPatch
):
    await unanswered(town, town.door("alder"))
    runtime = await town.network._purchases._sdk._runtime()
    (held,) = await town.network.locked()
    for state in ("IN_PROGRESS", "DELIVERED"):
        await runtime.transition_state(held.transaction, state, "0x00")

    assert await look_up(town.door("alder")) == UnderWay()
    monkeypatch.setattr(purchases_module, "PROOF_WITHIN", 1e-9)
    assert await look_up(town.door("alder")) == Lost(PRICE)
    assert town.network._purchases._without_proof == {}


async def test_a_dispute_keeps_the_money_held(town: Town):
    door = town.door("alder")
    await unanswered(town, door)
    runtime = await town.network._purchases._sdk._runtime()
    (held,) = await town.network.locked()
    for state in ("IN_PROGRESS", "DELIVERED", "DISPUTED"):
        await runtime.transition_state(held.transaction, state, "0x00")

    assert "is disputed" in str(await failure(door))
    assert await look_up(door) == UnderWay()
    assert [one.state for one in await town.network.locked()] == ["DISPUTED"]


async def test_who_is_too_late_to_call_off_is_told_what_there_is_instead(town: Town, monkeypatch: pytest.MonkeyPatch):
    door, runtime = town.door("alder"), await town.network._purchases._sdk._runtime()
    await unanswered(town, door)
    (held,) = await town.network.locked()
    gate = Gate(town, monkeypatch, "cancel", after=False)
    cancelling = asyncio.create_task(cancel(door))
    await gate.reached.wait()
    for state in ("IN_PROGRESS", "DELIVERED"):
        await runtime.transition_state(held.transaction, state, '{"result":"HELLO"}')
    gate.opened.set()

    assert await cancelling == Answered(HELLO)


async def test_what_cannot_be_called_off_now_is_still_held(town: Town, monkeypatch: pytest.MonkeyPatch):
    door = town.door("alder")
    await unanswered(town, door)
    fail_at(town, monkeypatch, "cancel")

    with pytest.raises(Transient, match="MockStateLockError"):
        await cancel(door)
    assert [one.state for one in await town.network.locked()] == ["COMMITTED"]


async def test_a_call_that_is_called_off_while_it_waits_never_ran(town: Town):
    door = town.door("alder")
    call = asyncio.create_task(door.call(a_call()))
    await town.until_states("COMMITTED")

    assert await cancel(door) == NeverRan()
    with pytest.raises(NotAdmitted, match="was cancelled"):
        await call


async def test_books_that_are_lost_leave_the_outcome_unknown(town: Town):
    door = town.door("alder")
    call = asyncio.create_task(door.call(a_call()))
    await town.until_states("COMMITTED")
    books = town.directory / "mock-state.json"
    kept = books.read_text()
    state = json.loads(kept)
    books.write_text(json.dumps(state | {"transactions": {}, "escrows": {}}))

    with pytest.raises(OutcomeUnknown, match="the network has lost it"):
        await call
    books.write_text(kept)


async def test_books_that_cannot_be_read_end_a_call_at_its_deadline(town: Town):
    door = town.door("alder")
    call = asyncio.create_task(door.call(a_call()))
    await town.until_states("COMMITTED")
    books = town.directory / "mock-state.json"
    kept = books.read_text()
    books.write_text("{")
    await skip(FAR)

    assert isinstance((await asyncio.gather(call, return_exceptions=True))[0], OutcomeUnknown)
    with pytest.raises(Transient):
        await look_up(door)
    with pytest.raises(Permanent, match="MockStateCorruptedError"):
        await door.check(timeout=FAR)
    assert type(await failure(door, idempotency_key="key-2")) is Permanent
    books.write_text(kept)
    await door.check(timeout=FAR)


async def cut_off(door: AgirailsTransport, key: str, after: float) -> None:
    """Begin a call and cancel it, as a caller who has gone would."""
    task = asyncio.create_task(door.call(a_call(idempotency_key=key)))
    asyncio.get_running_loop().call_later(after, task.cancel)
    await asyncio.wait([task])


async def accounted_for(town: Town, key: str) -> str:
    """Return what became of the transaction of a key: settled, cancelled, listed, or never made."""
    if any(one.key == key for one in await town.network.locked()):
        return "listed"
    books = await town.network._purchases.read()
    states = {one.state for one in books.of(REQUESTER) if f"key:{key};" in one.description}
    assert states <= {"SETTLED", "CANCELLED"}, states
    return states.pop().lower() if states else "never made"


@pytest.mark.slow
async def test_a_caller_may_go_at_any_point_of_a_call_and_the_books_are_even(town: Town):
    await town.open_shop("alder", shout)
    door, clock = town.door("alder"), asyncio.get_running_loop().time
    began = clock()
    await door.call(a_call(idempotency_key="whole"))
    whole = clock() - began

    became: dict[str, str] = {}
    for point in range(20):
        key = f"cut-{point}"
        await cut_off(door, key, after=whole * point / 20)
        assert await town.is_even()
        became[key] = await accounted_for(town, key)

    for key, what in became.items():
        found = await door.look_up(a_call(idempotency_key=key), timeout=FAR)
        if what in {"never made", "cancelled"}:
            assert found == NeverRan()
        # Whoever calls again under the key is answered, and has paid once.
        assert await door.call(a_call(idempotency_key=key)) == HELLO
    assert (await town.network.balances())[REQUESTER] == MINTED - 21 * PRICE
    assert await town.network.locked() == []


@pytest.mark.slow
async def test_time_may_run_out_at_any_point_of_a_call_and_what_is_said_of_the_money_is_true(town: Town):
    door = town.door("alder")  # Nobody works there.
    for point in range(1, 21):
        key = f"late-{point}"
        error = await failure(door, idempotency_key=key, timeout=0.004 * point)
        held = any(one.key == key for one in await town.network.locked())
        assert (error.charged, isinstance(error, OutcomeUnknown)) == (("held", True) if held else ("no", False))
        assert isinstance(await look_up(door, idempotency_key=key), UnderWay if held else NeverRan)
        assert await town.is_even()


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(
    ("step", "became", "found"),
    [
        ("read", "never made", NeverRan()),
        ("create", "cancelled", NeverRan()),
        ("lock", "listed", UnderWay()),
        ("release", "settled", Answered(HELLO)),
    ],
)
async def test_a_caller_who_goes_in_the_middle_of_a_step_is_gone_once_its_end_is_known(
    town: Town, monkeypatch: pytest.MonkeyPatch, step: str, became: str, found: Finding, moment: str
):
    if step == "release":
        await town.open_shop("alder", shout)
    door, gate = town.door("alder"), Gate(town, monkeypatch, step, after=moment == "after")
    call = asyncio.create_task(door.call(a_call()))
    await gate.reached.wait()

    for _ in range(3):  # However often it is told to.
        call.cancel()
        await asyncio.sleep(0)
    looking = asyncio.create_task(look_up(door))
    await asyncio.sleep(0)
    assert not call.done()
    gate.opened.set()

    await asyncio.wait([call])
    assert call.cancelled()
    # Whoever looks meanwhile is told what it became, and not what it was in the middle.
    assert await looking == found
    assert await accounted_for(town, "key-1") == became
    assert await town.is_even()


async def test_time_that_runs_out_in_the_middle_of_a_step_is_told_by_what_it_led_to(
    town: Town, monkeypatch: pytest.MonkeyPatch
):
    door, ends = town.door("alder"), {"create": NotAdmitted, "lock": OutcomeUnknown}
    for step, family in ends.items():
        gate = Gate(town, monkeypatch, step, after=True)
        failing = asyncio.create_task(failure(door, idempotency_key=step))
        await gate.reached.wait()
        await skip(FAR)
        gate.opened.set()
        assert type(await failing) is family
    assert await town.states() == ["CANCELLED", "COMMITTED"]


async def test_an_answer_that_came_in_time_is_given_although_paying_for_it_took_longer(
    town: Town, monkeypatch: pytest.MonkeyPatch
):
    await town.open_shop("alder", shout)
    gate = Gate(town, monkeypatch, "release", after=False)
    call = asyncio.create_task(town.door("alder").call(a_call()))
    await gate.reached.wait()
    await skip(FAR)
    gate.opened.set()

    assert await call == HELLO
    assert await town.network.locked() == []


async def test_writings_take_turns_among_all_doors_of_a_network(town: Town, monkeypatch: pytest.MonkeyPatch):
    for name in ("alder", "birch"):
        await town.open_shop(name, shout)
    sdk, writing, most = town.network._purchases._sdk, [0], [0]
    for step in ("create", "lock", "release", "cancel"):
        original = getattr(sdk, step)

        async def counted(*args: Any, original: Any = original, **kwargs: Any) -> Any:
            writing[0] += 1
            most[0] = max(most[0], writing[0])
            try:
                return await original(*args, **kwargs)
            finally:
                writing[0] -= 1

        monkeypatch.setattr(sdk, step, counted)

    doors = [town.door("alder"), town.door("birch")]
    await asyncio.gather(*(doors[n % 2].call(a_call(idempotency_key=f"key-{n}")) for n in range(10)))

    assert most == [1]


async def test_a_door_that_closes_buys_nothing_more(town: Town, monkeypatch: pytest.MonkeyPatch):
    door, gate = town.door("alder"), Gate(town, monkeypatch, "create", after=True)
    calls = [asyncio.create_task(door.call(a_call(idempotency_key=f"key-{n}"))) for n in range(3)]
    await gate.reached.wait()

    closing = asyncio.create_task(door.aclose())
    await asyncio.sleep(0)
    assert not closing.done()
    gate.opened.set()
    await closing

    assert all(call.done() and type(call.exception()) is NotAdmitted for call in calls)
    assert await town.states() == ["CANCELLED"]


async def test_many_callers_that_go_at_once_leave_nothing_behind(town: Town):
    await town.open_shop("alder", shout)
    door = town.door("alder")
    keys = [f"key-{number}" for number in range(30)]

    await asyncio.gather(*(cut_off(door, key, after=0.01 * number) for number, key in enumerate(keys)))

    assert await town.is_even()
    for key in keys:
        await accounted_for(town, key)
    assert repr(door).endswith("0 calls under way)")
    assert "0 transactions awaited" in repr(town.network)


async def test_closing_ends_the_waiting_of_calls_under_way_and_tells_the_truth(town: Town):
    door, other = town.door("alder"), town.door("alder")
    waiting = asyncio.create_task(door.call(a_call()))
    await town.until_states("COMMITTED")
    queued = [asyncio.create_task(door.call(a_call(idempotency_key=f"key-{n}"))) for n in range(2, 8)]
    await asyncio.sleep(0)

    await door.aclose()
    await door.aclose()

    results = await asyncio.gather(waiting, *queued, return_exceptions=True)
    assert isinstance(results[0], OutcomeUnknown)
    held = {one.key for one in await town.network.locked()}
    for number, result in enumerate(results, 1):
        assert isinstance(result, OutcomeUnknown if f"key-{number}" in held else NotAdmitted)
    with pytest.raises(RuntimeError, match="is closed; make a new one"):
        await door.call(a_call())
    # The network is shared, and goes on.
    assert await cancel(other) == NeverRan()


async def test_no_thread_but_those_of_the_loop_itself_is_left(town: Town):
    await town.open_shop("alder", shout)
    door = town.door("alder")
    await asyncio.gather(*(door.call(a_call(idempotency_key=f"key-{n}")) for n in range(5)))

    names = {thread.name for thread in threading.enumerate()}
    assert all(name == "MainThread" or "asyncio" in name or "AnyIO" in name for name in names), names


async def test_what_can_be_reconciled_says_so(town: Town):
    door = town.door("alder")

    assert isinstance(door, LooksUp)
    assert isinstance(door, Cancels)
    assert (door.paid, door.idempotent) == (True, "no")
    assert await look_up(door) == NeverRan()
    listing = town.network.listing(town.provider("alder"), timeout=7.0)
    assert (listing.timeout, listing.transport().paid) == (7.0, True)
    await door.check(timeout=FAR)


def test_what_could_never_work_is_refused_when_it_is_made(tmp_path: Path):
    with pytest.raises(ValueError, match="requester must be 0x"):
        AgirailsNetwork(state_directory=tmp_path, requester="me")
    with pytest.raises(ValueError, match="poll_every must be > 0"):
        AgirailsNetwork(state_directory=tmp_path, requester=REQUESTER, poll_every=0)
    for within in (0, 1.5, True, float("inf"), 10**13):
        with pytest.raises(ValueError, match="delivery_within must be a whole number of seconds from 1 to 315360000"):
            AgirailsNetwork(state_directory=tmp_path, requester=REQUESTER, delivery_within=within)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="state_directory must be the path of a directory"):
        AgirailsNetwork(state_directory="", requester=REQUESTER)
    network = AgirailsNetwork(state_directory=tmp_path, requester=REQUESTER)
    with pytest.raises(ValueError, match="address of 'alder' must be 0x"):
        network.transport(Provider(name="alder", services={"shout"}, price=PRICE))
    with pytest.raises(ValueError, match=r"price of 'alder' must be >= \$0.05"):
        network.listing(Provider(name="alder", services={"shout"}, price=Micros(1), address=REQUESTER))


def test_the_sdk_is_imported_only_when_a_network_is_used():
    program = (
        "import sys, tempfile, actors\n"
        "from actors.agirails import AgirailsNetwork\n"
        f"AgirailsNetwork(state_directory=tempfile.gettempdir(), requester={REQUESTER!r})\n"
        "print([name for name in sys.modules if name.partition('.')[0] in ('agirails', 'web3', 'aiohttp')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_the_sdk_the_error_says_what_to_install():
    program = (
        "import sys, importlib.util as util, tempfile\n"
        "found = util.find_spec\n"
        "util.find_spec = lambda name, *a: None if name == 'agirails' else found(name, *a)\n"
        "from actors.agirails import AgirailsNetwork\n"
        f"AgirailsNetwork(state_directory=tempfile.gettempdir(), requester={REQUESTER!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert 'ImportError: AgirailsNetwork needs the SDK of AGIRAILS; write: pip install "understudy[agirails]"' in (
        done.stderr
    )


async def test_an_earlier_call_is_taken_up_by_its_transaction_and_waits_for_its_delivery(town: Town):
    door, opened = town.door("alder"), asyncio.Event()

    async def serve(text: str) -> str:
        await opened.wait()
        return text.upper()

    await town.open_shop("alder", serve)
    call = a_call()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.0):
            await door.call(call)
    handle = call.notes.handle
    assert handle is not None
    assert [one.transaction for one in await town.network.locked()] == [handle]
    other = town.another_network().transport(town.provider("alder"))  # As in the next life of the program.
    assert await other.resume(handle, a_call(timeout=0.01)) == UnderWay()
    asyncio.get_running_loop().call_later(0.2, opened.set)
    assert await other.resume(handle, a_call(timeout=FAR)) == Answered(HELLO)
    assert await town.states() == ["SETTLED"]


async def test_a_transaction_that_was_cancelled_never_ran_and_another_requests_is_refused(town: Town):
    door, call = town.door("nobody"), a_call()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await door.call(call)
    handle = call.notes.handle
    assert handle is not None
    assert isinstance(await door.cancel(a_call(), timeout=FAR), NeverRan)
    assert await door.resume(handle, a_call(timeout=FAR)) == NeverRan()
    with pytest.raises(Permanent, match="belongs to another request"):
        await door.resume(handle, a_call(input="another", timeout=FAR))
