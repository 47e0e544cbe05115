"""How long the streams of one provider took lately: until their first piece, and between two pieces."""

from __future__ import annotations

LATELY = 20
"""The streams of which these are means; older ones fade."""


class StreamFigures:
    """Means in seconds over the last streams; None before the first.

    >>> figures = StreamFigures()
    >>> figures.learn(0.5, None)
    >>> figures.learn(1.5, 0.02)
    >>> figures
    <StreamFigures: first piece after 1 s, then one every 0.02 s>
    """

    __slots__ = ("_firsts", "_intervals", "first_piece", "piece_interval")

    def __init__(self) -> None:
        self.first_piece: float | None = None
        self.piece_interval: float | None = None
        self._firsts = self._intervals = 0

    def learn(self, first_piece: float, piece_interval: float | None) -> None:
        """Take note of one stream."""
        self._firsts = min(self._firsts + 1, LATELY)
        before = self.first_piece or 0.0
        self.first_piece = before + (first_piece - before) / self._firsts
        if piece_interval is not None:
            self._intervals = min(self._intervals + 1, LATELY)
            before = self.piece_interval or 0.0
            self.piece_interval = before + (piece_interval - before) / self._intervals

    def __repr__(self) -> str:
        if self.first_piece is None:
            return "<StreamFigures: no stream yet>"
        then = "" if self.piece_interval is None else f", then one every {self.piece_interval:g} s"
        return f"<StreamFigures: first piece after {self.first_piece:g} s{then}>"
