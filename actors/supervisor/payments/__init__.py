"""The money of calls: reserved before, booked after, and reconciled if the outcome is unknown."""

__all__: list[str] = []
