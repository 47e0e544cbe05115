"""The transports that gateways have open: one that several listings share is closed by its last gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actors.transports.transport import Transport


class OpenTransports:
    """Counts the gateways that use a transport. `transport=lambda: this_one` gives the same one to each of them."""

    def __init__(self) -> None:
        self._users: dict[int, tuple[Transport, int]] = {}
        """By the identity of the transport, which this keeps alive."""

    def take(self, transport: Transport) -> None:
        """Take note of one more gateway that uses a transport."""
        _, users = self._users.get(id(transport), (transport, 0))
        self._users[id(transport)] = (transport, users + 1)

    def leave(self, transport: Transport) -> bool:
        """Take note that a gateway does no more; tell whether it was the last, which has to close the transport."""
        _, users = self._users[id(transport)]
        if users > 1:
            self._users[id(transport)] = (transport, users - 1)
            return False
        del self._users[id(transport)]
        return True

    def __len__(self) -> int:
        return len(self._users)
