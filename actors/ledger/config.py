"""The configuration of a ledger: its limits, when it raises an alert, and how safely its journal is written."""

from __future__ import annotations

import math

import msgspec

from actors.ledger.receipt import KeepAnswers  # noqa: TC001 - msgspec resolves the annotations below.
from actors.validation import check_count, checked_held_for
from runtime.persistence import Cipher, Safety  # noqa: TC001 - msgspec resolves the annotations below.

DAY = 86_400.0


class LedgerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of a ledger, when it raises an alert, and how safely its journal is written.

    An alert is raised once `alert_percent` of a cap is used, and once money has been held for one call for
    `held_alert_after` seconds: most look-ups find out before that what became of a call. The `max_paid_keys` that were
    paid last are remembered; a journal knows the others too. At most `max_waiting` requests wait for money, and
    `on_exhausted` may take `approval_timeout` seconds to answer. `safety` tells what a journal outlives: a power
    cut ("power"), for which each reservation waits for the disk, or the process alone ("process"). What is held counts
    as charged after `held_for` seconds (None: it is held for ever), unless the call was reserved with a `held_for` of
    its own. A journal knows for `keys_for` seconds what was paid under a key, and has an answer for `answers_for`;
    after that, a key is new. `keep_answers` tells what is kept of the answer to a request with an idempotency key:
    "full", to give it again, its "hash", or "none" of it. With `compress_answers`, a journal compresses those of 1,000
    bytes and more; with an `answer_cipher`, it encrypts all of them. Both may change from run to run, as long as the
    cipher decrypts what was encrypted before.
    """

    alert_percent: int = 80
    max_paid_keys: int = 100_000
    max_waiting: int = 100_000
    approval_timeout: float = 600.0
    safety: Safety = "power"
    held_for: float | None = None
    held_alert_after: float = 30.0
    answers_for: float = 30 * DAY
    keys_for: float = 400 * DAY
    keep_answers: KeepAnswers = "full"
    compress_answers: bool = False
    answer_cipher: Cipher | None = None

    def __post_init__(self) -> None:
        if not 0 < self.alert_percent <= 100:
            raise ValueError(f"alert_percent must be > 0 and at most 100, got {self.alert_percent}")
        check_count("max_paid_keys", self.max_paid_keys)
        check_count("max_waiting", self.max_waiting, least=0)
        if self.keep_answers not in {"full", "hash", "none"}:
            raise ValueError(f'keep_answers must be "full", "hash" or "none", got {self.keep_answers!r:.100}')
        for name in ("encrypt", "decrypt"):
            if self.answer_cipher is not None and not callable(getattr(self.answer_cipher, name, None)):
                raise ValueError(f"answer_cipher must have a method {name}(), got {self.answer_cipher!r:.100}")
        if not self.approval_timeout > 0:
            raise ValueError(f"approval_timeout must be > 0 seconds, got {self.approval_timeout}")
        for name in ("answers_for", "keys_for"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0 seconds, got {getattr(self, name)}")
        if not 0 <= self.held_alert_after < math.inf:
            raise ValueError(f"held_alert_after must be >= 0 seconds and finite, got {self.held_alert_after}")
        if self.held_for is not None:
            msgspec.structs.force_setattr(self, "held_for", checked_held_for(self.held_for))


DEFAULT_CONFIG = LedgerConfig()
