"""A simulated provider that notes every attempt at it and each payment, however it is called."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from actors.errors.classification import classify_status
from actors.errors.families import CallFailed
from actors.limits.token_bucket import TokenBucket
from actors.simulation.outcome import ErrorReply, NoReply, Served
from actors.simulation.provider import SimulatedProvider, SimulatedTransport

if TYPE_CHECKING:
    from collections.abc import Collection

    from actors.market.listing import SharedQuota
    from actors.simulation.outcome import Draws, SimulatedOutcome
    from actors.simulation.provider import SimulatedWork
    from actors.transports.transport import ProviderCall, ProviderReply
    from runtime.simulation import Simulation

SERVICE = "process"


class Attempt(msgspec.Struct):
    """One call of a transport, those whose connection is refused included."""

    at: float
    input: Any
    kind: str | None = "Cancelled"
    """The family of its error; None for an answer."""
    wire_calls: int = 1
    ended: float = 0.0


class Poison(msgspec.Struct, frozen=True):
    """Inputs that no provider can work on: it answers 400 or 500, its transport crashes, or it never answers."""

    inputs: Collection[int] = frozenset()
    does: Literal["refused", "crashes", "fails", "hangs"] = "refused"


class Strays:
    """429s that no rate causes, with a `Retry-After` or none: a `share` of the calls in every row of them.

    A row is the hundred calls, or the thousand, in which that is a whole number; which ones is drawn anew for each.
    """

    def __init__(self, seed: int, *, share: float, retry_after: float | None) -> None:
        self.share = share
        self.retry_after = retry_after
        self.row = 100 if share >= 0.01 else 1_000
        self.dice = random.Random(f"{seed}/strays")
        self.left: list[bool] = []

    def strike(self) -> bool:
        """Tell whether the next call is refused."""
        if not self.left:
            self.left = [number < round(self.row * self.share) for number in range(self.row)]
            self.dice.shuffle(self.left)
        return self.left.pop()


class Account:
    """What several providers draw on together: its name, what it states of its limit, and the limit that it keeps."""

    def __init__(self, name: str, stated: SharedQuota, kept: TokenBucket) -> None:
        self.name = name
        self.stated = stated
        self.kept = kept


def tokens_of(question: int) -> int:
    """Return the tokens of an input: from 100 to 1,000, in no order."""
    return 100 + question * 7_919 % 901


class TroubledProvider(SimulatedProvider):
    """A provider of a trouble; `terms` are those of `SimulatedProvider`, and `listed` fields of its `Listing`.

    `tokens` is its limit of those, beside that of requests.

    An answer names the provider and the input, so that a wrong one is known from a right one, and who gave it.
    """

    def __init__(
        self,
        simulation: Simulation,
        name: str,
        *,
        poison: Poison | None = None,
        tokens: TokenBucket | None = None,
        listed: dict[str, Any] | None = None,
        **terms: Any,
    ) -> None:
        super().__init__(
            simulation,
            name,
            services={SERVICE},
            answer=lambda call: right_answer(name, call.input),
            **terms,
        )
        self.poison = poison or Poison()
        self.tokens = tokens
        self.tokens_off = 0.0
        """By what part the tokens of an input may be more or fewer than they are believed to be."""
        self.strays: Strays | None = None
        self.account: Account | None = None
        self.long_answers: tuple[float, float] = (0.0, 0.0)
        """The share of answers that take longer, and by how many seconds."""
        self.sends = 1
        """How often the layer below sends a call that fails."""
        self.attempts: list[Attempt] = []
        self.paid_for: list[Any] = []
        """The input of each charge."""
        self.listing(**(listed or {}))

    def shrink(self, *, rate: float, burst: int, max_concurrency: int) -> None:
        """Bear less from now on, and say so in the listing."""
        self._bucket = TokenBucket(rate=rate * 1.02, burst=burst + 1)
        self.listing(rate_limit=rate, burst=burst, max_concurrency=max_concurrency)

    def true_tokens(self, question: int) -> int:
        """Return what an input uses of the limit of tokens."""
        off = self.tokens_off * random.Random(f"{self.simulation.seed}/{question}").uniform(-1.0, 1.0)
        return round(tokens_of(question) * (1.0 + off))

    def transport(self) -> TroubledTransport:
        return TroubledTransport(self)

    def outcome_of(self, call: ProviderCall, draws: Draws) -> SimulatedOutcome:
        outcome = super().outcome_of(call, draws)
        if isinstance(outcome, Served) and call.input in self.poison.inputs:
            return NoReply() if self.poison.does == "hangs" else ErrorReply(500)
        share, extra = self.long_answers
        if isinstance(outcome, Served) and draws.wrong < share and not self.knows(call):
            return msgspec.structs.replace(outcome, extra=outcome.extra + extra)
        return outcome

    def accept(self, call: ProviderCall, outcome: Served, draws: Draws, right: Any) -> SimulatedWork:
        before = len(self.charged.get(call.idempotency_key, ()))
        work = super().accept(call, outcome, draws, right)
        if len(self.charged.get(call.idempotency_key, ())) > before:
            self.paid_for.append(call.input)
        return work


class TroubledTransport(SimulatedTransport):
    """The way to it; it notes each attempt before anything can happen to it."""

    provider: TroubledProvider

    async def call(self, call: ProviderCall) -> ProviderReply:
        attempt = Attempt(self.provider.simulation.now(), call.input)
        self.provider.attempts.append(attempt)
        try:
            if call.input in self.provider.poison.inputs and self.provider.poison.does in {"refused", "crashes"}:
                await self._choke()
            await self._keep_limits(call)
            reply = await self._sent(call, attempt)
        except CallFailed as error:
            attempt.kind = error.kind
            raise
        except KeyError:
            attempt.kind = "crash"
            raise
        finally:
            attempt.ended = self.provider.simulation.now()
        attempt.kind = None
        return reply

    async def _sent(self, call: ProviderCall, attempt: Attempt) -> ProviderReply:
        """Send a call as often as the layer below does, until it is answered."""
        while True:
            try:
                reply = await super().call(call)
            except CallFailed as error:
                error.wire_calls = attempt.wire_calls
                if attempt.wire_calls >= self.provider.sends or not error.retryable:
                    raise
                attempt.wire_calls += 1
                await asyncio.sleep(0.1)
            else:
                weights = {"tokens": self.provider.true_tokens(call.input)} if self.provider.tokens_off else {}
                return msgspec.structs.replace(reply, wire_calls=attempt.wire_calls, weights=weights)

    async def _keep_limits(self, call: ProviderCall) -> None:
        provider, now = self.provider, self.provider.simulation.now()
        if provider.strays is not None and provider.strays.strike():
            await asyncio.sleep(provider.latency[0])
            raise classify_status(429, provider=provider.name, retry_after=provider.strays.retry_after)
        if provider.account is not None:
            taken = provider.account.kept.take(now)
            if not isinstance(taken, tuple):
                await asyncio.sleep(provider.latency[0])
                raise classify_status(429, provider=provider.name, retry_after=taken)
            provider.account.kept, _ = taken
        await self._take_tokens(call)

    async def _take_tokens(self, call: ProviderCall) -> None:
        provider = self.provider
        if provider.tokens is None:
            return
        taken = provider.tokens.take(provider.simulation.now(), provider.true_tokens(call.input))
        if isinstance(taken, tuple):
            provider.tokens, _ = taken
            return
        await asyncio.sleep(provider.latency[0])
        raise classify_status(429, provider=provider.name, retry_after=taken)

    async def _choke(self) -> None:
        await asyncio.sleep(self.provider.latency[0])
        if self.provider.poison.does == "crashes":
            raise KeyError("choices")
        raise classify_status(400, provider=self.provider.name)


def right_answer(name: str, question: Any) -> tuple[str, Any]:
    """Return what a provider answers to an input."""
    return name, question
