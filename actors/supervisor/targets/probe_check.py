"""Whether a provider's health check may stand in for the probe of its breaker. Pure.

A check costs nothing, and a probe is a caller's request; so a provider is checked before a request is risked on it.
But a check may be wrong: it can fail for reasons of its own, while calls would succeed. So it is believed a few times
in a row at most, and then a probe is made whatever it says. A probe that succeeds against its advice costs the check
all of its credit, which it regains little by little, by advice that proves right.

A probe that would cost its request its whole time is spared in favour of the check altogether: one that passes closes
the breaker. If the provider fails again before it has answered anything, the check has misled, and does not close the
breaker again until a probe has borne it out.
"""

from __future__ import annotations

import msgspec

MAX_CREDIT = 4
"""The probes in a row that failed checks can spare."""
COSTLY = 5
"""How many times as many they can spare if each would cost its request its whole time."""


class ProbeCheck(msgspec.Struct, frozen=True):
    """What is known of one provider's check: the probes in a row that it has `spared`, and how many it may spare.

    It `has_vouched` if it has closed the breaker, and nothing has been answered since; if it `misled`, it may not.

    >>> ProbeCheck().believes(), ProbeCheck(spared=4).believes(), ProbeCheck(spared=4).believes(is_costly=True)
    (True, False, True)
    """

    spared: int = 0
    credit: int = MAX_CREDIT
    has_vouched: bool = False
    misled: bool = False

    def believes(self, *, is_costly: bool = False) -> bool:
        """Tell whether a check that fails now is reason enough to make no probe, which may be a costly one."""
        return self.spared < self.credit * (COSTLY if is_costly else 1)

    def after_spared(self) -> ProbeCheck:
        """Return what is known after a failed check was believed."""
        return msgspec.structs.replace(self, spared=self.spared + 1)

    def after_vouching(self) -> ProbeCheck:
        """Return what is known after a check that passed has closed the breaker."""
        return ProbeCheck(0, self.credit, has_vouched=True)

    def after_answer(self) -> ProbeCheck:
        """Return what is known after the provider has answered a call: the check was right."""
        return msgspec.structs.replace(self, has_vouched=False) if self.has_vouched else self

    def after_trip(self) -> ProbeCheck:
        """Return what is known after the breaker has opened: if nothing was answered, the check has misled.

        >>> ProbeCheck().after_vouching().after_trip().misled, ProbeCheck().after_vouching().after_answer().misled
        (True, False)
        """
        return msgspec.structs.replace(self, has_vouched=False, misled=True) if self.has_vouched else self

    def after_probe(self, *, check_failed: bool, is_answered: bool) -> ProbeCheck:
        """Return what is known after a probe was made, whatever the check before it had found."""
        misled = self.misled and not (is_answered and not check_failed)
        if not check_failed:
            return ProbeCheck(0, self.credit, misled=misled)
        return ProbeCheck(0, 0 if is_answered else min(MAX_CREDIT, self.credit + 1), misled=misled)
