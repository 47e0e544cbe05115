"""The providers under supervision: their state, whether a call is admitted, and which requests wait."""

__all__: list[str] = []
