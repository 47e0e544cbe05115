"""An actor that lives elsewhere, as far as those that watch it here are concerned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.ref import ActorRef
    from runtime.supervision import Exit


class FarTarget:
    """What `watching` needs of it; a cell has the same fields."""

    ref: ActorRef[Any]
    exit: Exit | None = None
    watchers: dict[Any, None] | None = None
    """The cells that watch it."""

    async def ask_to_return(self, message: Any, timeout: float) -> tuple[Any, Callable[[], None]]:  # noqa: ASYNC109 - see `ActorRef.ask`.
        """Ask, and return the answer, and what gives it back to the actor if it is not taken after all."""
        raise NotImplementedError

    def observe(self) -> None:
        """Have it told when the actor ends."""
        raise NotImplementedError
