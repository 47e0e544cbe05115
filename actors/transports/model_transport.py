"""Providers of models: the protocols of OpenAI and Anthropic, over one pooled HTTP client.

A call goes out in the form in which it came in, with nothing changed but the name of the model, the bound of its
output and what a stream needs. To a provider of another form it is translated. The answer is a body of the form
of the request. The models endpoint, which is free of charge, is the health check.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import msgspec

from actors.errors.families import BadAnswer, CallFailed, OutcomeUnknown, Permanent
from actors.errors.words import with_words
from actors.model_calls.answer import MalformedAnswer, ModelAnswer, fields_of, read_answer
from actors.model_calls.bad_answers import bad_answer_of
from actors.model_calls.embeddings import written_vectors
from actors.model_calls.field_table import NotExpressible
from actors.model_calls.presets import COMPATIBLE, OnCut, Preset, checked_on_cut
from actors.model_calls.request import ModelRequest, model_request
from actors.model_calls.translation import Translation, translated
from actors.tariffs.estimate import OUTPUT_FIELDS, Form, demand_of, with_max_output
from actors.tariffs.usage import read_usage
from actors.transports.background import (
    GONE,
    EndedResponse,
    is_of_background,
    request_told_in,
    unended_id,
    until_ended,
)
from actors.transports.called_model import called_model
from actors.transports.cost_look_up import ASKED_AFTER, CostLookUp
from actors.transports.cut_calls import CutCalls, CutStream
from actors.transports.http_client import MAX_REPLY_BYTES, HttpClient
from actors.transports.http_exchange import MAX_REFUSAL_BYTES, header_value
from actors.transports.http_json import decode_json, encode_json
from actors.transports.model_stream import ModelStream
from actors.transports.reconciliation import NOT_KEPT, Answered, Finding, Lost, NeverRan, UnderWay
from actors.transports.transport import Idempotent, ProviderCall, ProviderReply

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from actors.tariffs.demand import Demand
    from actors.tariffs.usage import Usage
    from actors.transports.http_exchange import Exchange
    from actors.transports.streaming import CallStream
    from actors.transports.wire import Wire

PATHS: dict[Form, str] = {
    "chat": "/chat/completions",
    "responses": "/responses",
    "messages": "/messages",
    "embeddings": "/embeddings",
}
HEALTH_PATH = "/models"


class ModelTransport:
    """Reaches one model at one provider.

    `preset` says how the provider is reached and what it speaks; `base_url` takes the place of its own. `api_key` is
    sent as the preset says, and is masked wherever it could be shown. `max_output` bounds the tokens of an answer if
    the request does not (None: it is left to the provider). `charges_errors`, `on_cut` and `on_cut_plain`
    take the place of what the preset says. The other options are those of `HttpTransport`.

    The input of a call is a `ModelRequest`, its fields as a dict, or the body of a chat completion. A request in a form
    that the provider does not speak is translated; one that cannot be is `Permanent` here, so that another provider is
    asked.

    No provider of models is known to honour idempotency keys. A key is sent only if `idempotent="key"` says that this
    one does.
    """

    resumes_alone = True

    def __init__(
        self,
        provider: str,
        model: str,
        *,
        preset: Preset = COMPATIBLE,
        base_url: str = "",
        api_key: str = "",
        paid: bool | None = None,
        idempotent: Idempotent = "no",
        charges_errors: bool | None = None,
        max_output: int | None = None,
        on_cut: OnCut | None = None,
        on_cut_plain: OnCut | None = None,
        max_connections: int = 10,
        max_reply_bytes: int = MAX_REPLY_BYTES,
        headers: Mapping[str, str] | None = None,
        secrets: Collection[str] = (),
        wire: Wire | None = None,
    ) -> None:
        if not model:
            raise ValueError(f"the model of {provider!r} must be named, got {model!r}")
        preset = msgspec.structs.replace(
            preset,
            paid=preset.paid if paid is None else paid,
            charges_errors=preset.charges_errors if charges_errors is None else charges_errors,
            on_cut=checked_on_cut("on_cut", preset.on_cut if on_cut is None else on_cut),
            on_cut_plain=checked_on_cut("on_cut_plain", preset.on_cut_plain if on_cut_plain is None else on_cut_plain),
        )
        self.provider, self.model, self.preset = provider, model, preset
        self.paid = preset.paid
        self.idempotent: Idempotent = idempotent
        self._max_output = max_output
        url = (base_url or preset.base_url).rstrip("/")
        self._client = HttpClient(
            provider,
            url,
            host=preset.host_at(url),
            paid=self.paid,
            idempotent=idempotent,
            max_connections=max_connections,
            max_reply_bytes=max_reply_bytes,
            charges_errors=preset.charges_errors,
            headers={**preset.headers, **auth_header(preset, api_key), **(headers or {})},
            secrets=(*secrets, *((api_key,) if api_key else ())),
            wire=wire,
        )
        self.ends_when_cancelled = self._client.ends_when_cancelled
        """Whether the wire says so of itself."""
        self.called = called_model(model, url, preset)
        """What is told of it in traces."""
        self.cuts = CutCalls(provider, preset, max_output=max_output)
        self._look_up: CostLookUp | None = None
        if self.cuts.may_ask:
            # A transport says what it can do by what it has.
            self._look_up = CostLookUp(self._client, preset)
            self.look_up, self.asked_after = self._look_up.look_up, ASKED_AFTER

    def __repr__(self) -> str:
        return f"ModelTransport({self.provider}, {self.model}, {self._client!r}, idempotent={self.idempotent!r})"

    @property
    def on_cut(self) -> OnCut:
        """What becomes of a stream at its provider when it is cut off."""
        return self.cuts.on_cut

    async def call(self, call: ProviderCall) -> ProviderReply:
        """Post one attempt, and return the body of the answer. Raises as `HttpTransport.call` does.

        An answer that is of no use (empty, filtered, refused, no JSON although a schema was asked for) is a
        `BadAnswer`, which is paid like any other.
        """
        if call.stream is not None:
            return await self._stream(call, call.stream)
        sent, body = self._request_of(call)
        deadline = asyncio.get_running_loop().time() + call.timeout
        exchange = self._client.exchange(
            self._client.url + PATHS[sent.request.form], body, self._headers_of(call, sent)
        )
        runs_on = is_of_background(sent.request)
        try:
            await self._client.run(exchange, within=call.timeout, notes=call.notes)
        except CallFailed as failure:
            if self._look_up is not None:
                self._look_up.note(call, exchange.headers)
            owing = failure if runs_on else self.cuts.of_plain(failure, exchange)
            if owing is failure:  # It must not become its own cause.
                raise
            raise owing from failure
        except asyncio.CancelledError:
            if self._look_up is not None:
                self._look_up.note(call, exchange.headers)
            if not runs_on:
                call.notes.owed = self.cuts.owed_by_plain(exchange)
            raise
        told = await self._body_in(exchange, deadline=deadline)
        if runs_on and (identity := unended_id(told)) is not None:
            call.notes.begun(identity)
            told, exchange = await self._ended(identity, deadline=deadline)
        return self._reply_of(sent, told, exchange)

    async def resume(self, handle: str, call: ProviderCall) -> Finding:
        """Fetch a response of the background by its id, and wait for it if it has not ended (see `Resumes`).

        That it is not known there any more proves nothing of a call of an earlier life of the program: the provider may
        have been at another address then. Such a call stays held.
        """
        sent = None if call.input is NOT_KEPT else self._request_of(call)[0]
        deadline = asyncio.get_running_loop().time() + call.timeout
        try:
            ended = await until_ended(self._client, handle, deadline=deadline)
        except CallFailed as failure:
            if failure.status == GONE and sent is not None:
                return Lost()  # It had begun, and is not kept there any more.
            raise
        if ended is None:
            return UnderWay()
        if sent is None:
            sent = self._translated(request_told_in(ended.body))
        try:
            return Answered(self._reply_of(sent, *ended))
        except CallFailed as failure:
            if failure.charged == "no":
                return NeverRan()
            return Lost(usage=self._usage_in(sent.request.form, ended.body))

    async def _ended(self, identity: str, *, deadline: float) -> EndedResponse:
        """Wait for a response of the background. Raises `OutcomeUnknown` if it has not ended in time, or is gone."""
        ended, why, cause = None, "it has not ended in time", None
        try:
            ended = await until_ended(self._client, identity, deadline=deadline, begun=True)
        except CallFailed as failure:
            why, cause = str(failure), failure
        if ended is None:
            raise OutcomeUnknown(
                f"{self.provider!r} goes on with a response in the background: {why}", provider=self.provider
            ) from cause
        return ended

    async def check(self, *, timeout: float) -> None:  # noqa: ASYNC109 - the interface of `Transport`.
        """Return if the list of models is answered within `timeout` seconds; raises `CallFailed` if not."""
        await self._client.get(self._client.url + HEALTH_PATH, within=timeout)

    async def aclose(self) -> None:
        """Close all connections. A later call opens them again, unless the wire is one of your own."""
        await self._client.aclose()

    async def _stream(self, call: ProviderCall, stream: CallStream) -> ProviderReply:
        """Make a call whose answer is a stream, and return the whole answer at its end."""
        sent, body = self._request_of(call)
        request = sent.request
        client, reader = self._client, self._reader_of(sent, stream)
        headers = {**self._headers_of(call, sent), "Accept": "text/event-stream"}
        exchange = client.exchange(client.url + PATHS[request.form], body, headers)
        try:
            await client.run(exchange, within=call.timeout, reader=reader, notes=call.notes)
            client.check_readable(exchange)
            if reader.error is not None:
                client.raise_error_in(reader.error, exchange)
                raise client.malformed("an error in the stream that says nothing", exchange)
            whole = reader.body()
            try:
                answer = reader.answer()
            except MalformedAnswer as error:
                if 0 < len(reader.whole_body) <= MAX_REFUSAL_BYTES:
                    client.raise_error_in(reader.whole_body, exchange)
                raise client.malformed(str(error), exchange) from error
            self.cuts.learn(reader, self._usage_in(request.form, whole))
            return self._reply_with(whole, answer, sent, exchange)
        except BadAnswer:
            raise
        except CallFailed as failure:
            cut = self._cut(call, reader, exchange)
            owing = self.cuts.of_stream(failure, reader, exchange, cut)
            if owing is failure:  # It must not become its own cause.
                raise
            raise owing from failure
        except asyncio.CancelledError:
            stream.partial = self.cuts.owed_by_stream(reader, exchange, self._cut(call, reader, exchange))
            raise

    def _cut(self, call: ProviderCall, reader: ModelStream, exchange: Exchange) -> CutStream:
        body = reader.body()
        if self._look_up is not None:
            self._look_up.note(call, exchange.headers, body)
        return CutStream(call, self.demand(call.input), self._usage_in(reader.form, body))

    def _reader_of(self, sent: Translation, stream: CallStream) -> ModelStream:
        try:
            return ModelStream(sent, stream, max_bytes=self._client.max_reply_bytes)
        except ValueError as error:
            raise Permanent(str(error), provider=self.provider, outcome="not_started") from error

    @staticmethod
    def demand(input: Any) -> Demand | None:  # noqa: A002 - see `PricesCalls`.
        """Return the tokens that a call needs; None if it is no request to a model."""
        request = request_or_none(input)
        return None if request is None else demand_of(request.body, form=request.form)

    def with_max_output(self, input: Any, tokens: int) -> Any:  # noqa: A002 - see `PricesCalls`.
        """Return the input with a bound of each answer."""
        request = request_or_none(input)
        if request is None:
            return input
        return msgspec.structs.replace(request, body=with_max_output(request.body, tokens, form=request.form))

    def _usage_in(self, form: Form, body: dict[str, Any]) -> Usage | None:
        dialect = self.preset.usage if form == "chat" else "anthropic" if form == "messages" else form
        return read_usage(body.get("usage"), dialect)

    def _request_of(self, call: ProviderCall) -> tuple[Translation, bytes]:
        """Return what is asked, and the body to post. Raises `Permanent` for what could never be sent here."""
        try:
            sent = self._translated(model_request(call.input))
            return sent, encode_json(self._body_of(sent.request, streams=call.stream is not None))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise Permanent(
                f"the request cannot be sent to a model: {error}", provider=self.provider, outcome="not_started"
            ) from error

    def _translated(self, request: ModelRequest) -> Translation:
        """Return a request in a form that the provider speaks. Raises `Permanent` if none can say it."""
        try:
            return translated(request, self.preset.forms, max_output=self._max_output)
        except NotExpressible as error:
            spoken = " and ".join(self.preset.forms)
            raise Permanent(
                f"{self.provider!r} does not speak the form {request.form!r} of this request, only {spoken}, which "
                f"cannot express it: {error}",
                provider=self.provider,
                scope="here",
                outcome="not_started",
            ) from error

    def _body_of(self, request: ModelRequest, *, streams: bool) -> dict[str, Any]:
        form = request.form
        body = {**request.body, "model": self.model}
        bound = request.max_output or self._max_output
        if bound is not None and OUTPUT_FIELDS[form]:
            for field in OUTPUT_FIELDS[form]:
                body.pop(field, None)
            body[self.preset.output_field if form == "chat" else OUTPUT_FIELDS[form][0]] = bound
        if form == "responses":
            body.setdefault("store", is_of_background(request))  # What is not stored cannot be fetched.
        body.pop("stream", None)
        options = body.pop("stream_options", None)
        if streams:
            body["stream"] = True
            if form == "chat" and self.preset.include_usage:
                asked = cast("dict[str, Any]", options) if isinstance(options, dict) else {}
                body["stream_options"] = {**asked, "include_usage": True}
        return body

    def _headers_of(self, call: ProviderCall, sent: Translation) -> dict[str, str]:
        headers: dict[str, str] = {}
        if sent.asked.headers and sent.is_kept:
            headers = {name: header_value(value) for name, value in sent.asked.headers.items()}
        if self.idempotent == "key":
            headers["Idempotency-Key"] = header_value(call.idempotency_key)
        if self.preset.request_id_header:
            headers[self.preset.request_id_header] = header_value(call.request_id)
        if call.trace:
            headers |= call.trace
        return headers

    async def _body_in(self, exchange: Exchange, *, deadline: float) -> dict[str, Any]:
        self._client.check_readable(exchange)
        try:
            return fields_of(await decode_json(exchange.body, deadline=deadline), "the answer")
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise self._unreadable(error, exchange) from self._client.secrets.cause(error)

    def _reply_of(self, sent: Translation, body: dict[str, Any], exchange: Exchange) -> ProviderReply:
        client = self._client
        try:
            if body.get("error"):
                client.raise_error_in(body, exchange)
            answer = read_answer(sent.request.form, body)
            if sent.request.form == "embeddings":
                written_vectors(sent.request.body, body)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise self._unreadable(error, exchange) from client.secrets.cause(error)
        return self._reply_with(body, answer, sent, exchange)

    def _unreadable(self, error: Exception, exchange: Exchange) -> CallFailed:
        """Return the error of an answer that is none of its form; raises what it says itself, if that is an error."""
        if exchange.size <= MAX_REFUSAL_BYTES:
            self._client.raise_error_in(exchange.body, exchange)
        return self._client.malformed(str(error), exchange)

    def _reply_with(
        self, body: dict[str, Any], answer: ModelAnswer, sent: Translation, exchange: Exchange
    ) -> ProviderReply:
        """Return a reply that is of use, in the caller's form; raises `BadAnswer` for one that is not."""
        reply = ProviderReply(
            output=body,
            usage=self._usage_in(sent.request.form, body),
            wire_calls=exchange.wire_calls,
            limits=exchange.limits,
        )
        bad = bad_answer_of(sent.asked, answer, provider=self.provider)
        try:
            if not sent.is_kept:
                output, told = sent.answer(reply.output)
                reply = msgspec.structs.replace(reply, output=output, translated=told)
        except MalformedAnswer as error:
            words = f"{self.provider!r} gave an answer of which {error}"
            bad = bad or BadAnswer(words, reason="not_json", provider=self.provider)
        if bad is None:
            return reply
        with_words(bad, bad.said, secrets=self._client.secrets)
        bad.answer, bad.wire_calls, bad.limits = reply, reply.wire_calls, reply.limits
        raise bad


def request_or_none(given: object) -> ModelRequest | None:
    """Return what is asked of a model; None if that could never be sent."""
    try:
        return model_request(given)
    except (TypeError, ValueError):
        return None


def auth_header(preset: Preset, api_key: str) -> dict[str, str]:
    """Return the header that has the key of a provider; {} if there is no key."""
    if not api_key or preset.auth == "none":
        return {}
    if preset.auth == "bearer":
        return {"Authorization": f"Bearer {api_key}"}
    return {preset.auth: api_key}
