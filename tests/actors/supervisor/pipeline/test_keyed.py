"""Tests for requests under a caller's key: paid once, answered again for nothing, and never told to another scope."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import defaultdict
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from actors import (
    AllProvidersFailed,
    CallFailed,
    Market,
    OutcomeUnknown,
    ProviderReply,
    RequestOptions,
    Retry,
    SmartRequest,
    Supervisor,
    provider,
    robust_batch,
    smart_request,
)
from actors.errors import BadAnswer, Unclassified
from actors.ledger import (
    AlreadyPaid,
    GetStatement,
    JournalDown,
    KeyReused,
    Ledger,
    LedgerConfig,
    OpenAccount,
    StillUnsettled,
)
from actors.ledger.keys import provider_key, scoped_key
from actors.money import ZERO, Micros
from actors.supervisor import smart_stream
from actors.transports import Answered, Lost, UnderWay
from actors.transports.streaming import WholeAnswer
from runtime import ActorSystem
from tests.actors.ledger.journalled import fill_disk
from tests.actors.supervisor.payments.test_reconciler import LATE, Telling
from tests.actors.supervisor.stage import Script, flaky, offer, staged
from tests.proofs import repeated
from tests.runtime.persistence.disks import XorCipher, copy_as_killed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from actors import ProviderCall
    from runtime import ActorRef


class Parsed(msgspec.Struct):
    text: str
    parts: tuple[Any, ...] = ()


class TestASecondRequest:
    async def test_gets_the_answer_at_no_cost_whatever_it_says_of_the_way(self):
        script = Script({"text": "done", "parts": (1, 2)}, "another answer")
        async with staged(offer("a", script, price=10)) as stage:
            first = await stage.request(idempotency_key="k")
            assert (first.cost, first.paid, first.replayed) == (10, 10, False)
            for terms in ({}, {"budget": ZERO}, {"timeout": 0.5, "strategy": "best"}, {"risk": "1"}):
                second = await stage.request(idempotency_key="k", **terms)
                assert (second.output, second.provider, second.cost) == (first.output, "a", ZERO)
                assert (second.paid, second.replayed, second.attempts) == (10, True, 0)
                assert second.request_id != first.request_id
            assert len(script.calls) == 1
            assert (await stage.account(None)).settled == 10

    async def test_gets_an_answer_of_the_type_that_it_had(self):
        answer = Parsed("x", (1, {"a": (2,)}))
        async with staged(offer("a", Script(ProviderReply(output=answer, translated=("n",))), price=10)) as stage:
            results = [await stage.request(idempotency_key="k") for _ in range(2)]
        assert [(one.output, one.translated) for one in results] == [(answer, ("n",))] * 2
        assert results[0].output is not results[1].output

    async def test_gets_it_although_no_provider_is_left(self):
        async with ActorSystem("test", log=False) as system:
            ledger = system.spawn(Ledger)
            first = system.spawn(lambda: Supervisor(Market(providers=[offer("a", Script(), price=10)]), ledger=ledger))
            await smart_request(first, service="s", input="x", idempotency_key="k")
            market = Market(providers=[offer("b", Script(flaky("b")), price=99)], budget="0.000001")
            second = system.spawn(lambda: Supervisor(market, ledger=ledger))
            result = await smart_request(second, service="s", input="x", idempotency_key="k")
            assert (result.output, result.provider, result.replayed) == ("done", "a", True)

    async def test_without_a_key_is_another_request(self):
        script = Script()
        async with staged(offer("a", script, price=10)) as stage:
            for _ in range(2):
                result = await stage.request()
                assert (result.cost, result.paid, result.replayed) == (10, 10, False)
            assert len(stage.ledger.book.receipts) == 0

    async def test_that_asks_for_something_else_is_refused_before_anything_is_spent(self):
        script = Script()
        async with staged(offer("a", script, price=10)) as stage:
            await stage.request(idempotency_key="k", input={"messages": ["a secret"], "n": 1})
            with pytest.raises(KeyReused) as refused:
                await stage.request(idempotency_key="k", input={"messages": ["a secret"], "n": 2})
            assert refused.value.fields == ("input.n",)
            assert (refused.value.key, refused.value.charged) == ("k", "no")
            assert "a secret" not in str(refused.value)
            assert len(script.calls) == 1

    async def test_is_a_new_try_if_the_first_cost_nothing(self):
        script = Script(flaky("a"), flaky("a"), "done")
        async with staged(offer("a", script, price=10), retry=Retry(max_retries=0)) as stage:
            for _ in range(2):
                with pytest.raises(AllProvidersFailed):
                    await stage.request(idempotency_key="k")
            assert len(stage.ledger.book.receipts) == 0
            assert (await stage.request(idempotency_key="k")).output == "done"

    async def test_gets_the_error_for_which_the_first_was_charged(self):
        script = Script(BadAnswer("it is empty", reason="empty", charged="yes", said="nothing"), "done")
        async with staged(offer("a", script, price=10)) as stage:
            errors: list[CallFailed] = []
            for _ in range(3):
                with pytest.raises(BadAnswer) as failed:
                    await stage.request(idempotency_key="k")
                errors.append(failed.value)
            assert [(str(one), one.key, one.charged) for one in errors] == [(str(errors[0]), "k", "yes")] * 3
            assert [one.replayed for one in errors] == [False, True, True]
            assert len(script.calls) == 1
            assert (await stage.account(None)).settled == 10

    async def test_gets_the_answer_after_a_bad_one_and_both_were_paid(self):
        bad = BadAnswer("it is empty", reason="empty", charged="yes")
        async with staged(offer("a", Script(bad), price=10), offer("b", Script(), price=20)) as stage:
            options = {"options": RequestOptions(on_bad_answer="next")}
            results = [await stage.request(idempotency_key="k", **options) for _ in range(2)]
            assert [(one.output, one.cost, one.paid) for one in results] == [("done", 30, 30), ("done", 0, 30)]

    async def test_pays_again_only_if_it_says_so(self):
        script = Script("one", "two", "three", "four")
        async with staged(offer("a", script, price=10, idempotent="key")) as stage:
            outputs = [
                (await stage.request(idempotency_key="k", repurchase=again, budget=Micros(10))).output
                for again in (False, True, False, True, False, False)
            ]
            assert outputs == ["one", "two", "two", "three", "three", "three"]
            assert len({call.idempotency_key for call in script.calls}) == 3
            with pytest.raises(KeyReused):
                await stage.request(idempotency_key="k", repurchase=True, input="y")

    async def test_that_pays_again_and_fails_leaves_the_first_answer(self):
        script = Script("one", flaky("a"), "two")
        async with staged(offer("a", script, price=10), retry=Retry(max_retries=0)) as stage:
            await stage.request(idempotency_key="k")
            with pytest.raises(AllProvidersFailed):
                await stage.request(idempotency_key="k", repurchase=True)
            assert (await stage.request(idempotency_key="k")).output == "one"

    async def test_is_told_that_it_was_paid_if_the_answer_is_not_kept(self):
        for keep in ("hash", "none"):
            async with ActorSystem("test", log=False) as system:
                ledger = system.spawn(lambda keep=keep: Ledger(LedgerConfig(keep_answers=keep)))
                market = Market(providers=[offer("a", Script(), price=10)])
                supervisor = system.spawn(lambda market=market, ledger=ledger: Supervisor(market, ledger=ledger))
                await smart_request(supervisor, service="s", input="x", idempotency_key="k")
                with pytest.raises(AlreadyPaid) as paid:
                    await smart_request(supervisor, service="s", input="x", idempotency_key="k")
                assert (paid.value.paid, paid.value.paid_to, paid.value.key) == (10, "a", "k")
                assert paid.value.at is not None
                assert bool(paid.value.digest) == (keep == "hash")

    async def test_is_told_so_too_if_the_answer_could_not_be_kept(self):
        async with staged(offer("a", Script(object()), price=10)) as stage:
            await stage.request(idempotency_key="k")
            with pytest.raises(AlreadyPaid, match="was not kept"):
                await stage.request(idempotency_key="k")

    async def test_must_be_of_data(self):
        async with staged(offer("a", Script(), price=10)) as stage:
            with pytest.raises(CallFailed, match="must be data"):
                await stage.request(idempotency_key="k", input=[len])
            assert (await stage.request(input=[len])).output == "done"


@pytest.mark.parametrize("found", [LATE, Lost(Micros(8))])
async def test_what_is_found_out_late_completes_the_receipt(found: Any):
    door = Telling("a", UnderWay(), Answered(found) if found is LATE else found, breaks=99)
    async with staged(door.listing()) as stage:
        with pytest.raises(OutcomeUnknown):
            await stage.request(idempotency_key="k", timeout=0.55)
        with pytest.raises(KeyReused):
            await stage.request(idempotency_key="k", timeout=0.55, input="y")
        await asyncio.sleep(60.0)
        for _ in range(2):
            if found is LATE:
                result = await stage.request(idempotency_key="k")
                assert (result.output, result.cost, result.paid, result.replayed) == ("late", ZERO, 8, True)
            else:
                with pytest.raises(Unclassified, match="its answer is lost") as lost:
                    await stage.request(idempotency_key="k")
                assert (lost.value.replayed, lost.value.charged) == (True, "yes")
        assert len(door.calls) == 1


async def test_a_batch_whose_items_have_keys_gets_the_answers_again():
    script = Script()
    async with staged(offer("a", script, price=10)) as stage:
        items = [SmartRequest(service="s", input=n, timeout=9.0, idempotency_key=f"item {n}") for n in range(5)]
        for replayed in (False, True):
            async with robust_batch(stage.ref, items) as outcomes:
                results = [one.result async for one in outcomes]
            assert [one.replayed for one in results] == [replayed] * 5
        assert len(script.calls) == 5


async def ask_once(supervisor: Any, *, streams: bool, **terms: Any) -> Any:
    """Return the output of a request, or of a stream of one piece."""
    if not streams:
        return (await smart_request(supervisor, **terms)).output
    async with smart_stream(supervisor, **terms) as stream:
        pieces = [piece async for piece in stream]
    assert pieces in ([stream.result.output], [WholeAnswer(stream.result.output)])
    return stream.result.output


@pytest.mark.simulate(seeds=repeated(10_000, part=300))
async def test_two_tenants_with_one_key_never_learn_of_each_other(simulation: Any):
    dice = simulation.random

    async def answer(call: Any) -> Any:
        await asyncio.sleep(dice.choice([0.0, 0.1, 1.0, 5.0]))
        if dice.random() < 0.2:
            raise ConnectionResetError("gone")
        if call.stream is not None:
            await call.stream.put(call.input)
        return ProviderReply(output=call.input, cost=Micros(10))

    told: defaultdict[str, list[str]] = defaultdict(list)

    async def ask_thrice(supervisor: Any, scope: str, terms: dict[str, Any]) -> None:
        for _ in range(3):
            await asyncio.sleep(dice.choice([0.0, 0.1, 1.0, 5.0]))
            try:
                output = await ask_once(
                    supervisor,
                    streams=dice.random() < 0.5,
                    service="s",
                    input=f"of {scope}",
                    idempotency_key="k",
                    timeout=dice.choice([0.5, 9]),
                    **terms,
                )
            except KeyReused as leak:
                raise AssertionError(f"{scope} learned of another's key") from leak
            except CallFailed as error:
                told[scope].append(str(error))
            else:
                assert output == f"of {scope}"

    market = Market(providers=[offer("a", answer, price=10), offer("b", answer, price=10)])
    async with ActorSystem("test", log=False) as system:
        supervisor = system.spawn(lambda: Supervisor(market))
        await supervisor.ask(OpenAccount(name="one"), timeout=1)
        scopes = {
            "one": {"tenant": "one"},
            "other": {"tenant": "other", "account": "one"},
            "account": {"account": "one"},
        }
        await asyncio.gather(
            *(ask_thrice(supervisor, scope, as_said(terms)) for scope, terms in scopes.items() for _ in range(2))
        )
        statement = await supervisor.ask(GetStatement(), timeout=1)
        assert statement.reserved == 0
    for scope, texts in told.items():
        assert not any(f"of {other}" in text for other in {*scopes} - {scope} for text in texts)
    assert len({provider_key(scoped_key("k", **terms)) for terms in scopes.values()}) == 3


def as_said(terms: dict[str, Any]) -> dict[str, Any]:
    """Return a scope as a request says it: its tenant among the options."""
    options = RequestOptions(tenant=terms.get("tenant"))
    return {"options": options, "account": terms.get("account")}


@asynccontextmanager
async def run_of(journal: Path, *listings: Any, **config: Any) -> AsyncIterator[ActorRef[Any]]:
    """One run of a program whose ledger has a journal."""
    async with ActorSystem("run", log=False) as system:
        ledger = system.spawn(lambda: Ledger(LedgerConfig(**config), journal=journal))
        market = Market(providers=listings, retry=Retry(max_retries=0))
        yield system.spawn(lambda: Supervisor(market, ledger=ledger))


async def ask(supervisor: ActorRef[Any], key: str, **terms: Any) -> Any:
    return await smart_request(supervisor, **{"service": "s", "input": "x", "idempotency_key": key} | terms)


def content_of(directory: Path) -> bytes:
    return b"".join(file.read_bytes() for file in directory.iterdir())


class TestARunThatStartsAgain:
    async def test_has_the_answers_of_the_one_before(self, tmp_path: Path):
        answer, script = Parsed("x", (1, (2,))), Script()
        script.outcomes = [answer, BadAnswer("it is empty", reason="empty", charged="yes"), flaky("a"), "done"]
        async with run_of(tmp_path / "j", offer("a", script, price=10)) as supervisor:
            first = await ask(supervisor, "answered")
            with pytest.raises(BadAnswer) as bad:
                await ask(supervisor, "bad")
            with pytest.raises(AllProvidersFailed):
                await ask(supervisor, "free")
        for _ in range(2):
            async with run_of(tmp_path / "j", offer("b", script, price=99)) as supervisor:
                again = await ask(supervisor, "answered")
                assert (again.output, again.provider, again.cost, again.paid) == (answer, "a", 0, first.paid)
                with pytest.raises(BadAnswer) as bad_again:
                    await ask(supervisor, "bad")
                assert (str(bad_again.value), bad_again.value.replayed) == (str(bad.value), True)
                with pytest.raises(KeyReused):
                    await ask(supervisor, "answered", input="y")
                assert (await ask(supervisor, "free")).output == "done"
        assert len(script.calls) == 4

    async def test_has_an_answer_that_was_given_although_the_program_was_killed_just_then(self, tmp_path: Path):
        async with run_of(tmp_path / "j", offer("a", Script("done"), price=10)) as supervisor:
            first = await ask(supervisor, "k")
            copy_as_killed(tmp_path / "j", tmp_path / "killed")
        assert first.receipt == "kept"
        async with run_of(tmp_path / "killed", offer("b", Script(), price=99)) as supervisor:
            again = await ask(supervisor, "k")
            assert (again.output, again.provider, again.replayed, again.receipt) == ("done", "a", True, "kept")

    async def test_holds_a_call_whose_receipt_was_lost_and_its_asker_had_the_answer(self, tmp_path: Path):
        disks: list[Any] = []

        async def fill_the_disk(_: ProviderCall) -> str:
            disks.append(fill_disk(made[0]))
            return "done"

        made: list[Ledger] = []

        def make() -> Ledger:
            made.append(Ledger(journal=tmp_path / "j"))
            return made[-1]

        async with ActorSystem("run", log=False) as system:
            ledger = system.spawn(make)
            listing = provider("a", fill_the_disk, price=Micros(10), service="s")
            market = Market(providers=[listing], retry=Retry(max_retries=0))
            supervisor = system.spawn(lambda: Supervisor(market, ledger=ledger))
            result = await ask(supervisor, "k")
            assert (result.output, result.cost, result.receipt) == ("done", 10, "lost")
            again = await ask(supervisor, "k")
            assert (again.output, again.replayed, again.receipt) == ("done", True, "lost")
            with pytest.raises(JournalDown):
                await ask(supervisor, "another")
            copy_as_killed(tmp_path / "j", tmp_path / "killed")
            disks[0].is_full = False
        async with run_of(tmp_path / "killed", offer("a", Script(), price=10)) as supervisor:
            with pytest.raises(StillUnsettled):
                await ask(supervisor, "k")
        async with run_of(tmp_path / "j", offer("a", Script(), price=10)) as supervisor:
            assert (await ask(supervisor, "k")).replayed  # It was written when there was room again.

    async def test_knows_what_a_key_that_may_have_been_paid_was_asked_for(self, tmp_path: Path):
        async with run_of(tmp_path / "j", offer("a", Script(ConnectionResetError()), price=10)) as supervisor:
            with pytest.raises(OutcomeUnknown):
                await ask(supervisor, "k")
        async with run_of(tmp_path / "j", offer("a", Script(), price=10)) as supervisor:
            with pytest.raises(KeyReused):
                await ask(supervisor, "k", input="y")
            with pytest.raises(StillUnsettled):
                await ask(supervisor, "k")

    @pytest.mark.parametrize("keep", ["hash", "none"])
    async def test_knows_that_it_was_paid_if_no_answer_is_kept(self, tmp_path: Path, keep: Any):
        async with run_of(
            tmp_path / "j", offer("a", Script("the very answer"), price=10), keep_answers=keep
        ) as supervisor:
            await ask(supervisor, "k")
        async with run_of(tmp_path / "j", offer("a", Script(), price=10)) as supervisor:
            with pytest.raises(AlreadyPaid) as paid:
                await ask(supervisor, "k")
            assert (paid.value.paid, paid.value.paid_to, bool(paid.value.digest)) == (10, "a", keep == "hash")
        assert b"the very answer" not in content_of(tmp_path)

    async def test_has_answers_that_were_compressed_and_encrypted_and_none_with_another_key(self, tmp_path: Path):
        answer = "the very answer, " * 1_000
        config = {"compress_answers": True, "answer_cipher": XorCipher(3)}
        async with run_of(tmp_path / "j", offer("a", Script(answer), price=10), **config) as supervisor:
            await ask(supervisor, "k")
        assert b"the very answer" not in content_of(tmp_path)
        assert len(content_of(tmp_path)) < 100_000
        async with run_of(tmp_path / "j", offer("a", Script(), price=10), answer_cipher=XorCipher(4)) as supervisor:
            with pytest.raises(AlreadyPaid, match=r"cannot be read: it cannot be decrypted .*with the key") as paid:
                await ask(supervisor, "k")
            assert (paid.value.paid, paid.value.paid_to, len(paid.value.digest)) == (10, "a", 32)
            with pytest.raises(KeyReused) as reused:
                await ask(supervisor, "k", input="y")
            assert reused.value.fields == ()
        async with run_of(tmp_path / "j", offer("a", Script(), price=10), answer_cipher=XorCipher(3)) as supervisor:
            assert (await ask(supervisor, "k")).output == answer
            with pytest.raises(KeyReused) as reused:
                await ask(supervisor, "k", input="y")
            assert reused.value.fields == ("input",)

    async def test_pays_for_nothing_more_while_its_answers_cannot_be_encrypted(self, tmp_path: Path):
        cipher = XorCipher(3)
        async with run_of(tmp_path / "j", offer("a", Script(), price=10), answer_cipher=cipher) as supervisor:
            cipher.fails = True
            assert (await ask(supervisor, "k")).receipt == "lost"
            with pytest.raises(JournalDown, match="its cipher has failed"):
                await ask(supervisor, "another")
            cipher.fails = False
            await asyncio.sleep(1.1)
            again = await ask(supervisor, "k")
            assert (again.replayed, again.receipt) == (True, "kept")

    async def test_gives_no_answer_that_is_not_the_one_that_was_paid_for(self, tmp_path: Path):
        async with run_of(tmp_path / "j", offer("a", Script("one", "two"), price=10)) as supervisor:
            await ask(supervisor, "k")
            await ask(supervisor, "other")
        file = sqlite3.connect(tmp_path / "j", isolation_level=None)
        file.execute("UPDATE bodies SET (body, checksum) = (SELECT body, checksum FROM bodies WHERE rowid = 2)")
        file.close()
        async with run_of(tmp_path / "j", offer("a", Script(), price=10)) as supervisor:
            with pytest.raises(AlreadyPaid, match="cannot be read: it is not the one that was paid for"):
                await ask(supervisor, "k")

    async def test_never_has_the_input_on_disk(self, tmp_path: Path):
        async with run_of(tmp_path / "j", offer("a", Script(), price=10)) as supervisor:
            await ask(supervisor, "a key", input={"messages": "a prompt"}, options=RequestOptions(tenant="acme"))
        content = content_of(tmp_path)
        assert b"a prompt" not in content
        assert b"messages" not in content

    async def test_goes_on_with_the_number_of_purchases(self, tmp_path: Path):
        script = Script("one", "two", "three")
        for repurchase in (False, True, True):
            async with run_of(tmp_path / "j", offer("a", script, price=10)) as supervisor:
                await ask(supervisor, "k", repurchase=repurchase)
        assert len({call.idempotency_key for call in script.calls}) == 3
        async with run_of(tmp_path / "j", offer("a", script, price=10)) as supervisor:
            assert (await ask(supervisor, "k")).output == "three"
