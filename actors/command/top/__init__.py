"""The live page in a terminal: `understudy top`."""

__all__: list[str] = []
