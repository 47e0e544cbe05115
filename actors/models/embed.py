"""Asks one model for the vectors of many inputs through a supervisor; what is too much for one call goes in parts."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
import msgspec

from actors.discovery.messages import Discover
from actors.errors.families import CallFailed, OutcomeUnknown, Permanent, Unclassified
from actors.ledger.messages import CloseAccount, OpenAccount
from actors.model_calls.answer import MalformedAnswer, read_answer
from actors.model_calls.embeddings import vector_of, written_vectors
from actors.model_calls.request import ModelRequest
from actors.models.embed_parts import (
    MAX_INPUTS,
    MAX_TOKENS,
    EmbedFailed,
    EmbedPart,
    checked_inputs,
    split,
    to_ask_again,
)
from actors.money import ZERO, Micros, micros_of, to_micros
from actors.spelling import unknown_name
from actors.supervisor.client import smart_request
from actors.supervisor.messages import SmartResult  # noqa: TC001 - msgspec resolves the annotations below.
from actors.supervisor.options import DEFAULT_OPTIONS, RequestOptions
from actors.validation import check_count
from runtime import ActorCrashed, AskTimeout, RuntimeFault

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from actors.errors.families import Attempt
    from actors.models.embed_parts import EmbedInput
    from actors.money import Amount
    from actors.providers.provider import Provider
    from runtime import ActorRef

OPTIONS = ("inputs", "model", "dimensions", "options", "budget", "timeout", "account", "idempotency_key", "resume")
EMBED_FIELDS = frozenset({"encoding_format", "extra_body", "user"})
"""The other fields of a request for embeddings, as OpenAI documents them."""
MAX_CONCURRENCY = 8
"""The parts that are under way at the same time."""
SUPERVISOR_TIMEOUT = 30.0
"""Seconds that the supervisor has to tell the providers of a model, or to open or close an account."""

Vector = tuple[float, ...]


class EmbedResult(msgspec.Struct, frozen=True, kw_only=True):
    """The vectors of all inputs, in their order, and what it took to get them.

    `provider` is who gave them, or several, and `model` the one that answered, as its provider calls it. `usage` is the
    sum of what was told, `cost` is in micro-units. `parts` are the requests that it took, one unless the inputs were
    too many or too long for one call.
    """

    vectors: tuple[Vector, ...]
    provider: str
    cost: Micros
    model: str
    usage: dict[str, int] = {}
    parts: tuple[EmbedPart, ...]


class _Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What all parts have in common."""

    supervisor: Any
    model: str
    body: dict[str, Any]
    inputs: list[Any]
    options: RequestOptions
    account: str | None


async def embed(
    supervisor: ActorRef[Any],
    *,
    model: str,
    inputs: str | Sequence[EmbedInput],
    dimensions: int | None = None,
    options: RequestOptions = DEFAULT_OPTIONS,
    budget: Amount | None = None,
    timeout: float | None = None,  # noqa: ASYNC109 - it travels as a deadline.
    account: str | None = None,
    idempotency_key: str | None = None,
    resume: EmbedFailed | None = None,
    **fields: Any,
) -> EmbedResult:
    """Return the vectors of `inputs`: texts, or lists of tokens.

    `model` names one model, and only its providers are asked: vectors of two models do not mix. A service that several
    models offer is refused. So is an answer whose vectors have not the `dimensions` that are asked for (None: what the
    model gives). The other `fields` are those of OpenAI's embeddings; what only some providers know goes into
    `extra_body`.

    Inputs that are too many or too long for one call, at any of the providers, are asked for in parts, up to 8 at the
    same time. Each is a request of its own, with the key KEY#i of `idempotency_key` KEY, its own reservation and
    `timeout`; all of them draw on `budget`. The rest is as for `smart_request`.

    Raises as that does if there is one part, and `EmbedFailed` if there are several: it has what came, and names what
    was paid. As `resume`, it has only the parts that failed asked for again.
    """
    body = _body_of(model, dimensions, fields)
    given = checked_inputs(inputs)
    options = options.changed(timeout=timeout)
    providers = await _providers_of(supervisor, model, options)
    options = _of_one_model(providers, model, options)
    if resume is None:
        parts = _parts_of(given, providers, idempotency_key or f"{random.getrandbits(128):032x}")
    else:
        parts = _checked_resume(resume, model, dimensions, given)
    cap = budget if budget is not None else options.budget
    async with _capped(supervisor, cap, account, is_needed=sum(one.result is None for one in parts) > 1) as drawn_on:
        if drawn_on != account:
            options = msgspec.structs.replace(options, budget=None)
        elif cap is not None:
            options = options.changed(budget=cap)
        asked = _Asked(supervisor=supervisor, model=model, body=body, inputs=given, options=options, account=drawn_on)
        is_shared = drawn_on == account and options.budget is not None
        done = await _all_parts(asked, parts, at_once=1 if is_shared else MAX_CONCURRENCY)
    return _result_of(asked, done, dimensions)


def _body_of(model: object, dimensions: int | None, fields: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(model, str):
        raise TypeError(f"model must be the name of one model, as vectors of two models do not mix, got {model!r:.100}")
    if not model:
        raise ValueError("model must be the name of a model, got an empty text")
    for field in fields:
        if field not in EMBED_FIELDS:
            raise TypeError(f"embed() has {unknown_name('option', field, (*OPTIONS, *EMBED_FIELDS))}")
    further: dict[str, Any] = fields.pop("extra_body", None) or {}
    if not isinstance(further, dict):
        raise TypeError(f"extra_body must be a dict of further fields, got {further!r:.100}")
    if dimensions is not None:
        check_count("dimensions", dimensions, unit="dimension")
        further["dimensions"] = dimensions
    return {"model": model, **fields, **further}


async def _providers_of(supervisor: ActorRef[Any], model: str, options: RequestOptions) -> Sequence[Provider]:
    offers = await supervisor.ask(Discover(service=model, where=options.where), timeout=SUPERVISOR_TIMEOUT)
    return offers.providers


def _of_one_model(providers: Sequence[Provider], model: str, options: RequestOptions) -> RequestOptions:
    """Return options by which only providers of the one model are asked. Raises `Permanent` if it is not one."""
    names = {one.model or model for one in providers}
    if len(names) == 1:
        return options
    if model not in names:
        raise Permanent(
            f"{model!r} is offered by several models, {', '.join(sorted(names))}, and vectors of two do not mix; "
            "ask for one of them, or list those that are the same with known_as=",
            outcome="not_started",
        )
    own = options.where.predicate

    def is_that_model(provider: Provider) -> bool:
        return (provider.model or model) == model and (own is None or own(provider))

    return msgspec.structs.replace(options, where=msgspec.structs.replace(options.where, predicate=is_that_model))


def _parts_of(inputs: list[Any], providers: Sequence[Provider], key: str) -> list[EmbedPart]:
    max_inputs = min(one.max_inputs or MAX_INPUTS for one in providers)
    max_tokens = min(one.max_input_tokens or MAX_TOKENS for one in providers)
    ranges = split(inputs, max_inputs=max_inputs, max_tokens=max_tokens)
    if len(ranges) == 1:
        return [EmbedPart(key=key, start=0, stop=len(inputs))]
    return [EmbedPart(key=f"{key}#{number}", start=one, stop=end) for number, (one, end) in enumerate(ranges)]


def _checked_resume(resume: EmbedFailed, model: str, dimensions: int | None, inputs: list[Any]) -> list[EmbedPart]:
    if not isinstance(resume, EmbedFailed):
        raise TypeError(f"resume must be the EmbedFailed of an earlier call, got {resume!r:.100}")
    if (resume.model, resume.dimensions) != (model, dimensions) or resume.parts[-1].stop != len(inputs):
        raise ValueError(
            f"resume is of {resume.parts[-1].stop} inputs for {resume.model!r} and dimensions={resume.dimensions}; "
            "give the same inputs, model and dimensions as then"
        )
    return [to_ask_again(part) for part in resume.parts]


@asynccontextmanager
async def _capped(
    supervisor: ActorRef[Any], cap: Amount | None, account: str | None, *, is_needed: bool
) -> AsyncGenerator[str | None]:
    """Yield the account that the parts draw on: one with this cap, unless they are to draw on another one anyway."""
    if cap is None or account is not None or not is_needed:
        yield account
        return
    name = await supervisor.ask(OpenAccount(cap=to_micros(cap)), timeout=SUPERVISOR_TIMEOUT)
    try:
        yield name
    finally:
        with anyio.CancelScope(shield=True), suppress(CallFailed, RuntimeFault):
            # A supervisor that has ended or restarted has forgotten its accounts.
            await supervisor.ask(CloseAccount(name=name), timeout=SUPERVISOR_TIMEOUT)


async def _all_parts(asked: _Asked, parts: Sequence[EmbedPart], *, at_once: int) -> list[EmbedPart]:
    """Return all parts with their results or errors.

    If they have to be asked for one after the other, because the budget is theirs together, each has what is left.
    """
    gate, spent = asyncio.Semaphore(at_once), 0

    async def done(part: EmbedPart) -> EmbedPart:
        nonlocal spent
        if part.result is not None:
            return part
        async with gate:
            budget = asked.options.budget
            left = None if budget is None else micros_of(max(0, int(budget) - spent))
            ended = await _ask_for(asked, part, budget=left)
            held = () if ended.error is None else ended.error.held
            spent += int(ended.cost) + sum(int(one.amount) for one in held)
            return ended

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(done(part)) for part in parts]
    return [task.result() for task in tasks]


async def _ask_for(asked: _Asked, part: EmbedPart, *, budget: Micros | None) -> EmbedPart:
    body = asked.body | {"input": asked.inputs[part.start : part.stop]}
    error: CallFailed
    try:
        result = await smart_request(
            asked.supervisor,
            service=asked.model,
            input=ModelRequest(form="embeddings", body=body),
            options=asked.options,
            budget=budget,
            account=asked.account,
            idempotency_key=part.key,
        )
        return msgspec.structs.replace(part, result=result, cost=result.cost)
    except CallFailed as failure:
        error = failure
    except (AskTimeout, ActorCrashed) as fault:
        error = OutcomeUnknown(f"the supervisor did not say what became of the request: {fault}")
        error.__cause__ = fault
    except RuntimeFault as fault:
        error = Unclassified(f"the supervisor did not take the request: {fault}", outcome="not_started")
        error.__cause__ = fault
    attempts: Sequence[Attempt] = getattr(error, "attempts", ())
    return msgspec.structs.replace(part, error=error, cost=sum((one.cost for one in attempts), ZERO))


def _result_of(asked: _Asked, parts: list[EmbedPart], dimensions: int | None) -> EmbedResult:
    """Return the vectors of all parts; raises the error of the only part, or `EmbedFailed`."""
    vectors: list[Vector] = []
    usage: dict[str, int] = {}
    models: dict[str, None] = {}
    for number, part in enumerate(parts):
        if part.result is None:
            continue
        try:
            answer = read_answer("embeddings", part.result.output)
            request = asked.body | {"input": asked.inputs[part.start : part.stop]}
            got = [vector_of(one) for one in written_vectors(request, part.result.output)]
            if vectors and len(got[0]) != len(vectors[0]):
                raise MalformedAnswer(f"its vectors have {len(got[0])} dimensions, and those before {len(vectors[0])}")
        except MalformedAnswer as error:
            parts[number] = _spoilt(part, part.result, error)
            continue
        vectors += got
        models.setdefault(answer.model)
        for name, count in answer.usage.items():
            if type(count) is int:
                usage[name] = usage.get(name, 0) + count
    if any(part.error is not None for part in parts):
        if len(parts) == 1 and parts[0].error is not None:
            raise parts[0].error
        raise EmbedFailed(asked.model, parts, dimensions=dimensions)
    results = [part.result for part in parts if part.result is not None]
    return EmbedResult(
        vectors=tuple(vectors),
        provider=", ".join(dict.fromkeys(one.provider for one in results)),
        cost=sum((one.cost for one in results), ZERO),
        model=", ".join(models),
        usage=usage,
        parts=tuple(parts),
    )


def _spoilt(part: EmbedPart, result: SmartResult, error: MalformedAnswer) -> EmbedPart:
    """Return a part whose answer is of no use, though it was paid."""
    failure = Unclassified(
        f"{result.provider!r} gave an answer of which {error}", provider=result.provider, outcome="done", charged="yes"
    )
    return msgspec.structs.replace(part, result=None, error=failure)
