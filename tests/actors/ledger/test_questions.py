"""Questions to the owner of the money: answered once, for a period or for good, over restarts of the program."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from actors import FunctionTransport, Listing, Market, Provider, ProviderCall, Supervisor, smart_request
from actors.errors.families import BudgetExceeded, Permanent
from actors.ledger.approvals import CapAnswer
from actors.ledger.entries import QuestionAnswered, QuestionAsked
from actors.ledger.ledger import Ledger
from actors.ledger.messages import AnswerQuestion, BookCall, GetStatement, Reserve, SetCap
from runtime import ActorSystem
from tests.actors.ledger.clock import Clock
from tests.actors.ledger.journalled import entries_of

if TYPE_CHECKING:
    from pathlib import Path

    from actors.ledger.statement import Statement
    from runtime import ActorRef

DAY = 86_400.0


class Owner:
    """Answers as planned, and remembers the numbers of the questions; "never" is an answer that does not come."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[int | None] = []

    async def __call__(self, statement: Statement, needed: int) -> Any:
        self.asked.append(statement.question)
        await asyncio.sleep(1.0)
        answer = self.answers.pop(0)
        if answer == "never":
            await asyncio.sleep(1e6)
        return answer


async def buy(ledger: ActorRef[Any], key: str, amount: str, *, seconds: float = 60.0) -> None:
    wish = Reserve(key=key, provider="alder", amount=amount, accounts=("a",))
    ledger.tell(BookCall(await ledger.ask(wish, timeout=seconds)))


async def statement(ledger: ActorRef[Any]) -> Statement:
    return await ledger.ask(GetStatement("a"), timeout=1.0)


@pytest.mark.parametrize(("answer", "later"), [("8", "$5.00"), (CapAnswer("8", for_good=True), "$8.00")])
async def test_an_answer_holds_for_a_period_unless_it_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, answer: Any, later: str
):
    Clock(monkeypatch)
    owner = Owner(answer)
    async with ActorSystem("shop", log=False) as system:
        ledger = system.spawn(lambda: Ledger(accounts={"a": "5/day"}, on_exhausted=owner))
        await buy(ledger, "1", "5")
        await buy(ledger, "2", "3")
        assert str((await statement(ledger)).cap) == "$8.00"
        await asyncio.sleep(DAY)
        assert str((await statement(ledger)).cap) == later


@pytest.mark.parametrize(("answer", "asked"), [(None, 3), (CapAnswer(None, for_good=True), 1)])
async def test_a_refusal_holds_for_a_period_unless_it_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, answer: Any, asked: int
):
    Clock(monkeypatch)
    owner = Owner(answer, answer, answer)
    async with ActorSystem("shop", log=False) as system:
        ledger = system.spawn(lambda: Ledger(accounts={"a": "5/day"}, on_exhausted=owner))
        for _ in range(3):
            for _ in range(2):
                with pytest.raises(BudgetExceeded):
                    await buy(ledger, "1", "6")
            await asyncio.sleep(DAY)
        assert len(owner.asked) == asked
        await ledger.ask(SetCap("a", "6"), timeout=1.0)
        await buy(ledger, "1", "6")


@pytest.mark.parametrize("cap", ["5", "5/day"])
async def test_a_question_outlives_the_program_and_is_answered_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cap: str
):
    Clock(monkeypatch)
    path, owner = tmp_path / "l.db", Owner("never", "never", "9")

    def make() -> Ledger:
        return Ledger(accounts={"a": cap}, journal=path, on_exhausted=owner)

    for _ in range(3):
        async with ActorSystem("shop", log=False) as system:
            ledger = system.spawn(make)
            if not owner.asked:
                await buy(ledger, "1", "5")
            asking = asyncio.create_task(buy(ledger, "2", "3"))
            await asyncio.sleep(30.0)
            done = asking.done()
        await asyncio.gather(asking, return_exceptions=True)
    assert done
    assert owner.asked == [owner.asked[0]] * 3
    async with ActorSystem("shop", log=False) as system:  # The answer stands, though the configuration says less.
        ledger = system.spawn(make)
        assert (str((await statement(ledger)).cap), (await statement(ledger)).question) == ("$9.00", None)
    told = [one for one in entries_of(path) if isinstance(one, QuestionAsked | QuestionAnswered)]
    assert [(type(one), one.question) for one in told] == [(QuestionAsked, 1), (QuestionAnswered, 1)]


async def test_a_question_is_answered_from_elsewhere_by_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    Clock(monkeypatch)
    path, owner = tmp_path / "l.db", Owner("never", "never")
    async with ActorSystem("shop", log=False) as system:
        ledger = system.spawn(lambda: Ledger(accounts={"a": "5"}, journal=path, on_exhausted=owner))
        asking = asyncio.create_task(buy(ledger, "1", "6"))
        await asyncio.sleep(5.0)
        question = (await statement(ledger)).question
    await asyncio.gather(asking, return_exceptions=True)
    assert question is not None
    async with ActorSystem("shop", log=False) as system:
        ledger = system.spawn(lambda: Ledger(accounts={"a": "5"}, journal=path, on_exhausted=owner))
        asking = asyncio.create_task(buy(ledger, "1", "6"))
        await asyncio.sleep(5.0)
        answered = await ledger.ask(AnswerQuestion(question=question, cap="7"), timeout=1.0)
        assert str(answered.cap) == "$7.00"
        await asking
        with pytest.raises(Permanent, match=f"question {question} is not open"):
            await ledger.ask(AnswerQuestion(question=question, cap="9"), timeout=1.0)
        with pytest.raises(BudgetExceeded):
            await buy(ledger, "2", "1.50", seconds=700.0)  # A new question, which is never answered.
        second = (await statement(ledger)).question
        assert second == question + 1
        await ledger.ask(AnswerQuestion(question=second, cap=None), timeout=1.0)
        with pytest.raises(BudgetExceeded):
            await buy(ledger, "3", "1.50", seconds=1.0)


async def test_a_supervisor_passes_an_answer_on(monkeypatch: pytest.MonkeyPatch):
    Clock(monkeypatch)
    owner = Owner("never")

    async def echo(call: ProviderCall) -> Any:
        return call.input

    provider = Provider(name="alder", services={"s"}, price="6")
    listing = Listing(provider=provider, transport=lambda: FunctionTransport(echo, paid=True, idempotent="no"))
    async with ActorSystem("shop", log=False) as system:
        ledger = system.spawn(lambda: Ledger(accounts={"a": "5"}, on_exhausted=owner))
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[listing]), ledger=ledger))
        asking = asyncio.create_task(smart_request(supervisor, service="s", input="hello", account="a", timeout=60.0))
        await asyncio.sleep(5.0)
        question = (await supervisor.ask(GetStatement("a"), timeout=1.0)).question
        with pytest.raises(Permanent, match="is not open"):
            await supervisor.ask(AnswerQuestion(question=question + 1, cap="7"), timeout=1.0)
        answered = await supervisor.ask(AnswerQuestion(question=question, cap="7"), timeout=1.0)
        assert str(answered.cap) == "$7.00"
        assert (await asking).output == "hello"
