"""The demo: three providers that fail, each a process with a server, and a batch of requests over them."""

__all__: list[str] = []
