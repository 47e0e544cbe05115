"""Whether a provider's health check may stand in for the probe of its breaker. Pure.

A check costs nothing, and a probe is a customer's request; so a provider is asked how it is before one is risked on it.
But a check may be wrong: it can fail for reasons of its own, while calls would succeed. So it is never believed more
than a few times in a row, and not at all any more once a probe has succeeded that it had advised against.
"""

from __future__ import annotations

import msgspec

MAX_SPARED = 3
"""The probes in a row that failed checks can save; the next is made whatever the check says."""


class ProbeCheck(msgspec.Struct, frozen=True):
    """What is known of one provider's check: the probes in a row that it has `spared`, and whether it `misleads`.

    >>> ProbeCheck().is_believed, ProbeCheck(spared=3).is_believed
    (True, False)
    """

    spared: int = 0
    misleads: bool = False

    @property
    def is_believed(self) -> bool:
        """Whether a check that fails now is reason enough to make no probe."""
        return not self.misleads and self.spared < MAX_SPARED

    def after_spared(self) -> ProbeCheck:
        """Return what is known after a failed check was believed."""
        return ProbeCheck(self.spared + 1, self.misleads)

    def after_probe(self, *, check_failed: bool, is_answered: bool) -> ProbeCheck:
        """Return what is known after a probe was made, whatever the check before it had found."""
        return ProbeCheck(0, self.misleads or (check_failed and is_answered))
