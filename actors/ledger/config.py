"""How a ledger keeps its book."""

from __future__ import annotations

import msgspec

from actors.ledger.journal import Safety  # noqa: TC001 - msgspec resolves the annotations below.
from actors.validation import check_count


class LedgerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How a ledger keeps its book.

    An alert is raised where `alert_percent` of a cap is used. `max_paid_keys` are remembered after they were paid; a
    journal knows the others too. `max_waiting` may wait for money, and a question may take `approval_timeout` seconds.
    `safety` says what a journal outlives: the process ("normal"), or a power cut too ("full").
    """

    alert_percent: int = 80
    max_paid_keys: int = 100_000
    max_waiting: int = 100_000
    approval_timeout: float = 600.0
    safety: Safety = "normal"

    def __post_init__(self) -> None:
        if not 0 < self.alert_percent <= 100:
            raise ValueError(f"alert_percent must be > 0 and at most 100, got {self.alert_percent}")
        check_count("max_paid_keys", self.max_paid_keys)
        check_count("max_waiting", self.max_waiting, least=0)
        if not self.approval_timeout > 0:
            raise ValueError(f"approval_timeout must be > 0 seconds, got {self.approval_timeout}")


DEFAULT_CONFIG = LedgerConfig()
