"""Answers what clients ask: calls of models in their protocols, embeddings, other services, and lists of names."""

from __future__ import annotations

import asyncio
import base64
import math
import sys
from array import array
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from actors.errors.families import BadAnswer, CallFailed
from actors.market.model_listing import CHAT
from actors.models.embed import embed
from actors.money import usd
from actors.serve.answer_stream import AnswerStream, wait_aloud
from actors.serve.door_request import (
    DoorRequest,
    key_in,
    model_named,
    priority_in,
    request_in,
    silence_in,
    timeout_in,
    trace_in,
    wants_stream,
    wants_usage,
)
from actors.serve.places import PlaceWish
from actors.serve.problems import Problem, problem_of
from actors.serve.replies import bad_answer_headers, named_answer, result_headers
from actors.serve.visitors import check_json
from actors.supervisor.client import smart_request
from actors.supervisor.options import RequestOptions
from actors.supervisor.streaming import smart_stream
from actors.tariffs.estimate import demand_of, form_of
from runtime import RuntimeFault

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from actors.model_calls.request import Form
    from actors.models.embed import EmbedResult
    from actors.serve.bodies import RequestBody
    from actors.serve.config import DoorConfig
    from actors.serve.door import Door, Visitor
    from actors.serve.exchange import DoorExchange
    from actors.serve.names import Named, Names
    from actors.serve.token_limits import Outputs
    from actors.supervisor.messages import SmartResult

T = TypeVar("T")


class Answers:
    """Has the requests of a door answered by its supervisor."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._supervisor = door.supervisor

    @property
    def _names(self) -> Names:
        return self._door.names

    @property
    def _config(self) -> DoorConfig:
        return self._door.config

    async def _read(self, reader: RequestBody, exchange: DoorExchange) -> dict[str, Any]:
        """Return the object that a body is. Raises `Problem`."""
        check_json(exchange.headers)
        return await reader.read(exchange.receive, length=exchange.headers.get("content-length"))

    async def model(self, exchange: DoorExchange, visitor: Visitor, request_id: str, form: Form) -> None:
        """Answer a call of a model."""
        with self._door.room.reading() as reader:
            body = await self._read(reader, exchange)
            begun = self._door.begin_try(exchange, visitor, reader.text)
            try:
                asked = self._asked(form, body, exchange.headers, visitor)
                if begun is not None:  # The next try joins a call that outlasts the patience of this one.
                    longer = asked.timeout + self._config.linger
                    asked = msgspec.structs.replace(asked, key=begun.key, timeout=longer)
                linger = 0.0 if begun is None else self._config.linger
                with self._door.reserved(visitor, asked.request.body, form) as share:
                    work = self._in_turn(
                        visitor,
                        PlaceWish(asked.options.priority, asked.request.body, form, asked.timeout),
                        partial(self._sent, asked, exchange, request_id),
                        meanwhile=partial(self._wait_aloud, asked, exchange, request_id) if asked.streams else None,
                    )
                    outputs = await exchange.unless_left(work, linger=linger)
                    if share is not None:
                        share.take(outputs, form)
            except Problem as problem:
                # What its client tries then is new; an SDK tries nothing again once it was told 200.
                self._door.end_try(begun, failed=None if exchange.has_begun else problem)
                raise
            finally:
                if begun is not None:
                    self._door.tries.over(begun)
            self._door.end_try(begun)

    async def _in_turn(
        self,
        visitor: Visitor,
        wish: PlaceWish,
        work: Callable[[float], Coroutine[Any, Any, T]],
        *,
        meanwhile: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> T:
        """Do some work once its tenant has a place for it; it is told the seconds that are left for it.

        What is to be done `meanwhile` ends with the wait.
        """
        place = self._door.place(visitor, wish, meanwhile)
        if place is None:
            return await work(wish.timeout)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wish.timeout
        async with place:
            return await work(deadline - loop.time())

    def _asked(self, form: Form, body: dict[str, Any], headers: Mapping[str, str], visitor: Visitor) -> DoorRequest:
        """Return what is asked. Raises `Problem`."""
        name = model_named(body)
        named = self._names.resolve(name, service=CHAT, allowed=visitor.allowed)
        streams, timeout, silence = wants_stream(body), timeout_in(headers), silence_in(headers) or math.inf
        if timeout is None:
            # A stream is never silent for so long.
            timeout = self._config.timeout if streams else min(self._config.timeout, silence)
        return DoorRequest(
            request=request_in(form, body, headers),
            name=name,
            service=named.service,
            options=_options(named, visitor, headers),
            account=visitor.tenant,
            timeout=timeout,
            silence=silence,
            key=key_in(headers),
            streams=streams,
            wants_usage=wants_usage(form, body),
        )

    async def _sent(self, asked: DoorRequest, exchange: DoorExchange, request_id: str, left: float) -> Outputs:
        """Send an answer for which `left` seconds are left, and return what it is that took tokens."""
        if left != asked.timeout:
            asked = msgspec.structs.replace(asked, timeout=left)
        return await (self._stream if asked.streams else self._answer)(asked, exchange, request_id)

    async def _wait_aloud(self, asked: DoorRequest, exchange: DoorExchange, request_id: str) -> None:
        await wait_aloud(asked, exchange, config=self._config, request_id=request_id)

    async def _stream(self, asked: DoorRequest, exchange: DoorExchange, request_id: str) -> Outputs:
        """Send an answer as a stream, and return what it is that took tokens."""
        stream = smart_stream(
            self._supervisor,
            service=asked.service,
            input=asked.request,
            options=asked.options,
            timeout=asked.timeout,
            patience=self._config.patience,
            after_cut="fail" if self._config.hold_first is None else "restart_unseen",
            account=asked.account,
            request_id=request_id,
            idempotency_key=asked.key,
        )
        result = await AnswerStream(asked, stream, exchange, config=self._config, request_id=request_id).run()
        return None if result is None else _taken(result)

    async def _answer(self, asked: DoorRequest, exchange: DoorExchange, request_id: str) -> Outputs:
        """Send an answer whole, and return what it is that took tokens."""
        try:
            result = await self._request(
                asked.service,
                asked.request,
                options=asked.options,
                timeout=asked.timeout,
                request_id=request_id,
                key=asked.key,
            )
        except BadAnswer as error:
            if error.answer is None:
                raise problem_of(error, is_late=False) from error
            # The client asked for the answer of a model, and this is one: its own form says what is wrong with it.
            headers = {**bad_answer_headers(error), "x-request-id": request_id}
            await exchange.answer(200, headers, named_answer(error.answer.output, asked.name))
            return () if error.replayed else (error.answer.output,)
        headers = {**result_headers(result), "x-request-id": request_id}
        await exchange.answer(200, headers, named_answer(result.output, asked.name))
        return _taken(result)

    async def _request(
        self,
        service: str,
        given: Any,
        *,
        options: RequestOptions,
        timeout: float,  # noqa: ASYNC109 - it travels as a deadline.
        request_id: str,
        key: str | None,
    ) -> SmartResult:
        """Have a service rendered. Raises `Problem` if it is not, and `BadAnswer` for an answer of no use."""
        deadline = asyncio.get_running_loop().time() + timeout
        try:
            return await smart_request(
                self._supervisor,
                service=service,
                input=given,
                options=options,
                timeout=timeout,
                account=options.tenant,
                request_id=request_id,
                idempotency_key=key,
            )
        except BadAnswer:
            raise
        except (CallFailed, RuntimeFault) as error:
            raise problem_of(error, is_late=asyncio.get_running_loop().time() >= deadline) from error

    async def count_tokens(self, exchange: DoorExchange, visitor: Visitor, request_id: str) -> None:
        """Tell about how many tokens a message has, without a call: by its bytes."""
        with self._door.room.reading() as reader:
            body = await self._read(reader, exchange)
            self._names.resolve(model_named(body), allowed=visitor.allowed)
            demand = demand_of(request_in("messages", body).body, form="messages")
            counted = msgspec.json.encode({"input_tokens": 0 if demand is None else demand.input_estimate})
            await exchange.answer(200, {"x-request-id": request_id}, counted)

    async def list_models(self, exchange: DoorExchange, visitor: Visitor, request_id: str) -> None:
        """Tell every name that the client may use, in the form of OpenAI or, if it speaks as Anthropic, in theirs."""
        names = self._names.listed(visitor.allowed)
        if "anthropic-version" in exchange.headers:
            models = [
                {"type": "model", "id": name, "display_name": name, "created_at": "1970-01-01T00:00:00Z"}
                for name in names
            ]
            first, last = (names[0], names[-1]) if names else (None, None)
            body: dict[str, Any] = {"data": models, "has_more": False, "first_id": first, "last_id": last}
        else:
            owned = {"object": "model", "created": 0, "owned_by": "understudy"}
            body = {"object": "list", "data": [{"id": name, **owned} for name in names]}
        await exchange.answer(200, {"x-request-id": request_id}, msgspec.json.encode(body))

    async def service(self, exchange: DoorExchange, visitor: Visitor, request_id: str, service: str) -> None:
        """Have any service of the market rendered: the body of the request is its input."""
        with self._door.room.reading() as reader:
            body = await self._read(reader, exchange)
            named = self._names.resolve(service, service=service, allowed=visitor.allowed)
            options, key = _options(named, visitor, exchange.headers), key_in(exchange.headers)
            timeout = timeout_in(exchange.headers) or self._config.timeout
            form = form_of(body) or "chat"
            # What is no call of a model takes no tokens.
            counts = self._names.is_of_models(named.service)
            with self._door.reserved(visitor, body, form) if counts else nullcontext() as share:
                ask = partial(self._request, named.service, body, options=options, request_id=request_id, key=key)
                work = self._in_turn(
                    visitor, PlaceWish(options.priority, body, form, timeout), lambda left: ask(timeout=left)
                )
                try:
                    result = await exchange.unless_left(work)
                except BadAnswer as error:
                    raise problem_of(error, is_late=False) from error
                if share is not None:
                    share.take([] if result.replayed else [result.output], form)
            headers = {**result_headers(result), "x-request-id": request_id}
            await exchange.answer(200, headers, msgspec.json.encode({"output": result.output}))

    async def embeddings(self, exchange: DoorExchange, visitor: Visitor, request_id: str) -> None:
        """Give the vectors of any number of inputs."""
        with self._door.room.reading() as reader:
            body = await self._read(reader, exchange)
            name = model_named(body)
            named = self._names.resolve(name, service=name, allowed=visitor.allowed)
            timeout = timeout_in(exchange.headers) or self._config.timeout
            is_packed = body.get("encoding_format") == "base64"
            known = {"model", "input", "dimensions", "encoding_format"}
            with self._door.reserved(visitor, body, "embeddings") as share:
                options = _options(named, visitor, exchange.headers)
                ask = partial(
                    embed,
                    self._supervisor,
                    model=named.service,
                    inputs=body.get("input") or [],
                    dimensions=body.get("dimensions"),
                    options=options,
                    account=visitor.tenant,
                    idempotency_key=key_in(exchange.headers),
                    encoding_format="base64",  # A quarter of the bytes.
                    extra_body={field: value for field, value in body.items() if field not in known},
                )
                wish = PlaceWish(options.priority, body, "embeddings", timeout)
                work = self._in_turn(visitor, wish, lambda left: ask(timeout=left))
                result = await _vectors(exchange, work)
                if share is not None:
                    whole = [part.result for part in result.parts if part.result is not None]
                    share.take([one.output for one in whole if not one.replayed], "embeddings")
            headers = {**embed_headers(result), "x-request-id": request_id}
            await exchange.answer(200, headers, vectors_body(result, name, is_packed=is_packed))


def _options(named: Named, visitor: Visitor, headers: Mapping[str, str]) -> RequestOptions:
    priority = priority_in(headers, visitor.priority)
    return RequestOptions(
        where=named.where,
        strategy=named.strategy,
        tenant=visitor.tenant,
        priority=priority,
        max_waiting=visitor.max_waiting,
        trace=trace_in(headers),
    )


def _taken(result: SmartResult) -> Outputs:
    """Return the answer, which took tokens; nothing if it was given again."""
    return () if result.replayed else (result.output,)


async def _vectors(exchange: DoorExchange, work: Coroutine[Any, Any, EmbedResult]) -> EmbedResult:
    """Return the vectors that a client asked for. Raises `Problem` if there are none."""
    try:
        return await exchange.unless_left(work)
    except (TypeError, ValueError) as error:
        raise Problem(400, str(error), code="invalid_request") from error
    except (CallFailed, RuntimeFault) as error:
        raise problem_of(error, is_late=False) from error


def embed_headers(result: EmbedResult) -> dict[str, str]:
    """Return the headers that say what vectors took."""
    return {
        "x-understudy-provider": result.provider,
        "x-understudy-model": result.model,
        "x-understudy-cost": usd(result.cost),
        "x-understudy-attempts": str(sum(part.result.attempts for part in result.parts if part.result is not None)),
    }


def vectors_body(result: EmbedResult, name: str, *, is_packed: bool) -> bytes:
    """Return the body of an answer with vectors: as numbers, or packed, 32 bits each, the lowest byte first."""
    data = [
        {"object": "embedding", "index": index, "embedding": packed(vector) if is_packed else vector}
        for index, vector in enumerate(result.vectors)
    ]
    return msgspec.json.encode({"object": "list", "data": data, "model": name, "usage": result.usage})


def packed(vector: tuple[float, ...]) -> str:
    """Return a vector as base64.

    >>> packed((1.0, 0.5))
    'AACAPwAAAD8='
    """
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode()
