"""Tests for streams under a caller's key: given again as they came, joined by others, and kept however they end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from actors import FunctionTransport, Listing, Market, Micros, Provider, ProviderReply, RequestOptions, Supervisor
from actors.errors import BadAnswer, CallFailed, ConsumerLeft, OutcomeUnknown, StreamBroken, StreamCut, Transient
from actors.ledger import (
    AlreadyPaid,
    GetHeld,
    GetStatement,
    JournalDown,
    KeyReused,
    Ledger,
    LedgerConfig,
    Resolve,
    StillUnsettled,
)
from actors.money import ZERO
from actors.supervisor import smart_stream
from actors.supervisor.payments.payments import Payments
from actors.supervisor.pipeline import shared_stream
from actors.transports.streaming import Restarted, StreamConfig, WholeAnswer
from runtime import ActorSystem
from tests.actors.ledger.journalled import fill_disk
from tests.actors.supervisor.stage import Stage, staged
from tests.proofs import repeated
from tests.runtime.persistence.disks import copy_as_killed

if TYPE_CHECKING:
    from pathlib import Path

OF_A_PIECE = 10


class Word(msgspec.Struct, frozen=True):
    text: str


class Drip:
    """A provider that streams a piece a second, charges for each, and stops when it is cut off."""

    def __init__(self, *pieces: Any, breaks_at: int | None = None, pause: float = 1.0, error: Any = None) -> None:
        self.pieces = list(pieces) if pieces else [Word(f"w{number}") for number in range(5)]
        self.breaks_at, self.pause, self.error = breaks_at, pause, error
        self.calls = self.charged = self.under_way = self.of_the_input = 0

    async def __call__(self, call: Any) -> Any:
        self.calls += 1
        self.under_way += 1
        made = 0
        try:
            for number, piece in enumerate(self.pieces):
                await asyncio.sleep(self.pause)
                if number == self.breaks_at:
                    raise self.error or Transient("it broke off", provider=call.provider)
                made += 1
                if call.stream is not None:
                    await call.stream.put(piece)
        except OutcomeUnknown:
            raise
        except CallFailed as failure:
            failure.charged, failure.answer = "yes", self.reply(made)
            raise
        except asyncio.CancelledError:
            if call.stream is not None:
                call.stream.partial = self.reply(made)
            raise
        finally:
            self.under_way -= 1
        return self.reply(made)

    def reply(self, made: int) -> ProviderReply:
        cost = made * OF_A_PIECE + self.of_the_input
        self.charged += cost
        return ProviderReply(output=f"{made} pieces", cost=Micros(cost))


def listed(name: str, handler: Any, *, price: int = 1_000, **options: Any) -> Listing:
    return Listing(
        provider=Provider(name=name, services={"s"}, price=Micros(price), response_time=0.1),
        transport=lambda: FunctionTransport(
            handler, paid=True, idempotent=options.pop("idempotent", "no"), ends_when_cancelled=True
        ),
        **options,
    )


async def read(stage: Any, *, pause: float = 0.0, **options: Any) -> tuple[list[Any], Any]:
    """Return the pieces of a stream under the key, and its result, or the error that it ended with."""
    ref = stage.ref if isinstance(stage, Stage) else stage
    terms = {"service": "s", "input": "x", "idempotency_key": "k"} | options
    pieces: list[Any] = []
    try:
        async with smart_stream(ref, **terms) as stream:
            async for piece in stream:
                pieces.append(piece)
                await asyncio.sleep(pause)
    except CallFailed as error:
        return pieces, error
    return pieces, stream.result


class TestASecondStream:
    @pytest.mark.parametrize("pieces", [(1, 2, 3), ("a", "b"), (Word("a"), {"b": (1, 2)})])
    async def test_gets_the_pieces_of_the_first_for_nothing(self, pieces: Any):
        drip = Drip(*pieces)
        async with staged(listed("a", drip)) as stage:
            first, result = await read(stage)
            again, replayed = await read(stage, budget=ZERO)
            plain = await stage.request(idempotency_key="k")
            assert first == again == list(pieces)
            assert (result.output, replayed.output, plain.output) == (f"{len(pieces)} pieces",) * 3
            assert (result.cost, replayed.cost, replayed.paid, replayed.replayed) == (
                drip.charged,
                0,
                result.cost,
                True,
            )
            assert drip.calls == 1
            await stage.assert_at_rest()

    async def test_gets_an_answer_whole_that_did_not_come_piece_by_piece_or_cannot_be_kept_so(self):
        async with staged(listed("a", Drip())) as stage:
            await stage.request(idempotency_key="k")
            assert (await read(stage))[0] == [WholeAnswer("5 pieces")]
        async with staged(listed("a", Drip(object(), object()))) as stage:
            await read(stage)
            assert (await read(stage))[0] == [WholeAnswer("2 pieces")]

    async def test_gets_what_came_after_the_first_provider_broke_off(self):
        broken, whole = Drip(breaks_at=2), Drip(7, 8)
        async with staged(listed("a", broken), listed("b", whole, price=2_000)) as stage:
            options = RequestOptions(strategy="cheapest")
            first, result = await read(stage, options=options, after_cut="restart")
            assert [type(one) for one in first] == [Word, Word, Restarted, int, int]
            again, replayed = await read(stage)
            assert (again, replayed.paid, result.cost) == ([7, 8], 40, 40)

    async def test_pays_again_only_if_it_says_so(self):
        drip = Drip()
        async with staged(listed("a", drip)) as stage:
            outcomes = [await read(stage, repurchase=again) for again in (False, True, False)]
            assert [one.replayed for _, one in outcomes] == [False, False, True]
            assert drip.calls == 2

    async def test_that_asks_for_something_else_is_refused(self):
        async with staged(listed("a", Drip())) as stage:
            await read(stage)
            assert isinstance((await read(stage, input="y"))[1], KeyReused)

    async def test_gets_the_error_of_a_whole_answer_that_is_of_no_use(self):
        drip = Drip(breaks_at=4, error=BadAnswer("it is empty", reason="empty"))
        async with staged(listed("a", drip)) as stage:
            errors = [(await read(stage))[1] for _ in range(2)]
            assert [(type(one), one.replayed) for one in errors] == [(BadAnswer, False), (BadAnswer, True)]


class TestAReceipt:
    async def test_is_written_before_the_end_and_the_pieces_are_told_before(self, tmp_path: Path):
        drip = Drip()
        market = Market(providers=[listed("a", drip)])
        async with ActorSystem("run", log=False) as system:
            ledger = system.spawn(lambda: Ledger(journal=tmp_path / "j"))
            supervisor = system.spawn(lambda: Supervisor(market, ledger=ledger))
            async with smart_stream(supervisor, service="s", input="x", idempotency_key="k") as stream:
                assert await anext(stream) == Word("w0")  # It is not written yet.
                pieces = [Word("w0"), *[piece async for piece in stream]]
                copy_as_killed(tmp_path / "j", tmp_path / "killed")
            assert stream.result.receipt == "kept"
        async with ActorSystem("next", log=False) as system:
            ledger = system.spawn(lambda: Ledger(journal=tmp_path / "killed"))
            supervisor = system.spawn(lambda: Supervisor(market, ledger=ledger))
            again, result = await read(supervisor)
            assert (again, result.replayed, result.receipt, drip.calls) == (pieces, True, "kept", 1)

    async def test_of_a_stream_that_broke_off_has_what_came(self):
        drip = Drip("to ", "be ", "or", breaks_at=2)
        async with staged(listed("a", drip)) as stage:
            first, broken = await read(stage)
            assert (first, type(broken)) == (["to ", "be "], StreamBroken)
            for _ in range(2):
                again, cut = await read(stage, budget=ZERO)
                assert again == first
                assert isinstance(cut, StreamCut)
                assert (cut.text, cut.pieces, cut.output) == ("to be ", ("to ", "be "), "2 pieces")
                assert (cut.cost, cut.may_cost, cut.charged, cut.replayed, cut.key) == (20, 0, "yes", True, "k")
            with pytest.raises(StreamCut):
                await stage.request(idempotency_key="k")
            assert (drip.calls, (await stage.account(None)).settled) == (1, 20)
            drip.breaks_at = None
            assert (await read(stage, repurchase=True))[1].cost == 30
            assert (await read(stage))[1].paid == 30

    @pytest.mark.parametrize("after", [0, 1, 4])
    async def test_of_a_stream_that_was_left_has_what_came(self, after: int):
        """Before its first piece it costs what was asked for, and there is nothing of it."""
        drip = Drip()
        drip.of_the_input = 3
        async with staged(listed("a", drip)) as stage:
            stream = smart_stream(stage.ref, service="s", input="x", idempotency_key="k")
            async with stream:
                for _ in range(after):
                    await anext(stream)
                await asyncio.sleep(0.5)
            again, cut = await read(stage)
            assert isinstance(cut, StreamCut)
            assert (again, cut.cost, cut.may_cost) == (drip.pieces[:after], after * OF_A_PIECE + 3, 0)
            assert "consumer had left" in cut.why
            await stage.assert_at_rest()

    async def test_of_a_stream_whose_cost_is_not_known_says_what_it_may_cost(self):
        drip = Drip(breaks_at=2, error=OutcomeUnknown("it broke off", provider="a"))
        async with staged(listed("a", drip)) as stage:
            _, broken = await read(stage)
            assert isinstance(broken, OutcomeUnknown)
            again, cut = await read(stage)
            assert isinstance(cut, StreamCut)
            assert (again, cut.cost, cut.may_cost, cut.charged) == (drip.pieces[:2], 0, 1_000, "held")
            assert drip.calls == 1

    @pytest.mark.parametrize("keep", ["hash", "none"])
    async def test_without_what_came_says_what_was_paid(self, keep: Any):
        async with ActorSystem("test", log=False) as system:
            ledger = system.spawn(lambda: Ledger(LedgerConfig(keep_answers=keep)))
            market = Market(providers=[listed("a", Drip(breaks_at=2))])
            supervisor = system.spawn(lambda: Supervisor(market, ledger=ledger))
            await read(supervisor)
            pieces, paid = await read(supervisor)
            assert (pieces, type(paid), paid.paid, bool(paid.digest)) == ([], AlreadyPaid, 20, keep == "hash")


class Stopping(FunctionTransport):
    on_cut = "stops"


class TestAStreamThatIsKilled:
    @pytest.mark.parametrize("kind", [Stopping, FunctionTransport])
    async def test_is_booked_at_the_next_start_as_its_transport_declares(self, tmp_path: Path, kind: Any):
        """Otherwise it is held, as any call is of which it is not known what it costs when it is cut off."""
        drip = Drip()
        provider = Provider(name="a", services={"s"}, price=Micros(1_000))
        listing = Listing(
            provider=provider, transport=lambda: kind(drip, paid=True, idempotent="no", ends_when_cancelled=True)
        )
        async with ActorSystem("run", log=False) as system:
            ledger = system.spawn(lambda: Ledger(journal=tmp_path / "j"))
            supervisor = system.spawn(lambda: Supervisor(Market(providers=[listing]), ledger=ledger))
            async with smart_stream(supervisor, service="s", input="x", idempotency_key="k") as stream:
                await anext(stream)
                copy_as_killed(tmp_path / "j", tmp_path / "killed")
        for _ in range(2):
            async with ActorSystem("next", log=False) as system:
                ledger = system.spawn(lambda: Ledger(journal=tmp_path / "killed"))
                supervisor = system.spawn(lambda ledger=ledger: Supervisor(Market(providers=[listing]), ledger=ledger))
                pieces, cut = await read(supervisor)
                statement = await ledger.ask(GetStatement(), timeout=1.0)
                assert (pieces, drip.calls) == ([], 1)
                if kind is Stopping:
                    assert (type(cut), cut.cost, cut.may_cost) == (StreamCut, 1_000, 0)
                    assert "killed" in cut.why
                    assert (statement.settled, statement.estimated, statement.held) == (1_000, 1_000, 0)
                else:
                    assert isinstance(cut, OutcomeUnknown | StillUnsettled)
                    assert (statement.settled, statement.held) == (0, 1_000)

    async def test_is_named_by_what_it_may_cost_after_it_was_left_without_its_cost(self, tmp_path: Path):
        drip = Drip(breaks_at=2, error=OutcomeUnknown("it broke off", provider="a"))
        for number in range(3):
            async with ActorSystem(f"run {number}", log=False) as system:
                ledger = system.spawn(lambda: Ledger(journal=tmp_path / "j"))
                market = Market(providers=[listed("a", drip)])
                supervisor = system.spawn(lambda market=market, ledger=ledger: Supervisor(market, ledger=ledger))
                pieces, cut = await read(supervisor)
                assert pieces == drip.pieces[:2]
                if number == 1:
                    assert (cut.cost, cut.may_cost) == (0, 1_000)
                    (held,) = await ledger.ask(GetHeld(), timeout=1.0)
                    await ledger.ask(Resolve(held.reservation, "yes", Micros(70)), timeout=1.0)
                if number == 2:
                    assert (cut.cost, cut.may_cost, cut.charged) == (70, 0, "yes")
        assert drip.calls == 1

    async def test_is_tried_anew_if_it_has_turned_out_to_be_free(self):
        drip = Drip(breaks_at=2, error=OutcomeUnknown("it broke off", provider="a"))
        async with staged(listed("a", drip)) as stage:
            await read(stage)
            (held,) = await stage.ref.ask(GetHeld(), timeout=1.0)
            await stage.ref.ask(Resolve(held.reservation, "no"), timeout=1.0)
            drip.breaks_at = None
            assert (await read(stage))[1].output == "5 pieces"
            assert drip.calls == 2


class TestAConsumerThatLeaves:
    @pytest.mark.parametrize("where", ["request", "options", "market"])
    async def test_leaves_a_call_that_is_to_finish(self, where: str):
        drip = Drip()
        market: dict[str, Any] = {"streams": StreamConfig(on_leave="finish")} if where == "market" else {}
        terms: dict[str, Any] = {"on_leave": "finish"} if where == "request" else {}
        if where == "options":
            terms = {"options": RequestOptions(on_leave="finish")}
        async with staged(listed("a", drip), **market) as stage:
            async with smart_stream(stage.ref, service="s", input="x", idempotency_key="k", **terms) as stream:
                await anext(stream)
            assert drip.under_way == 1
            await asyncio.sleep(10.0)
            assert drip.charged == 50
            pieces, result = await read(stage)
            assert (pieces, result.replayed, result.paid, drip.calls) == (drip.pieces, True, 50, 1)
            await stage.assert_at_rest()

    async def test_may_come_back_while_it_goes_on(self):
        drip = Drip()
        async with staged(listed("a", drip)) as stage:
            async with smart_stream(
                stage.ref, service="s", input="x", idempotency_key="k", on_leave="finish"
            ) as stream:
                await anext(stream)
            await asyncio.sleep(1.5)
            pieces, result = await read(stage)
            assert (pieces, result.output, drip.calls, drip.charged) == (drip.pieces, "5 pieces", 1, 50)
            await stage.assert_at_rest()

    async def test_leaves_a_call_without_a_key_too_which_ends_within_its_time(self):
        drip = Drip(pause=3.0)
        async with staged(listed("a", drip)) as stage:
            for timeout, settled in ((60.0, 50), (10.0, 80)):
                async with smart_stream(
                    stage.ref, service="s", input="x", on_leave="finish", timeout=timeout
                ) as stream:
                    await anext(stream)
                await asyncio.sleep(60.0)
                assert drip.under_way == 0
                assert (await stage.account(None)).settled <= settled
            await stage.assert_at_rest()

    async def test_that_reads_nothing_leaves_alone(self):
        drip = Drip(*range(300), pause=0.01)
        async with staged(listed("a", drip)) as stage:
            quick, slow = await asyncio.gather(read(stage), read(stage, patience=2.0, pause=100.0))
            assert (quick[0], quick[1].output) == (drip.pieces, "300 pieces")
            assert isinstance(slow[1], ConsumerLeft)
            await stage.assert_at_rest()

    async def test_that_reads_nothing_and_is_alone_ends_the_call(self):
        drip = Drip(*range(300), pause=0.01)
        async with staged(listed("a", drip)) as stage:
            pieces, left = await read(stage, patience=2.0, pause=100.0)
            assert (type(left), left.charged) == (ConsumerLeft, "yes")
            assert drip.charged < 1_000
            _, cut = await read(stage)
            assert (type(cut), cut.cost) == (StreamCut, drip.charged)
            assert pieces == list(cut.pieces[: len(pieces)])
            await stage.assert_at_rest()


class TestJoined:
    async def test_streams_get_what_came_so_far_and_then_go_on(self):
        drip = Drip()
        async with staged(listed("a", drip)) as stage:
            first = asyncio.create_task(read(stage))
            await asyncio.sleep(2.5)
            at: list[float] = []
            loop, begin = asyncio.get_running_loop(), asyncio.get_running_loop().time()
            pieces: list[Any] = []
            async with smart_stream(stage.ref, service="s", input="x", idempotency_key="k") as stream:
                async for piece in stream:
                    pieces.append(piece)
                    at.append(round(loop.time() - begin, 2))
            assert pieces == (await first)[0] == drip.pieces
            assert at == [0.0, 0.0, 0.5, 1.5, 2.5]
            assert (stream.result.cost, stream.result.replayed, stream.result.paid) == (0, True, 50)
            await stage.assert_at_rest()

    async def test_a_stream_and_a_plain_request_join_each_other(self):
        drip = Drip()
        async with staged(listed("a", drip)) as stage:
            stream = asyncio.create_task(read(stage))
            await asyncio.sleep(0.5)
            plain = await stage.request(idempotency_key="k")
            assert ((await stream)[0], plain.output, drip.calls) == (drip.pieces, "5 pieces", 1)
        async with staged(listed("a", drip := Drip())) as stage:
            plain, (pieces, result) = await asyncio.gather(stage.request(idempotency_key="k"), read(stage))
            assert (plain.output, pieces, result.output) == ("5 pieces", [WholeAnswer("5 pieces")], "5 pieces")
            assert drip.calls == 1

    async def test_streams_wait_for_no_slower_one(self):
        drip = Drip(*range(200), pause=0.01)
        async with staged(listed("a", drip)) as stage:
            begin, loop = asyncio.get_running_loop().time(), asyncio.get_running_loop()
            slow = asyncio.create_task(read(stage, pause=1.0))
            pieces, _ = await read(stage)
            assert (pieces, loop.time() - begin < 3.0) == (drip.pieces, True)
            assert (await slow)[0] == drip.pieces
            await stage.assert_at_rest()

    async def test_the_call_ends_when_the_last_has_left(self):
        drip = Drip(pause=10.0)
        async with staged(listed("a", drip, timeout=60.0)) as stage:
            readers = [asyncio.create_task(read(stage)) for _ in range(3)]
            for reader in readers:
                await asyncio.sleep(5.0)
                assert drip.under_way == 1
                reader.cancel()
            await asyncio.wait(readers)
            assert drip.under_way == 0
            await stage.assert_at_rest()

    async def test_of_a_stream_that_begins_anew_each_gets_what_it_said(self):
        broken, whole = Drip(breaks_at=2), Drip(7, 8, 9)
        async with staged(listed("a", broken), listed("b", whole, price=2_000)) as stage:
            options = RequestOptions(strategy="cheapest")
            first = asyncio.create_task(read(stage, options=options, after_cut="restart"))
            await asyncio.sleep(1.5)
            fails = asyncio.create_task(read(stage))
            await asyncio.sleep(3.0)
            late = asyncio.create_task(read(stage))
            assert [type(one) for one in (await first)[0]] == [Word, Word, Restarted, int, int, int]
            assert [type(one) for one in ((await fails)[0][-1], (await fails)[1])] == [Word, StreamBroken]
            assert (await late)[0] == [7, 8, 9]
            await stage.assert_at_rest()

    async def test_a_reader_whose_time_is_up_before_it_has_all_may_ask_again(self):
        drip = Drip(*range(200), pause=0.01)
        async with staged(listed("a", drip)) as stage:
            slow = asyncio.create_task(read(stage, pause=1.0, timeout=20.0))
            assert (await read(stage))[0] == drip.pieces
            pieces, late = await slow
            assert isinstance(late, OutcomeUnknown)
            assert "before it has read all" in str(late)
            assert pieces == drip.pieces[: len(pieces)]
            assert (await read(stage))[0] == drip.pieces
            await stage.assert_at_rest()

    async def test_a_reader_that_falls_too_far_behind_has_left_and_a_late_one_gets_it_whole(self, monkeypatch: Any):
        monkeypatch.setattr(shared_stream, "MAX_KEPT", 200)
        drip = Drip(*range(1_000), pause=0.01)
        async with staged(listed("a", drip, timeout=60.0)) as stage:
            quick = asyncio.create_task(read(stage))
            slow = asyncio.create_task(read(stage, pause=1.0))
            await asyncio.sleep(6.0)
            late = await read(stage)
            assert (await quick)[0] == drip.pieces
            assert late[0] == [WholeAnswer("1000 pieces")]
            assert isinstance((await slow)[1], ConsumerLeft)
            assert "behind" in str((await slow)[1])
            assert (await read(stage))[0] == [WholeAnswer("1000 pieces")]
            await stage.assert_at_rest()


async def test_a_consumer_that_closes_at_the_last_piece_has_all_of_them_under_its_key():
    drip = Drip()
    async with staged(listed("a", drip)) as stage:
        async with smart_stream(stage.ref, service="s", input="x", idempotency_key="k") as stream:
            for _ in drip.pieces:
                await anext(stream)
        assert (await read(stage))[0] == drip.pieces
        assert drip.calls == 1
        await stage.assert_at_rest()


class TestAtTheWorstMoment:
    async def test_an_answer_whose_receipt_cannot_be_written_is_given_all_the_same(self, tmp_path: Path):
        made: list[Ledger] = []

        def make() -> Ledger:
            made.append(Ledger(journal=tmp_path / "j"))
            return made[-1]

        async def serve(call: Any) -> str:
            await call.stream.put("first")
            disks.append(fill_disk(made[0]))
            await call.stream.put("last")
            return "done"

        disks: list[Any] = []
        async with ActorSystem("run", log=False) as system:
            ledger = system.spawn(make)
            supervisor = system.spawn(lambda: Supervisor(Market(providers=[listed("a", serve)]), ledger=ledger))
            pieces, result = await read(supervisor)
            assert (pieces, result.output, result.receipt) == (["first", "last"], "done", "lost")
            assert isinstance((await read(supervisor, idempotency_key="other"))[1], JournalDown)
            disks[0].is_full = False
        async with ActorSystem("next", log=False) as system:
            ledger = system.spawn(lambda: Ledger(journal=tmp_path / "j"))
            supervisor = system.spawn(lambda: Supervisor(Market(providers=[listed("a", serve)]), ledger=ledger))
            assert (await read(supervisor))[0] == ["first", "last"]  # It was written when there was room again.

    async def test_what_is_cancelled_after_any_step_leaves_nothing_and_its_key_is_paid_once(self):
        """Whatever it was at: reserving, streaming, its receipt, its end; alone, or with another that goes on."""
        for is_alone in (True, False):
            for steps in range(0, 60, 60 // repeated(30, at_least=5)):
                drip = Drip(*range(12), pause=0.0)
                async with staged(listed("a", drip)) as stage:
                    first = asyncio.create_task(read(stage))
                    other = None if is_alone else asyncio.create_task(read(stage))
                    for _ in range(steps):
                        await asyncio.sleep(0)
                    first.cancel()
                    await asyncio.wait([first])
                    if other is not None:
                        pieces, result = await other
                        assert (pieces, result.output) == (drip.pieces, "12 pieces")
                    again, ended = await read(stage)
                    if isinstance(ended, StreamCut):
                        assert again == drip.pieces[: len(again)]
                        assert (ended.cost, ended.may_cost) == (drip.charged, 0)
                    else:
                        assert (again, ended.output) == (drip.pieces, "12 pieces")
                    assert (await stage.account(None)).settled == drip.charged
                    await stage.assert_at_rest()

    @pytest.mark.parametrize("pieces", [10, 200])
    async def test_a_consumer_that_never_reads_holds_nothing_for_good(self, pieces: int):
        drip = Drip(*range(pieces), pause=0.01)
        async with staged(listed("a", drip)) as stage:
            stream = smart_stream(stage.ref, service="s", input="x", idempotency_key="k", patience=5.0)
            async with stream:
                await asyncio.sleep(100.0)
                assert drip.under_way == 0
            again, ended = await read(stage)
            assert again == drip.pieces[: len(again)]
            assert (len(again) == pieces) is (pieces == 10)
            assert isinstance(ended, StreamCut) is (pieces == 200)
            await stage.assert_at_rest()

    async def test_a_supervisor_that_stops_ends_what_goes_on_without_a_consumer(self):
        drip = Drip(pause=10.0)
        async with ActorSystem("stopped", log=False) as system:
            market = Market(providers=[listed("a", drip, timeout=60.0)])
            supervisor = system.spawn(lambda: Supervisor(market))
            for key in ("k", None):
                stream = smart_stream(supervisor, service="s", input="x", idempotency_key=key, on_leave="finish")
                async with stream:
                    await anext(stream)
            assert drip.under_way == 2
        assert (drip.under_way, len(asyncio.all_tasks())) == (0, 1)

    async def test_a_purchase_that_is_cut_leaves_the_answer_before_and_may_be_made_again(self):
        drip = Drip()
        async with staged(listed("a", drip)) as stage:
            await read(stage)
            drip.breaks_at = 2
            assert isinstance((await read(stage, repurchase=True))[1], StreamBroken)
            assert (await read(stage))[0] == drip.pieces
            drip.breaks_at, drip.pieces = None, [1, 2]
            assert (await read(stage, repurchase=True))[1].cost == 20
            assert (await read(stage))[0] == [1, 2]
            assert (await stage.account(None)).settled == 50 + 20 + 20

    async def test_a_slow_journal_delays_the_end_and_no_piece(self, tmp_path: Path, monkeypatch: Any):
        drip, at = Drip(pause=0.01), list[float]()

        async def slowly(*_: Any, **__: Any) -> None:
            await asyncio.sleep(5.0)

        monkeypatch.setattr(Payments, "await_commit", slowly)
        async with staged(listed("a", drip)) as stage:
            loop, begin = asyncio.get_running_loop(), asyncio.get_running_loop().time()
            async with smart_stream(stage.ref, service="s", input="x", idempotency_key="k") as stream:
                at += [loop.time() - begin async for _ in stream]
                assert at[-1] < 1.0
                assert loop.time() - begin >= 5.0
