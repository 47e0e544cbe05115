"""The demo: a batch of requests to three providers that fail, each an HTTP server in a process of its own."""

__all__: list[str] = []

FEWEST, MOST = 60, 1000
"""The number of requests that a demo can make."""
