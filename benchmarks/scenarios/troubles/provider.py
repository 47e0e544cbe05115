"""A simulated provider that notes every attempt at it and each payment, however it is called."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from actors.errors.classification import classify_status
from actors.errors.families import CallFailed
from actors.simulation.outcome import ErrorReply, NoReply, Served
from actors.simulation.provider import SimulatedProvider, SimulatedTransport

if TYPE_CHECKING:
    from collections.abc import Collection

    from actors.limits.token_bucket import TokenBucket
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


class Poison(msgspec.Struct, frozen=True):
    """Inputs that no provider can work on: it answers 400 or 500, its transport crashes, or it never answers."""

    inputs: Collection[int] = frozenset()
    does: Literal["refused", "crashes", "fails", "hangs"] = "refused"


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
        self.attempts: list[Attempt] = []
        self.paid_for: list[Any] = []
        """The input of each charge."""
        self.listing(**(listed or {}))

    def transport(self) -> TroubledTransport:
        return TroubledTransport(self)

    def outcome_of(self, call: ProviderCall, draws: Draws) -> SimulatedOutcome:
        outcome = super().outcome_of(call, draws)
        if isinstance(outcome, Served) and call.input in self.poison.inputs:
            return NoReply() if self.poison.does == "hangs" else ErrorReply(500)
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
            await self._take_tokens(call)
            reply = await super().call(call)
        except CallFailed as error:
            attempt.kind = error.kind
            raise
        except KeyError:
            attempt.kind = "crash"
            raise
        attempt.kind = None
        return reply

    async def _take_tokens(self, call: ProviderCall) -> None:
        provider = self.provider
        if provider.tokens is None:
            return
        taken = provider.tokens.take(provider.simulation.now(), tokens_of(call.input))
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
