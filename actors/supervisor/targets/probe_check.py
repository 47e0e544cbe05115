"""Whether a provider's health check may stand in for the probe of its breaker. Pure.

A check costs nothing, and a probe is a caller's request; so a provider is checked before a request is risked on it.
But a check may be wrong: it can fail for reasons of its own, while calls would succeed. So it is believed a few times
in a row at most, and then a probe is made whatever it says. A probe that succeeds against its advice costs the check
all of its credit, which it regains little by little, by advice that proves right.
"""

from __future__ import annotations

import msgspec

MAX_CREDIT = 4
"""The probes in a row that failed checks can spare."""


class ProbeCheck(msgspec.Struct, frozen=True):
    """What is known of one provider's check: the probes in a row that it has `spared`, and how many it may spare.

    >>> ProbeCheck().is_believed, ProbeCheck(spared=4).is_believed
    (True, False)
    """

    spared: int = 0
    credit: int = MAX_CREDIT

    @property
    def is_believed(self) -> bool:
        """Whether a check that fails now is reason enough to make no probe."""
        return self.spared < self.credit

    def after_spared(self) -> ProbeCheck:
        """Return what is known after a failed check was believed."""
        return ProbeCheck(self.spared + 1, self.credit)

    def after_probe(self, *, check_failed: bool, is_answered: bool) -> ProbeCheck:
        """Return what is known after a probe was made, whatever the check before it had found."""
        if not check_failed:
            return ProbeCheck(0, self.credit)
        return ProbeCheck(0, 0 if is_answered else min(MAX_CREDIT, self.credit + 1))
