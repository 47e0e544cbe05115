"""One body of tests for every transport: whatever a provider does, a call ends in what its owner can go by."""

from __future__ import annotations

import asyncio
import traceback
from typing import TYPE_CHECKING, Any

import pytest
from loguru import logger

from actors import GetStatus, Listing, Market, Provider, Supervisor, smart_request
from actors.errors.families import (
    BadAnswer,
    CallFailed,
    ConnectionFailed,
    OutcomeUnknown,
    Permanent,
    QuotaExhausted,
    Throttled,
    Transient,
)
from actors.fake import FakeLimits, FaultPlan, fake_server
from actors.fake.faults import (
    AnyFault,
    FakeCut,
    FakeErrorEvent,
    FakeErrorInside,
    FakeGarbage,
    FakeLostReply,
    FakeOddAnswer,
    FakeOutage,
    FakeStall,
    FakeThrottle,
)
from actors.ledger import GetStatement
from actors.model_calls import TextDelta
from actors.transports.streaming import PieceChannel
from actors.transports.transport import ProviderReply
from runtime import ActorSystem
from tests.actors.transports.speakers import FORMS, SECRET, SPEAKERS, TEXT, Pieces, Speaker, call_of, models
from tests.real_time import FAR, skip

if TYPE_CHECKING:
    from actors.fake import FakeServer
    from actors.transports.transport import Transport

pytestmark = pytest.mark.real_time

STREAMING = [one for one in SPEAKERS if one.streams]
WAYS = [(one, streams) for one in SPEAKERS for streams in ((False, True) if one.streams else (False,))]
"""Every transport, asked for a whole answer and for a stream."""


def named(value: Any) -> str | None:
    return value.name if isinstance(value, Speaker) else "stream" if value is True else "plain" if not value else None


every = pytest.mark.parametrize("speaker", SPEAKERS, ids=named)
every_form = pytest.mark.parametrize("speaker", FORMS, ids=named)
every_way = pytest.mark.parametrize(("speaker", "streams"), WAYS, ids=named)


@pytest.fixture
async def server():
    """Return a server that has a model of each dialect."""
    async with fake_server(models()) as server:
        yield server


async def outcome_of(transport: Transport, given: Any, **options: Any) -> ProviderReply | CallFailed:
    """Return how a call ends: with a reply, or with an error that has a family."""
    try:
        return await transport.call(call_of(given, **options))
    except CallFailed as failed:
        failure = failed
    assert failure.provider == "alder", failure
    assert failure.charged in {"no", "yes", "held"}, failure
    return failure


async def struck(server: FakeServer, speaker: Speaker, *faults: AnyFault, streams: bool = False, **options: Any) -> Any:
    server.set_plan(FaultPlan(faults=faults))
    transport = speaker.at(server, **options)
    try:
        return await outcome_of(transport, speaker.given, stream=Pieces() if streams else None)
    finally:
        await transport.aclose()


def leaves_open(outcome: object) -> bool:
    """Tell whether a call may have been charged: it is held, or what a stream owes at most is known and paid."""
    known = isinstance(outcome, Transient) and outcome.charged == "yes" and outcome.answer is not None
    return known or (isinstance(outcome, OutcomeUnknown) and outcome.charged == "held")


MEANINGS: dict[int, tuple[type[CallFailed], str, str | None]] = {
    400: (Permanent, "no", "request"),
    401: (Permanent, "no", "provider"),
    402: (QuotaExhausted, "no", None),
    403: (Permanent, "no", "here or provider"),
    404: (Permanent, "no", "here or provider"),
    408: (OutcomeUnknown, "held", None),
    409: (OutcomeUnknown, "held", None),
    413: (Permanent, "no", "here"),
    422: (Permanent, "no", "request"),
    429: (Throttled, "no", None),
    500: (OutcomeUnknown, "held", None),
    502: (OutcomeUnknown, "held", None),
    503: (Transient, "no", None),
    504: (OutcomeUnknown, "held", None),
    529: (Transient, "no", None),
}
"""What each status means of a paid provider, whatever its dialect: its family, its charge and how far it concerns."""


@every_way
async def test_a_status_means_the_same_in_every_dialect(server, speaker, streams):
    transport = speaker.at(server)
    for status, (family, charged, scope) in MEANINGS.items():
        server.set_plan(FaultPlan(faults=(FakeOutage(status=status),)))
        failure = await outcome_of(transport, speaker.given, stream=Pieces() if streams else None)
        if charged == "held" and speaker.model == "openrouter":
            assert (type(failure), failure.charged) == (Transient, "no"), (status, failure)  # It charges no errors.
        elif charged == "held":
            assert leaves_open(failure), (status, failure)
        else:
            assert (type(failure), failure.charged) == (family, charged), (status, failure)
        assert failure.wire_calls == 1
        if scope is not None:
            assert failure.scope in scope.split(" or "), (status, failure)
    assert not server.books.charged
    await transport.aclose()


@every
async def test_a_provider_that_is_not_paid_may_be_asked_again(server, speaker):
    transport = speaker.at(server, paid=False)
    for fault in (*(FakeOutage(status=status) for status in (500, 502, 504)), FakeLostReply(), FakeGarbage()):
        server.set_plan(FaultPlan(faults=(fault,)))
        failure = await outcome_of(transport, speaker.given)
        assert isinstance(failure, CallFailed)
        assert failure.retryable, failure
        assert failure.charged == "no"
    await transport.aclose()


@every_way
async def test_an_answer_is_what_its_server_has_charged(server, speaker, streams):
    transport = speaker.at(server)
    consumer = Pieces() if streams else None
    reply = await outcome_of(transport, speaker.given, stream=consumer)
    assert isinstance(reply, ProviderReply), reply
    await server.until_idle()
    (line,) = server.books.lines
    assert (line.status, line.answered, line.cancelled) == (200, True, False)
    if reply.usage is not None:
        told = (reply.usage.input + reply.usage.cache_read + reply.usage.cache_write, reply.usage.output)
        assert told == (line.usage.all_input, line.usage.output)
    else:
        assert speaker.name in {"http", "function"}
    if consumer is not None:
        assert consumer.taken
        assert isinstance(reply.output, dict)
    await transport.aclose()


@every_way
async def test_a_wait_that_is_asked_for_is_told(server, speaker, streams):
    failure = await struck(server, speaker, FakeThrottle(retry_after=7.0), streams=streams)
    assert type(failure) is Throttled
    tells_none = {"mistral", "openrouter", "deepseek", "xai"}
    assert (failure.retry_after is None) if speaker.model in tells_none else (6.0 <= failure.retry_after <= 8.0)


@every_way
async def test_a_call_without_answer_ends_at_its_timeout_and_its_server_sees_it(server, speaker, streams):
    server.set_plan(FaultPlan(faults=(FakeStall(),)))
    transport = speaker.at(server)
    stream = Pieces() if streams else None
    task = asyncio.create_task(outcome_of(transport, speaker.given, stream=stream, timeout=30.0))
    await under_way(server)
    await skip(31.0)
    failure = await task
    assert isinstance(failure, OutcomeUnknown | Transient), failure
    assert "within 30 s" in str(failure) or "timed out" in str(failure) or "no answer" in str(failure), failure
    await cancelled_at(server)
    await transport.aclose()


async def under_way(server: FakeServer) -> None:
    while not server.books.under_way:  # noqa: ASYNC110 - it is the other end of a socket that would say so.
        await asyncio.sleep(0)


async def cancelled_at(server: FakeServer) -> None:
    await server.until_idle()
    assert server.books.lines[-1].cancelled


@every_way
async def test_a_call_that_is_cancelled_is_cancelled_at_its_server(server, speaker, streams):
    for stall in (FakeStall(), FakeStall(at="mid_stream", after_events=2)):
        server.set_plan(FaultPlan(faults=(stall,)))
        transport = speaker.at(server)
        task = asyncio.create_task(outcome_of(transport, speaker.given, stream=Pieces() if streams else None))
        await under_way(server)
        await skip(1.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await cancelled_at(server)
        await transport.aclose()


@every
async def test_a_consumer_that_leaves_ends_its_call_at_the_server(server, speaker):
    if not speaker.streams:
        return
    server.set_plan(FaultPlan(faults=(FakeStall(at="mid_stream", after_events=6),)))
    transport, channel = speaker.at(server), PieceChannel(capacity=100)
    task = asyncio.create_task(outcome_of(transport, speaker.given, stream=channel))
    await channel.get()
    channel.leave()
    await skip(1.0)
    task.cancel()
    await asyncio.wait([task])
    await cancelled_at(server)
    await transport.aclose()


@every_form
async def test_a_plain_answer_that_is_cut_anywhere_is_no_answer(server, speaker):
    transport = speaker.at(server)
    for part in range(25):
        server.set_plan(FaultPlan(faults=(FakeCut(part=part / 24.5),)))
        failure = await outcome_of(transport, speaker.given)
        assert isinstance(failure, OutcomeUnknown), (part, failure)
        assert failure.charged == "held"
    await transport.aclose()


@pytest.mark.parametrize("speaker", [one for one in FORMS if one.streams], ids=named)
async def test_a_stream_that_is_cut_at_any_byte_ends_in_what_came(server, speaker):
    transport = speaker.at(server)
    seen: set[str] = set()
    for at in (0, 1, 2, *range(3, 4000, 97)):
        server.set_plan(FaultPlan(faults=(FakeCut(at_byte=at),)))
        consumer = Pieces()
        ended = await outcome_of(transport, speaker.given, stream=consumer)
        assert TEXT.startswith(text_of(consumer)), at
        if isinstance(ended, ProviderReply):
            assert text_of(consumer) == TEXT, at  # All that is missing is the end of the protocol.
        else:
            assert isinstance(ended, OutcomeUnknown | Transient), (at, ended)
            assert ended.charged in {"held", "yes"}, at
            assert ended.answer is not None or ended.charged == "held", at
            seen.add(text_of(consumer))
    assert len(seen) > 3
    await transport.aclose()


def text_of(pieces: Pieces) -> str:
    return "".join(delta.text for piece in pieces.taken for delta in piece.deltas if isinstance(delta, TextDelta))


@every_way
async def test_what_is_no_answer_is_malformed_and_may_be_charged(server, speaker, streams):
    for form in ("html", "half_json", "wrong_shape", "empty", "binary"):
        failure = await struck(server, speaker, FakeGarbage(form=form), streams=streams)
        if form == "wrong_shape" and speaker.name == "http":
            continue  # The output of an answer may be anything there.
        if speaker.name == "function":
            assert failure.charged == "held", (form, failure)
        else:
            assert leaves_open(failure), (form, failure)


@every_way
async def test_an_error_with_status_200_is_that_error(server, speaker, streams):
    if speaker.name in {"http", "function"}:
        return  # Their outputs are not read.
    for status, family in ((429, Throttled), (401, Permanent), (502, OutcomeUnknown)):
        failure = await struck(server, speaker, FakeErrorInside(status=status), streams=streams)
        if speaker.model == "xai" or family is OutcomeUnknown:  # At xAI, an error tells no status.
            has_stopped = streams and isinstance(failure, Transient) and failure.outcome == "done"
            assert has_stopped or leaves_open(failure), (status, failure)
        else:
            assert type(failure) is family, (status, failure)
        assert "Upstream provider error" in str(failure)


@pytest.mark.parametrize("speaker", STREAMING, ids=named)
async def test_an_error_in_mid_stream_is_told_with_what_came(server, speaker):
    failure = await struck(server, speaker, FakeErrorEvent(after_events=6), streams=True)
    assert isinstance(failure, OutcomeUnknown | Transient), failure
    assert leaves_open(failure)
    assert any(word in failure.said for word in ("error", "disconnected", "Overloaded")), failure


@every
async def test_an_answer_that_is_of_no_use_is_paid_and_says_why(server, speaker):
    if speaker.name in {"http", "function", "embeddings"}:
        return  # Their outputs are not read, or cannot be refused.
    failure = await struck(server, speaker, FakeOddAnswer(answer="empty"))
    assert isinstance(failure, BadAnswer)
    assert (failure.reason, failure.charged, failure.outcome) == ("empty", "yes", "done")


@every_form
async def test_a_big_answer_is_read_up_to_the_bound_of_a_reply(speaker):
    async with fake_server(models(output_tokens=70_000.0, max_output=200_000, chunk_tokens=500, answers=())) as server:
        options = {} if speaker.name in {"http", "function"} else {"max_output": 100_000}
        if speaker.name in {"messages", "messages as chat"}:
            speaker = speaker._replace(
                given=speaker.given.__class__(form="messages", body={**speaker.given.body, "max_tokens": 100_000})
            )
        if speaker.name == "embeddings":
            given = speaker.given.__class__(form="embeddings", body={"input": "Hello", "dimensions": 50_000})
            speaker = speaker._replace(given=given)
        reply = await struck(server, speaker, **options)
        assert isinstance(reply, ProviderReply), reply
        assert len(str(reply.output)) > 300_000
        if speaker.name == "function":
            return
        for streams in (False, True) if speaker.streams else (False,):
            failure = await struck(server, speaker, streams=streams, max_reply_bytes=100_000, **options)
            assert isinstance(failure, OutcomeUnknown | Transient), failure
            assert "more than 100000 bytes" in str(failure)
            assert failure.charged in {"held", "yes"}


LIMITED = FakeLimits(requests=2, tokens=6_000)
TELL_LIMITS = {"openai", "azure", "groq", "mistral", "together", "xai", "anthropic", "embedding"}


@every
async def test_limits_are_told_with_each_answer_and_refuse_what_is_too_much(speaker):
    async with fake_server(models(LIMITED)) as server:
        transport = speaker.at(server)
        first = await outcome_of(transport, speaker.given)
        assert isinstance(first, ProviderReply), first
        told = {one.limit for one in first.limits}
        if speaker.model in TELL_LIMITS and speaker.name != "function":
            assert 2 in told or 6_000 in told, first.limits
        await outcome_of(transport, speaker.given)
        failure = await outcome_of(transport, speaker.given)
        assert type(failure) is Throttled
        assert failure.charged == "no"
        await transport.aclose()


@every
async def test_the_health_check_is_free_and_tells_what_is_wrong(server, speaker):
    transport = speaker.at(server)
    await transport.check(timeout=FAR)
    assert not server.books.charged
    stranger = speaker.at(server, key="sk-unknown")
    with pytest.raises(Permanent) as told:
        await stranger.check(timeout=FAR)
    assert (told.value.scope, told.value.concerns, told.value.charged) == ("provider", "key", "no")
    async with fake_server() as gone:
        lost = speaker.at(gone)
    with pytest.raises(ConnectionFailed):
        await lost.check(timeout=FAR)
    for one in (transport, stranger, lost):
        await one.aclose()


@every
async def test_a_secret_that_a_provider_quotes_is_shown_nowhere(server, speaker):
    transport = speaker.at(server)
    shown = [repr(transport)]
    for status in (400, 401, 429, 500, 503):
        server.set_plan(FaultPlan(faults=(FakeOutage(status=status, message=f"Bad key {SECRET} of Bearer {SECRET}"),)))
        for streams in (False, True) if speaker.streams else (False,):
            failure = await outcome_of(transport, speaker.given, stream=Pieces() if streams else None)
            assert isinstance(failure, CallFailed)
            shown += [repr(failure), failure.said or "", *traceback.format_exception(failure)]
    assert SECRET not in "".join(shown)
    await transport.aclose()


@every_form
async def test_no_line_report_or_status_shows_a_secret(server, speaker):
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), level=0, format="{message} {extra} {exception}")
    server.set_plan(FaultPlan(faults=(FakeOutage(status=500, message=f"Bad key {SECRET}"),)))
    transport = speaker.at(server)
    try:
        async with ActorSystem("secrets") as system:
            listing = Listing(
                provider=Provider(name="alder", services={"chat"}, price="0.01"), transport=lambda: transport
            )
            supervisor = system.spawn(lambda: Supervisor(Market(providers=[listing])))
            shown: list[str] = []
            for _ in range(2):
                try:
                    await smart_request(supervisor, service="chat", input=speaker.given, timeout=FAR)
                except CallFailed as failure:
                    shown += traceback.format_exception(failure)
            shown.append(repr(await supervisor.ask(GetStatus(check_health=True), timeout=FAR)))
            shown.append(repr(await supervisor.ask(GetStatement(), timeout=FAR)))
    finally:
        logger.remove(sink)
    assert lines
    assert SECRET not in "".join(lines + shown)
