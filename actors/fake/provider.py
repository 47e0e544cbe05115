"""Decides what each request to a fake server is answered, and keeps its limits, caches and books. It never waits."""

from __future__ import annotations

import functools
import math
from collections import OrderedDict
from fractions import Fraction
from typing import TYPE_CHECKING, Any, cast

import msgspec

from actors.fake.answers import decide_answer
from actors.fake.asked import Asked, RequestRefused
from actors.fake.books import BookedCall, FakeBooks, key_name
from actors.fake.breaking import break_reply
from actors.fake.caching import PromptCache
from actors.fake.dialects import DIALECTS, FakeDialect
from actors.fake.draws import Draw, drawn, fingerprint
from actors.fake.faults import (
    FakeNoUsage,
    FakeOddAnswer,
    FakeOutage,
    FakePriceChange,
    FakeThrottle,
    FaultPlan,
    Struck,
    strike,
)
from actors.fake.forms import FORMS
from actors.fake.made import Made
from actors.fake.prices import FakeRates, FakeUsage
from actors.fake.refusals import context_exceeded, error_body, retry_headers
from actors.fake.stored import StoredResponse, StoredResponses
from actors.fake.throttle import FakeThrottleState, LimitRefusal, limit_headers
from actors.fake.wire import JSON, FakeReply, FakeRequest, Headers, json_reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.fake.asked import Form
    from actors.fake.config import DialectName, FakeConfig, FakeModel

NOT_TOLD = Fraction(0)
MAX_TRIES_KEPT = 200_000
MAX_ANSWERS_KEPT = 10_000


class KeptAnswer(msgspec.Struct):
    """The first answer to an idempotency key; None while that call is under way."""

    content: bytes
    made: Made | None = None


class FakeProvider:
    """The state of one fake server; `now` is in seconds since it started, `epoch` when that was, since 1970."""

    def __init__(self, config: FakeConfig, *, epoch: float = 0.0) -> None:
        self.config = config
        self.books = FakeBooks(config.books_limit)
        self.models = {model.name: model for model in config.models}
        self._epoch = epoch
        self._plan = config.plan
        self._plan_since = 0.0
        self._rates = {model.name: FakeRates(model.price) for model in config.models}
        self._throttles: dict[tuple[str, str], FakeThrottleState] = {}
        self._tries: OrderedDict[bytes, int] = OrderedDict()
        self._cache = PromptCache()
        self.stored = StoredResponses()
        self._background: list[StoredResponse] = []
        self._kept: OrderedDict[tuple[str, str], KeptAnswer] = OrderedDict()

    def set_plan(self, plan: FaultPlan, *, now: float) -> None:
        """Put another plan in force; its times count from now."""
        self._plan = plan
        self._plan_since = now

    @property
    def plan(self) -> FaultPlan:
        """The plan in force."""
        return self._plan

    def dialect_of(self, model: FakeModel | None, form: Form | None = None) -> DialectName:
        """Return the dialect in which a model speaks; Messages are always Anthropic's."""
        if form == "messages":
            return "anthropic"
        return self.config.dialect if model is None or model.dialect is None else model.dialect

    def accept(self, request: FakeRequest, form: Form, *, now: float) -> FakeReply:
        """Decide the reply to a model call and begin its line in the books. `end` must follow."""
        written = FORMS[form]
        content = fingerprint(form, request.body)
        attempt = self._next_try(content)
        draw = Draw(self.config.seed, content, attempt)
        identity = draw.digest("id").hex()
        call = BookedCall(
            number=self.books.calls,
            request_id=f"req_{identity[:24]}",
            form=form,
            attempt=attempt,
            began=now,
            idempotency_key=request.headers.get(b"idempotency-key", b"").decode("latin-1"),
            client_request_id=request.headers.get(b"x-client-request-id", b"").decode("latin-1"),
        )
        self.books.begin(call)
        dialect = DIALECTS[self.dialect_of(None, form)]
        try:
            call.key = self.key_of(request)
            body = self.body_of(request)
            named = self.models.get(str(body.get("model")))
            asked = written.read(body, strict=DIALECTS[self.dialect_of(named, form)].strict_fields)
            call.model, call.tenant, call.streamed = asked.model, asked.tenant, asked.stream
            model = self.model_of(asked)
            dialect = DIALECTS[self.dialect_of(model, form)]
            reply = self._answer(asked, model, call=call, draw=draw, now=now)
        except RequestRefused as refused:
            reply = self._refusal(dialect, refused, [])
        if reply.settles_at is None:
            reply.call = call
        call.status = reply.status
        reply.headers.append((dialect.request_id.encode(), call.request_id.encode()))
        return reply

    def answered(
        self,
        request: FakeRequest,
        *,
        form: Form | None,
        tell: Callable[[], FakeReply],
        now: float,
        model: str = "",
    ) -> FakeReply:
        """Return what an endpoint tells, of a `model` if it is about one, that charges nothing, or why it does not."""
        dialect = DIALECTS[self.dialect_of(None, form)]
        try:
            self.key_of(request)
            return self._outage(request, model, dialect, now=now) or tell()
        except RequestRefused as refused:
            return self._refusal(dialect, refused, [])

    def _outage(self, request: FakeRequest, model: str, dialect: FakeDialect, *, now: float) -> FakeReply | None:
        """Return the refusal of an outage, which strikes what charges nothing too; None if there is none."""
        if not any(isinstance(fault, FakeOutage) for fault in self._plan.faults):
            return None
        content = fingerprint(f"{request.method} {request.path}?{request.query}", request.body)
        seed = self.config.seed if self._plan.seed is None else self._plan.seed
        draw = Draw(seed, content, self._next_try(content))
        struck = strike(self._plan, model, draw=draw, now=now - self._plan_since)
        return self._struck_down(Struck(tuple(one for one in struck if isinstance(one, FakeOutage))), dialect)

    def not_found(self, message: str) -> FakeReply:
        """Return a refusal with status 404."""
        return self._refusal(DIALECTS[self.config.dialect], RequestRefused(404, message), [])

    def end(self, reply: FakeReply, *, now: float, sent: bool, left: bool, tokens: int) -> None:
        """End a call: `tokens` of output had come, `sent` if the whole reply was, `left` if the client went before."""
        call = reply.call
        if call is None:
            return
        call.answered, call.cancelled = sent, left
        if reply.cut_at == -1 and not left:
            call.status = 0
        made = reply.made
        if made is not None:
            whole = sent or reply.cut_at == -1 or made.model.on_cut == "runs_on"
            if reply.rates is not None:
                call.usage = made.usage if whole else made.usage.after(tokens)
                call.charged = reply.rates.charge(call.usage)
            self._keep(call, made if whole and reply.rates is not None else None)
            throttle = self._throttle(call.key, made.model)
            throttle.under_way -= 1
            throttle.used(call.usage.output, now)
        self.books.end(call, now=now)

    def _keep(self, call: BookedCall, made: Made | None) -> None:
        """Remember the answer to an idempotency key, or forget the key of a call that came to nothing."""
        kept = self._kept.get((call.key, call.idempotency_key))
        if kept is not None and kept.made is None:
            if made is None:
                del self._kept[call.key, call.idempotency_key]
            else:
                kept.made = made

    def _next_try(self, content: bytes) -> int:
        attempt = self._tries.pop(content, 0)
        self._tries[content] = attempt + 1
        if len(self._tries) > MAX_TRIES_KEPT:
            self._tries.popitem(last=False)
        return attempt

    def key_of(self, request: FakeRequest) -> str:
        """Return the name of the caller's key. Raises `RequestRefused` for one that is not accepted."""
        headers = request.headers
        told = headers.get(b"authorization", b"")
        key = told[7:] if told[:7].lower() == b"bearer " else b""
        key = key or headers.get(b"x-api-key") or headers.get(b"api-key") or headers.get(b"x-goog-api-key") or b""
        name = key_name(key.decode("latin-1"), self.config.keys)
        if name is None:
            raise RequestRefused(401, "Incorrect API key provided.")
        return name

    def body_of(self, request: FakeRequest) -> dict[str, Any]:
        """Return the body of a request as JSON. Raises `RequestRefused` for one that is no object."""
        try:
            decoded: Any = msgspec.json.decode(request.body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RequestRefused(400, f"We could not parse the JSON body of your request: {error}") from None
        if not isinstance(decoded, dict):
            raise RequestRefused(400, "The body of the request must be a JSON object.")
        body = cast("dict[str, Any]", decoded)
        deployment = request.path.partition("/deployments/")[2].partition("/")[0]
        if deployment:
            body["model"] = deployment
        return body

    def model_of(self, asked: Asked) -> FakeModel:
        """Return the model that a request names. Raises `RequestRefused` for one that there is not."""
        model = self.models.get(asked.model)
        if model is None or (model.kind == "embedding") != (asked.form == "embeddings"):
            if asked.form == "messages":
                raise RequestRefused(404, f"model: {asked.model}")
            raise RequestRefused(
                404, f"The model `{asked.model}` does not exist or you do not have access to it.", param="model"
            )
        return model

    def _answer(self, asked: Asked, model: FakeModel, *, call: BookedCall, draw: Draw, now: float) -> FakeReply:
        dialect = DIALECTS[self.dialect_of(model, asked.form)]
        plan = self._plan
        faults = draw if plan.seed is None else msgspec.structs.replace(draw, seed=plan.seed)
        struck = strike(plan, model.name, draw=faults, now=now - self._plan_since)
        call.faults = struck.names
        broken = self._struck_down(struck, dialect)
        if broken is not None:
            return broken
        replayed = self._replay(call, draw.content, dialect)
        if replayed is not None:
            return replayed
        usage = self._cache.use(asked, model, key=call.key, now=now)
        self._check(asked, model, dialect, usage.all_input)
        throttle = self._throttle(call.key, model)
        try:
            throttle.admit(usage.all_input, now)
        except LimitRefusal as refusal:
            headers = limit_headers(dialect, throttle, now=now, wall=self._epoch + now, refused=True)
            refused = RequestRefused(429, refusal.message, retry_after=refusal.retry_after)
            return self._refusal(dialect, refused, headers)
        throttle.under_way += 1
        if self.config.idempotency and call.idempotency_key:
            self._kept[call.key, call.idempotency_key] = KeptAnswer(draw.content)
            if len(self._kept) > MAX_ANSWERS_KEPT:
                self._kept.popitem(last=False)
        made = self._made(asked, model, usage=usage, struck=struck, draw=draw, now=now)
        call.id = FORMS[asked.form].identity(made)
        reply = self._reply(made, draw=draw)
        if made.dialect_name == "openrouter":
            reply.headers.append((b"x-generation-id", call.id.encode()))
        reply.rates = self._rates_of(model, struck)
        reply.headers += limit_headers(dialect, throttle, now=now, wall=self._epoch + now)
        if asked.form == "responses" and asked.body.get("store") is not False:
            self.stored.add(StoredResponse(made=made))
            if asked.background and not asked.stream:
                reply = self._in_background(reply, made, call, now)
        error_event = functools.partial(FORMS[asked.form].error_event, made)
        return break_reply(reply, struck, error_event=error_event, draw=faults)

    def _in_background(self, going: FakeReply, made: Made, call: BookedCall, now: float) -> FakeReply:
        """Return the reply that a response has begun; `going` says when it comes and what it costs."""
        going.call = call
        going.settles_at = now + going.due(made.usage.output)
        stored = StoredResponse(made=made, began=now, reply=going)
        self.stored.add(stored)
        self._background.append(stored)
        body = msgspec.json.encode(stored.told(now))
        return FakeReply(status=200, headers=going.headers, body=body, settles_at=going.settles_at)

    def settle_background(self, *, now: float) -> None:
        """End and charge the responses of the background that are ready."""
        for stored in list(self._background):
            if stored.reply is not None and now >= (stored.reply.settles_at or 0.0):
                self._settle(stored, now=now, cancelled=False)

    def cancel_background(self, stored: StoredResponse, *, now: float) -> None:
        """Cancel a response that is under way; what has come until now is charged."""
        if stored.reply is not None:
            stored.cancelled = True
            self._settle(stored, now=now, cancelled=True)

    def _settle(self, stored: StoredResponse, *, now: float, cancelled: bool) -> None:
        reply, stored.reply = stored.reply, None
        self._background.remove(stored)
        if reply is not None:
            tokens = reply.tokens_by(now - stored.began)
            self.end(reply, now=now, sent=not cancelled, left=cancelled, tokens=tokens)

    def _struck_down(self, struck: Struck, dialect: FakeDialect) -> FakeReply | None:
        """Return the refusal that a fault wants, if one does."""
        for fault in struck:
            match fault:
                case FakeOutage(status=0):
                    return FakeReply(status=0, headers=[JSON], cut_at=-1)
                case FakeOutage(status=status, code=code, message=message, retry_after=retry_after):
                    status = dialect.busy if status == 503 else status
                    refused = RequestRefused(status, message, code=code, retry_after=retry_after)
                    return self._refusal(dialect, refused, [])
                case FakeThrottle(code=code, retry_after=retry_after):
                    return self._refusal(dialect, RequestRefused(429, None, code=code, retry_after=retry_after), [])
                case _:
                    pass
        return None

    def _replay(self, call: BookedCall, content: bytes, dialect: FakeDialect) -> FakeReply | None:
        """Return the first answer to an idempotency key, or None for a call that has to be made."""
        if not self.config.idempotency or not call.idempotency_key:
            return None
        name = (call.key, call.idempotency_key)
        kept = self._kept.get(name)
        if kept is None:
            return None
        if kept.content != content:
            raise RequestRefused(400, "This Idempotency-Key was used for a request with another body.")
        if kept.made is None:
            raise RequestRefused(409, "A request with this Idempotency-Key is under way.")
        call.replayed = True
        call.id = FORMS[kept.made.asked.form].identity(kept.made)
        reply = self._reply(kept.made, draw=None)
        reply.made = None  # It is neither charged nor counted again.
        return reply

    def _check(self, asked: Asked, model: FakeModel, dialect: FakeDialect, input_tokens: int) -> None:
        """Raises `RequestRefused` for what the model cannot do."""
        if asked.stream and "streaming" not in model.abilities:
            raise RequestRefused(400, "This model does not support streaming.", param="stream")
        if asked.max_tokens is not None and asked.max_tokens > model.max_output:
            raise RequestRefused(
                400,
                f"max_tokens is too large: {asked.max_tokens}. This model supports at most {model.max_output} "
                f"completion tokens, whereas you provided {asked.max_tokens}.",
                param="max_tokens",
                code="invalid_value" if dialect.errors == "openai" else None,
            )
        output = asked.max_tokens or 0
        if asked.form == "embeddings":
            longest = max(
                len(one.encode()) / model.bytes_per_token if isinstance(one, str) else len(one) for one in asked.inputs
            )
            input_tokens = math.ceil(longest)
        if input_tokens + output > model.context_window:
            message, code = context_exceeded(dialect, wanted=input_tokens, window=model.context_window, output=output)
            raise RequestRefused(400, message, code=code, param="messages")
        if asked.tools and "tools" not in model.abilities:
            raise RequestRefused(400, "This model does not support tools.", param="tools")
        if asked.schema and "schemas" not in model.abilities:
            raise RequestRefused(400, "This model does not support response schemas.", param="response_format")

    def _made(
        self, asked: Asked, model: FakeModel, *, usage: FakeUsage, struck: Struck, draw: Draw, now: float
    ) -> Made:
        dialect_name = self.dialect_of(model, asked.form)
        odd = next((fault.answer for fault in struck if isinstance(fault, FakeOddAnswer)), None)
        untold = next((fault for fault in struck if isinstance(fault, FakeNoUsage)), None)
        answers = (
            ()
            if asked.form == "embeddings"
            else tuple(
                decide_answer(asked, model, draw=draw, odd=odd, choice=number) for number in range(asked.choices)
            )
        )
        usage = msgspec.structs.replace(
            usage,
            output=sum(one.tokens for one in answers),
            reasoning=sum(len(one.reasoning) for one in answers),
        )
        return Made(
            id=draw.digest("id").hex(),
            created=int(self._epoch + now),
            asked=asked,
            model=model,
            dialect=DIALECTS[dialect_name],
            dialect_name=dialect_name,
            answers=answers,
            usage=usage,
            cost=self._rates_of(model, struck).charge(usage) if dialect_name == "openrouter" else NOT_TOLD,
            tells_usage=untold is None or untold.empty,
            zero_usage=untold is not None and untold.empty,
        )

    def _rates_of(self, model: FakeModel, struck: Struck) -> FakeRates:
        changed = next((fault.price for fault in struck if isinstance(fault, FakePriceChange)), None)
        return self._rates[model.name] if changed is None else FakeRates(changed)

    def _reply(self, made: Made, *, draw: Draw | None) -> FakeReply:
        """Return the reply that no fault has touched; without a draw it comes at once."""
        written = FORMS[made.asked.form]
        latency = 0.0 if draw is None else drawn(made.model.latency, draw, "latency")
        speed = 0.0 if draw is None else drawn(made.model.token_speed, draw, "speed")
        reply = FakeReply(status=200, headers=[JSON], made=made, latency=latency, speed=speed)
        if made.asked.stream and written.events is not None:
            reply.headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
            reply.events = written.events(made)
            reply.keep_alive = made.dialect.keep_alive
        else:
            reply.body = msgspec.json.encode(written.body(made))
        return reply

    def _throttle(self, key: str, model: FakeModel) -> FakeThrottleState:
        state = self._throttles.get((key, model.name))
        if state is None:
            state = self._throttles[key, model.name] = FakeThrottleState(model.name, model.limits)
        return state

    def _refusal(self, dialect: FakeDialect, refused: RequestRefused, headers: Headers) -> FakeReply:
        body = error_body(
            dialect,
            refused.status,
            message=refused.message,
            code=refused.code,
            param=refused.param,
            retry_after=refused.retry_after,
        )
        return json_reply(refused.status, body, [*retry_headers(dialect, refused.retry_after), *headers])
