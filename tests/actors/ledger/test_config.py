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


def test_a_cipher_that_cannot_decrypt_is_refused():
    with pytest.raises(ValueError, match=r"answer_cipher must have a method encrypt\(\), got 'secret'"):
        LedgerConfig(answer_cipher="secret")  # type: ignore[arg-type]
