"""What a call to a model costs that was cut off, by what its provider declares of such calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from actors.errors.families import CallFailed, ConsumerLeft, OutcomeUnknown, Transient
from actors.money import ZERO
from actors.tariffs.cut_usage import TokenSpeed, usage_at_most, usage_when_cut
from actors.transports.transport import ProviderReply

if TYPE_CHECKING:
    from actors.model_calls.presets import OnCut, Preset
    from actors.tariffs.demand import Demand
    from actors.tariffs.usage import Usage
    from actors.transports.http_exchange import Exchange
    from actors.transports.model_stream import ModelStream
    from actors.transports.transport import ProviderCall

FREE = ProviderReply(output=None, cost=ZERO)


class CutCalls:
    """Settles the calls to one model that were cut off, as its preset declares: streams and plain calls apart.

    Unless it `charges_errors`, a provider that refuses in its own form, or reports an error before the first piece, is
    owed nothing, whatever the error says. `max_output` is the bound of an answer whose request has none (None: it has
    no bound).
    """

    def __init__(self, provider: str, preset: Preset, *, max_output: int | None = None) -> None:
        self.provider, self.paid = provider, preset.paid
        self.on_cut: OnCut = preset.on_cut
        self.on_cut_plain: OnCut = preset.on_cut_plain
        self._charges_errors = preset.charges_errors
        self._max_output = max_output
        self.speed = TokenSpeed(at_first=preset.token_speed)
        """How fast the model writes, by the streams that came whole."""

    def __repr__(self) -> str:
        return f"CutCalls({self.provider}, on_cut={self.on_cut!r}, on_cut_plain={self.on_cut_plain!r})"

    @property
    def may_ask(self) -> bool:
        """Whether the provider is asked about some of its calls."""
        return "ask" in {self.on_cut, self.on_cut_plain}

    def learn(self, reader: ModelStream, told: Usage | None) -> None:
        """Take note of a stream that came whole, and of the usage that was told."""
        if reader.stream.first_at is not None:
            self.speed = self.speed.after(reader.written(), tokens=0 if told is None else told.output)

    def of_stream(self, failure: CallFailed, reader: ModelStream, exchange: Exchange, cut: CutStream) -> CallFailed:
        """Return the failure of a stream with what it owes."""
        has_begun = reader.stream.first_at is not None
        if self._is_free_error(failure, exchange):
            return self._free(failure)
        is_said_free = failure.charged == "no" and not has_begun and not isinstance(failure, ConsumerLeft)
        if not self.paid or is_said_free or not exchange.progress.may_be_sent:
            return failure
        if reader.has_failed_before_first and (self.on_cut == "stops" or not self._charges_errors):
            # It was not cut off: its provider says itself that it has failed, before it wrote anything.
            return self._free(failure)
        owed = self.owed_by_stream(reader, exchange, cut)
        if owed is None:
            if has_begun:
                # It is charged for something: how much is found out later.
                failure.charged, failure.answer = "held", ProviderReply(output=reader.body_as_asked())
            return failure
        failure = _known(failure, self.provider)
        failure.charged, failure.answer = "yes", owed
        return failure

    def _is_free_error(self, failure: CallFailed, exchange: Exchange) -> bool:
        """Tell whether a provider that does not charge for errors refused a call in its own form, whatever it says."""
        if self._charges_errors or not self.paid or failure.charged != "held" or not exchange.refused:
            return False
        body = exchange.json
        return isinstance(body, dict) and isinstance(cast("dict[str, object]", body).get("error"), dict)

    def _free(self, failure: CallFailed) -> CallFailed:
        failure = _known(failure, self.provider)
        failure.outcome, failure.charged = "done", "no"
        return failure

    def owed_by_stream(self, reader: ModelStream, exchange: Exchange, cut: CutStream) -> ProviderReply | None:
        """Return what a stream that was cut off owes, as the reply that it would be; None if that is not known.

        There are five cases:

        1. It was not sent.
        2. The provider stops: what came is owed, and the input.
        3. It can be asked: that is done later.
        4. It runs on, or cannot be asked for want of a name, and something came: it is charged whole.
        5. It does so, and nothing came: whether it is charged is not known.
        """
        if not exchange.progress.may_be_sent:
            return FREE
        if cut.demand is None:
            return None
        if self.on_cut == "stops":
            usage = usage_when_cut(cut.told, cut.demand, reader.written(), self.speed)
            return ProviderReply(output=reader.body_as_asked(), usage=usage)
        if reader.stream.first_at is None or (self.on_cut == "ask" and cut.call.notes.reference is not None):
            return None
        usage = usage_at_most(cut.demand, max_output=self._max_output)
        return ProviderReply(output=reader.body_as_asked(), usage=usage)

    def of_plain(self, failure: CallFailed, exchange: Exchange) -> CallFailed:
        """Return the failure of a call without a stream with what it owes.

        At a provider that stops, a call that was given up is settled at what it would presumably have cost.
        """
        if self._is_free_error(failure, exchange):
            return self._free(failure)
        is_cut = isinstance(failure, OutcomeUnknown) and failure.status is None
        if not (self.paid and is_cut and self.on_cut_plain == "stops" and exchange.progress.may_be_sent):
            return failure
        failure = _known(failure, self.provider)
        failure.charged, failure.answer = "yes", ProviderReply(output=None)
        return failure

    def owed_by_plain(self, exchange: Exchange) -> ProviderReply | None:
        """Return what a call without a stream owes that was cancelled; None if that is not known."""
        if not exchange.progress.may_be_sent:
            return FREE
        return ProviderReply(output=None) if self.paid and self.on_cut_plain == "stops" else None


class CutStream:
    """What is known of a stream that was cut off: its call, the tokens that it needs, and the usage that was told."""

    def __init__(self, call: ProviderCall, demand: Demand | None, told: Usage | None) -> None:
        self.call, self.demand, self.told = call, demand, told


def _known(failure: CallFailed, provider: str) -> CallFailed:
    """Return a failure after which the request may go on, because what the call owes is known."""
    if not isinstance(failure, OutcomeUnknown):
        return failure
    facts: dict[str, Any] = {"status": failure.status, "said": failure.said, "retry_after": failure.retry_after}
    known = Transient(failure.args[0], provider=provider, **facts)
    known.limits, known.wire_calls = failure.limits, failure.wire_calls
    return known
