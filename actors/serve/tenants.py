"""Who is served: tenants, with what each may spend and call."""

from __future__ import annotations

import msgspec

from actors.validation import check_text


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """One customer of the door: caps and permissions are the tenant's, whichever of its keys is used.

    `budget` is a cap in dollars as text, such as "5" or "5/day in Europe/Berlin" (None: none of its own). `models` are
    the models, or providers, that may be called (empty: all).
    """

    budget: str | None = None
    models: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.models:
            check_text("model of a tenant", name)

    @property
    def allowed(self) -> frozenset[str] | None:
        """The models that may be called; None is all."""
        return frozenset(self.models) if self.models else None
