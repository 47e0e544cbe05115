"""What a transport may tell of a call before it is made: how many tokens it needs, and how its output is bounded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from actors.tariffs.demand import Demand


@runtime_checkable
class PricesCalls(Protocol):
    """A transport that knows the form of its requests; declared by having both methods.

    They are called for every request that may be made at a listing with a tariff, before anything is reserved, by the
    supervisor and not by the gateway: both must be pure and fast, and must not raise for any input. Without them, the
    input is read by its form, if it is one of those that `actors.tariffs.estimate` knows.
    """

    def demand(self, input: Any) -> Demand | None:  # noqa: A002 - it is the `input` of the call.
        """Return the tokens that a call with this input needs; None if it is no request that costs tokens.

        `output_bound` is the bound that the request itself gives, times the number of answers that it asks for. It is
        None if the request gives none: then the supervisor chooses one, and calls `with_max_output`.

        A request is asked about once for each transport; once for all transports of a class whose `demand` is static.
        """
        ...

    def with_max_output(self, input: Any, tokens: int) -> Any:  # noqa: A002 - see `demand`.
        """Return the input with the bound `tokens` (> 0) for each answer, in the field that the provider knows.

        It is a copy: the input of the request itself is sent to other providers too.
        """
        ...
