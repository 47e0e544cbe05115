"""Which providers can serve a request at all; checked before one is chosen, as calls that cannot work cost money too.

Pure. It is separate from `ProviderFilter`: a filter is what the caller wants, a requirement is what the input needs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Set as AbstractSet  # noqa: TC003 - msgspec resolves this annotation
from typing import TYPE_CHECKING

import msgspec

from actors.validation import check_count, check_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actors.providers.provider import Provider


class Requirement(msgspec.Struct, frozen=True, kw_only=True):
    """What an input requires of a provider; the defaults require nothing.

    `input_tokens` is its length, by the caller's count; `capabilities` are names as providers list them, such as a
    language. `capabilities` may be any iterable of names, and is kept as a frozenset.
    """

    input_tokens: int = 0
    capabilities: AbstractSet[str] = frozenset()

    def __post_init__(self) -> None:
        if isinstance(self.capabilities, str):
            raise TypeError(
                f"capabilities must be a set of names, got the string {self.capabilities!r}; "
                f'write {{"{self.capabilities}"}}'
            )
        for name in self.capabilities:
            check_text("a name in capabilities", name)
        msgspec.structs.force_setattr(self, "capabilities", frozenset(self.capabilities))
        check_count("input_tokens", self.input_tokens, least=0, unit="tokens")


NO_REQUIREMENT = Requirement()


def fits(provider: Provider, requirement: Requirement) -> str | None:
    """Return None if `provider` can take such an input, or else the first reason why it cannot.

    A provider that states no `max_input_tokens` is assumed to take any length. Reasons name the requirement and not the
    provider's limit, so that they can be counted.

    >>> from actors.providers.provider import Provider
    >>> short = Provider(name="a", services={"s"}, max_input_tokens=8_000)
    >>> fits(short, Requirement(input_tokens=12_000))
    'takes fewer than 12000 input tokens'
    """
    if provider.max_input_tokens is not None and requirement.input_tokens > provider.max_input_tokens:
        return f"takes fewer than {requirement.input_tokens} input tokens"
    if missing := requirement.capabilities - provider.capabilities:
        return f"without {', '.join(sorted(missing))}"
    return None


def select_fit(providers: Iterable[Provider], requirement: Requirement) -> tuple[list[Provider], dict[str, int]]:
    """Return the providers that can take such an input, in the order given, and how many were dropped by reason."""
    fit: list[Provider] = []
    dropped: Counter[str] = Counter()
    for provider in providers:
        reason = fits(provider, requirement)
        if reason is None:
            fit.append(provider)
        else:
            dropped[reason] += 1
    return fit, dict(dropped)
