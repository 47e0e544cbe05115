"""Learns from its callers' scores whose answers are good, and forgets, so that a silent drop in quality shows.

The strategy "bandit" draws from what is known, and so tries out those of whom little is. For all other strategies the
scores correct what providers declare of their quality, and whoever fell far below the others stands back.

Discounted Thompson sampling: a Beta posterior for each provider, of which all fade by a factor with each score, so that
whoever was not tried lately becomes uncertain, and is tried again. Source: Raj and Kalyani, "Taming non-stationary
bandits: a Bayesian approach" (arXiv:1707.09727, 2017); scores between 0 and 1 count in parts, and the prior is not
uniform but has the mean of what the provider declares, with the same weight.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping  # noqa: TC003 - msgspec resolves this annotation
from statistics import median
from typing import TYPE_CHECKING

import msgspec

from actors.providers.selection import quality
from actors.validation import check_text
from runtime import Request

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from actors.providers.provider import Provider

PRIOR_CALLS = 2.0
"""The weight of the prior, in scores; a uniform Beta(1, 1) has it too."""
MIN_SHAPE = 0.05
"""The least parameter of a Beta distribution: below it, samples are 0 or 1 and nothing between."""
MAX_ANSWERS = 10_000
FALLEN = 0.3
"""How far below the others the quality of a provider must be, for it to stand back: as for its ejection."""


class ScoreAnswer(Request[None], frozen=True, kw_only=True):
    """Say how good an answer was, from 0 to 1; ask it, or tell it where nobody needs to know that it arrived.

    The answer is named by the `request_id` of its result, or its `provider` is; by either, once.
    """

    service: str
    score: float
    request_id: str | None = None
    provider: str | None = None

    def __post_init__(self) -> None:
        check_text("service", self.service)
        for name in ("request_id", "provider"):
            if getattr(self, name) is not None:
                check_text(name, getattr(self, name))
        if isinstance(self.score, bool) or not isinstance(self.score, float | int) or not 0 <= self.score <= 1:
            raise ValueError(f"score must be from 0 to 1, got {self.score!r:.100}")
        if (self.request_id is None) == (self.provider is None):
            raise ValueError("give the request_id of the answer or its provider, and not both")


class BanditConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How long scores count: with each new one, all before it are multiplied by `discount`.

    0.97 remembers about 1 / (1 - 0.97) = 33 scores of a service, over all of its providers. Where scores correct what
    is declared, which weighs as much as `prior_scores` scores just given, they also lose half of their weight in
    `half_life` seconds: a single complaint, with no other score after it, must not be held against anybody for good.
    """

    discount: float = 0.97
    prior_scores: float = 10.0
    half_life: float = 300.0

    def __post_init__(self) -> None:
        if not 0 < self.discount <= 1:
            raise ValueError(f"discount must be above 0 and at most 1, got {self.discount}")
        if not 0 < self.prior_scores < math.inf:
            raise ValueError(f"prior_scores must be > 0 scores and finite, got {self.prior_scores}")
        if not 0 < self.half_life < math.inf:
            raise ValueError(f"half_life must be > 0 seconds and finite, got {self.half_life}")


DEFAULT_BANDIT = BanditConfig()


class Arm(msgspec.Struct, frozen=True):
    """The scores of one provider, good and bad parts apart, as they counted at score number `step` of the service.

    That was at `at`, in loop time.
    """

    good: float = 0.0
    bad: float = 0.0
    step: int = 0
    at: float = 0.0


NO_SCORES = Arm()


class Bandit(msgspec.Struct, frozen=True):
    """What the scores of one service show; `steps` is how many there were."""

    arms: Mapping[str, Arm] = {}
    steps: int = 0


def after_score(
    bandit: Bandit, provider: str, score: float, config: BanditConfig = DEFAULT_BANDIT, *, now: float = 0.0
) -> Bandit:
    """Return what is known after an answer of `provider` was scored at `now`, from 0 to 1.

    >>> after_score(after_score(Bandit(), "a", 1.0), "a", 0.0).arms["a"]
    Arm(good=0.97, bad=1.0, step=2, at=0.0)
    """
    if not 0 <= score <= 1:
        raise ValueError(f"score must be from 0 to 1, got {score}")
    arm, steps = bandit.arms.get(provider, NO_SCORES), bandit.steps + 1
    # The others fade as well, but only when they are looked at.
    kept = config.discount ** (steps - arm.step)
    scored = Arm(arm.good * kept + score, arm.bad * kept + 1.0 - score, steps, now)
    return Bandit({**bandit.arms, provider: scored}, steps)


def posterior(bandit: Bandit, provider: Provider, config: BanditConfig = DEFAULT_BANDIT) -> tuple[float, float]:
    """Return the parameters of the Beta distribution of a provider's quality."""
    arm, declared = bandit.arms.get(provider.name, NO_SCORES), quality(provider)
    kept = config.discount ** (bandit.steps - arm.step)
    return (
        max(MIN_SHAPE, PRIOR_CALLS * declared + arm.good * kept),
        max(MIN_SHAPE, PRIOR_CALLS * (1.0 - declared) + arm.bad * kept),
    )


def samples(
    bandit: Bandit, providers: Iterable[Provider], rng: random.Random, config: BanditConfig = DEFAULT_BANDIT
) -> dict[str, float]:
    """Draw a quality from 0 to 1 for each provider, by name: what the strategy "bandit" ranks by.

    They are drawn in the order of names, so that the same numbers come of one `rng`, however they are given.
    """
    drawn: dict[str, float] = {}
    for provider in sorted(providers, key=lambda one: one.name):
        good, bad = posterior(bandit, provider, config)
        drawn[provider.name] = rng.betavariate(good, bad)
    return drawn


def scored_quality(bandit: Bandit, provider: Provider, now: float, config: BanditConfig = DEFAULT_BANDIT) -> float:
    """Return from 0 to 1 how good a provider is at `now`, by what it declares and by its scores; see `BanditConfig`.

    >>> from actors.providers.provider import Provider
    >>> alder = Provider(name="alder", services={"s"}, reputation=90, success_rate=0.9)
    >>> scored_quality(after_score(Bandit(), "alder", 0.0), alder, now=0.0)
    0.8181818181818182
    """
    arm = bandit.arms.get(provider.name, NO_SCORES)
    kept = config.discount ** (bandit.steps - arm.step) * math.exp2(-max(0.0, now - arm.at) / config.half_life)
    declared = config.prior_scores * quality(provider)
    return min(1.0, (declared + arm.good * kept) / (config.prior_scores + (arm.good + arm.bad) * kept))


def rated(
    bandit: Bandit, providers: Iterable[Provider], now: float, config: BanditConfig = DEFAULT_BANDIT
) -> dict[str, Provider]:
    """Return those providers that were scored, by name, with a `quality` that is what their scores have made of it."""
    found: dict[str, Provider] = {}
    for provider in providers:
        if provider.name in bandit.arms:
            scored = scored_quality(bandit, provider, now, config)
            found[provider.name] = msgspec.structs.replace(provider, reputation=100 * scored, success_rate=scored)
    return found


def fallen(rated: Mapping[str, Provider], providers: Iterable[Provider]) -> list[str]:
    """Name the providers that should stand back: `rated` far below what the others are in the middle (median)."""
    qualities = {one.name: quality(rated.get(one.name, one)) for one in providers}
    return [
        name
        for name in rated
        if (others := [good for other, good in qualities.items() if other != name])
        and median(others) - qualities[name] > FALLEN
    ]


def without(bandit: Bandit, keep: Iterable[str]) -> Bandit:
    """Return the bandit with the arms of the providers in `keep` only; the others are gone for good."""
    kept = frozenset(keep)
    return Bandit({name: arm for name, arm in bandit.arms.items() if name in kept}, bandit.steps)


class Answers:
    """Who gave the latest answers, by request id, for scores that come later; of too many the oldest is forgotten."""

    def __init__(self, max_answers: int = MAX_ANSWERS) -> None:
        if max_answers < 1:
            raise ValueError(f"max_answers must be >= 1 answer, got {max_answers}")
        self.max_answers = max_answers
        # No plain dict: to find its first after many have left from the front takes time for each of them.
        self._providers: OrderedDict[tuple[str, str], str] = OrderedDict()

    def note(self, service: str, request_id: str, provider: str) -> None:
        """Remember who answered a request."""
        self._providers.pop((service, request_id), None)
        self._providers[service, request_id] = provider
        if len(self._providers) > self.max_answers:
            self._providers.popitem(last=False)

    def scored(self, message: ScoreAnswer) -> str | None:
        """Return whose answer is scored, and forget it, as it is scored once; None where nobody remembers."""
        if message.request_id is None:
            return message.provider
        return self._providers.pop((message.service, message.request_id), None)

    def __len__(self) -> int:
        return len(self._providers)

    def __repr__(self) -> str:
        return f"<Answers {len(self)} of at most {self.max_answers}>"
