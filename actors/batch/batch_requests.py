"""The requests of a batch: one for each item, all alike but for their input, and checked once."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

import msgspec

from actors.money import to_micros
from actors.supervisor.messages import SmartRequest

if TYPE_CHECKING:
    from actors.supervisor.options import RequestOptions


class BatchRequests:
    """Makes the requests of one batch, which draw on `account`; an item may be a request already."""

    def __init__(self, service: str | None, options: RequestOptions, *, account: str) -> None:
        self._service = service
        self._options = options
        self._account = account
        self._first: SmartRequest | None = None

    def request(self, item: Any) -> SmartRequest:
        """Return the request for one item."""
        if isinstance(item, SmartRequest):
            return self._drawing_on_account(item)
        if self._first is None:
            if self._service is None:
                raise TypeError(f"robust_batch needs service= for items that are no SmartRequest, such as {item!r}")
            self._first = self._options.request(self._service, item, account=self._account)
        # A copy is not checked again: its input may be anything, and all else was checked with the first.
        request = copy(self._first)
        msgspec.structs.force_setattr(request, "input", item)
        return request

    def _drawing_on_account(self, item: SmartRequest) -> SmartRequest:
        options = self._options
        budget = item.budget
        if budget is None and options.budget is not None:
            budget = to_micros(options.budget)
        on_unknown, risk = item.on_unknown, item.risk
        if on_unknown is None and risk is None:
            on_unknown, risk = options.on_unknown, options.risk
        return msgspec.structs.replace(item, account=self._account, budget=budget, on_unknown=on_unknown, risk=risk)
