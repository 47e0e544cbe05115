"""One actor over all its restarts: its mailbox, its life and its children."""

__all__: list[str] = []
