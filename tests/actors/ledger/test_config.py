"""The configuration of a ledger."""

from __future__ import annotations

from typing import Any

import pytest

from actors.ledger.config import LedgerConfig


@pytest.mark.parametrize(
    "wrong",
    [
        {"alert_percent": 0},
        {"held_alert_after": -1.0},
        {"held_alert_after": float("nan")},
        {"max_paid_keys": 0},
        {"answers_for": 0.0},
        {"keys_for": -1.0},
        {"max_waiting": -1},
        {"approval_timeout": 0},
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(wrong: Any):
    with pytest.raises(ValueError, match="must be >"):
        LedgerConfig(**wrong)
