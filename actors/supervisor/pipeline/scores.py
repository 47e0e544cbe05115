"""What scores of answers have told of the providers of each service, and whose answer a later score is for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.errors.families import Permanent
from actors.providers.bandit import AnswerLog, Bandit, after_score, keep_arms

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actors.providers.bandit import ScoreAnswer

MAX_SCORED = 1_000
"""The services whose providers are scored, and the providers of each before those that left are forgotten."""
UNSCORED = Bandit()


class Scores:
    """The scores given to the answers of one supervisor."""

    def __init__(self) -> None:
        self.bandits: dict[str, Bandit] = {}
        """What is known by scores, by service; the one scored longest ago first."""
        self.answers = AnswerLog()

    def learn(self, message: ScoreAnswer, *, listed: Iterable[str], now: float) -> None:
        """Take a score in; raises `Permanent` if it is for an answer that is not remembered."""
        provider = self.answers.take_provider(message)
        if provider is None:
            raise Permanent(f"no answer to request {message.request_id!r} is remembered; name its provider")
        bandit = self.bandits.pop(message.service, UNSCORED)
        if len(bandit.arms) >= MAX_SCORED:
            bandit = keep_arms(bandit, listed)
        if len(self.bandits) >= MAX_SCORED:
            del self.bandits[next(iter(self.bandits))]
        self.bandits[message.service] = after_score(bandit, provider, message.score, now=now)

    def __repr__(self) -> str:
        return f"<Scores of {len(self.bandits)} services>"
