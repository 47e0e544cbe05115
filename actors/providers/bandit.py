"""Learns the quality of providers from scores of their answers, and forgets, so that a silent drop in quality shows.

The strategy "bandit" draws a quality from what is known of each provider, and so tries out providers of which little is
known. For all other strategies the scores correct the quality that providers declare, and a provider that fell far
below the others is deprioritized.

Discounted Thompson sampling: each provider has a Beta posterior, and all posteriors fade by a factor with each score,
so that a provider that was not tried lately becomes uncertain, and is tried again. Source: Raj and Kalyani, "Taming
non-stationary bandits: a Bayesian approach" (arXiv:1707.09727, 2017), with three differences: scores between 0 and 1
count in parts; the prior is not uniform but has the mean that the provider declares, with the same weight; and the
scores of a provider fade faster with its own new ones than with those of others. One factor for both must be too near
to 1 to notice a drop soon, or too far from it to leave a provider that has dropped alone for long.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Mapping  # noqa: TC003 - msgspec resolves this annotation
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
FADED = 0.1
"""The weight, in scores, below which an arm is forgotten: it moves a declared quality by a hundredth at most."""
MAX_ANSWERS = 10_000
MAX_QUALITY_GAP = 0.3
"""A provider is deprioritized if its quality is below that of the others by more than this: as for its ejection."""


class ScoreAnswer(Request[None], frozen=True, kw_only=True):
    """Score an answer from 0 to 1; ask it to know that the score has arrived, or tell it.

    Name the answer by the `request_id` of its result, or name its `provider`: one of the two, and score it once.
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
            raise ValueError("give either the request_id of the answer or its provider")


class BanditConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How long scores count: those of a provider are multiplied by `discount` with each new one of it.

    With each new one of another provider of the service, they are multiplied by `fade`. So 1 / (1 - 0.95) = 20 scores
    are remembered of a provider that is called, and one that is called no more is forgotten after some hundreds of
    others. When scores correct a declared quality, the declaration weighs as much as `prior_scores` scores just given,
    and scores also lose half of their weight in `half_life` seconds: a single bad score must not count against a
    provider for good.
    """

    discount: float = 0.95
    fade: float = 0.995
    prior_scores: float = 10.0
    half_life: float = 300.0

    def __post_init__(self) -> None:
        for name, factor in (("discount", self.discount), ("fade", self.fade)):
            if not 0 < factor <= 1:
                raise ValueError(f"{name} must be above 0 and at most 1, got {factor}")
        if not 0 < self.prior_scores < math.inf:
            raise ValueError(f"prior_scores must be > 0 scores and finite, got {self.prior_scores}")
        if not 0 < self.half_life < math.inf:
            raise ValueError(f"half_life must be > 0 seconds and finite, got {self.half_life}")


DEFAULT_BANDIT = BanditConfig()


class Arm(msgspec.Struct, frozen=True):
    """The faded scores of one provider, good and bad parts apart, as of its latest one.

    That was score number `step` of the service, at `at` in loop time.
    """

    good: float = 0.0
    bad: float = 0.0
    step: int = 0
    at: float = 0.0


NO_SCORES = Arm()


class Bandit(msgspec.Struct, frozen=True):
    """The scores of one service by provider, the one scored last at the end; `steps` is how many there were."""

    arms: Mapping[str, Arm] = {}
    steps: int = 0


def after_score(
    bandit: Bandit, provider: str, score: float, config: BanditConfig = DEFAULT_BANDIT, *, now: float = 0.0
) -> Bandit:
    """Return the scores after an answer of `provider` was scored at `now`, from 0 to 1.

    >>> after_score(after_score(Bandit(), "a", 1.0), "a", 0.0).arms["a"]
    Arm(good=0.95, bad=1.0, step=2, at=0.0)
    """
    if not 0 <= score <= 1:
        raise ValueError(f"score must be from 0 to 1, got {score}")
    arms, steps = dict(bandit.arms), bandit.steps + 1
    arm = arms.pop(provider, NO_SCORES)
    # The other arms fade as well, but that is computed when they are read.
    kept = config.discount * _kept(bandit, arm, config)
    arms[provider] = Arm(arm.good * kept + score, arm.bad * kept + 1.0 - score, steps, now)
    oldest = steps - _steps_remembered(config)
    while (faded := next(iter(arms))) != provider and arms[faded].step < oldest:
        del arms[faded]
    return Bandit(arms, steps)


def _kept(bandit: Bandit, arm: Arm, config: BanditConfig) -> float:
    """Return the part of an arm's scores that those of others have left since its latest one."""
    return config.fade ** (bandit.steps - arm.step)


def _steps_remembered(config: BanditConfig) -> float:
    """Return the scores of others after which an arm weighs as good as nothing, however often it was scored."""
    if config.discount == 1 or config.fade == 1:
        return math.inf
    return math.log(FADED * (1 - config.discount)) / math.log(config.fade)


def posterior(bandit: Bandit, provider: Provider, config: BanditConfig = DEFAULT_BANDIT) -> tuple[float, float]:
    """Return the parameters of the Beta distribution of a provider's quality."""
    arm, declared = bandit.arms.get(provider.name, NO_SCORES), quality(provider)
    kept = _kept(bandit, arm, config)
    return (
        max(MIN_SHAPE, PRIOR_CALLS * declared + arm.good * kept),
        max(MIN_SHAPE, PRIOR_CALLS * (1.0 - declared) + arm.bad * kept),
    )


def draw_qualities(
    bandit: Bandit, providers: Iterable[Provider], rng: random.Random, config: BanditConfig = DEFAULT_BANDIT
) -> dict[str, float]:
    """Draw a quality from 0 to 1 for each provider, by name, for the strategy "bandit".

    They are drawn in the order of names: one `rng` gives the same qualities for any order of `providers`.
    """
    drawn: dict[str, float] = {}
    for provider in sorted(providers, key=lambda one: one.name):
        good, bad = posterior(bandit, provider, config)
        drawn[provider.name] = rng.betavariate(good, bad)
    return drawn


def scored_quality(bandit: Bandit, provider: Provider, now: float, config: BanditConfig = DEFAULT_BANDIT) -> float:
    """Return the quality of a provider at `now`, from 0 to 1: as declared and as scored; see `BanditConfig`.

    >>> from actors.providers.provider import Provider
    >>> alder = Provider(name="alder", services={"s"}, reputation=90, success_rate=0.9)
    >>> scored_quality(after_score(Bandit(), "alder", 0.0), alder, now=0.0)
    0.8181818181818182
    """
    arm = bandit.arms.get(provider.name, NO_SCORES)
    kept = _kept(bandit, arm, config) * math.exp2(-max(0.0, now - arm.at) / config.half_life)
    declared = config.prior_scores * quality(provider)
    return min(1.0, (declared + arm.good * kept) / (config.prior_scores + (arm.good + arm.bad) * kept))


def rescore(
    bandit: Bandit, providers: Iterable[Provider], now: float, config: BanditConfig = DEFAULT_BANDIT
) -> dict[str, Provider]:
    """Return, by name, the providers that were scored, with their declared quality corrected by the scores."""
    found: dict[str, Provider] = {}
    for provider in providers:
        if provider.name in bandit.arms:
            scored = scored_quality(bandit, provider, now, config)
            found[provider.name] = msgspec.structs.replace(provider, reputation=100 * scored, success_rate=scored)
    return found


class DeclaredQualities:
    """What some providers declare of their quality, sorted once; medians of it are found with a few scored among them.

    >>> from actors.providers.provider import Provider
    >>> providers = [Provider(name=name, services={"s"}, reputation=50, success_rate=0.5) for name in "abc"]
    >>> fallen = Provider(name="c", services={"s"}, reputation=10, success_rate=0.1)
    >>> low_rated({"c": fallen}, DeclaredQualities(providers))
    ['c']
    """

    __slots__ = ("_by_name", "_sorted")

    def __init__(self, providers: Iterable[Provider]) -> None:
        self._by_name = {one.name: quality(one) for one in providers}
        self._sorted = sorted(self._by_name.values())

    def medians_of_others(self, scored: Mapping[str, float]) -> dict[str, float]:
        """Return, for each of the `scored` providers, the median of all others, with their scored quality if any.

        No more than a few of the sorted qualities on both sides of the middle are looked at, for each one scored.
        """
        scored = {name: score for name, score in scored.items() if name in self._by_name}
        half = (len(self._sorted) - 1) // 2
        if not self._sorted[1:2]:
            return {}  # There are no others.
        # Of the sorted qualities, with the scored ones in place of what these declare, the middle is between here:
        first = max(0, half - 1 - len(scored))
        near = self._without([self._by_name[name] for name in scored], first, half + 2 - first)
        near = sorted([*near, *scored.values()])

        def of_others(own: float, place: int) -> float:
            index = place - first
            return near[index + 1] if own <= near[index] else near[index]

        is_odd = len(self._sorted) % 2 == 0  # So many others there are.
        return {
            name: of_others(own, half) if is_odd else (of_others(own, half - 1) + of_others(own, half)) / 2
            for name, own in scored.items()
        }

    def _without(self, removed: list[float], first: int, count: int) -> list[float]:
        """Return `count` sorted qualities from number `first` on, counted without those that are removed."""
        places: list[int] = []
        for number, one in enumerate(removed := sorted(removed)):
            repeated = number and removed[number - 1] == one
            places.append(places[-1] + 1 if repeated else bisect_left(self._sorted, one))
        for place in places:
            first += place <= first
        left_out = set(places)
        end = first + count + len(places)
        return [self._sorted[at] for at in range(first, min(end, len(self._sorted))) if at not in left_out][:count]

    def __repr__(self) -> str:
        return f"<DeclaredQualities of {len(self._sorted)}>"


def low_rated(rated: Mapping[str, Provider], declared: DeclaredQualities) -> list[str]:
    """Name the providers to deprioritize: those `rated` far below the median quality of the others."""
    scored = {name: quality(one) for name, one in rated.items()}
    medians = declared.medians_of_others(scored)
    return [name for name, own in scored.items() if name in medians and medians[name] - own > MAX_QUALITY_GAP]


def keep_arms(bandit: Bandit, keep: Iterable[str]) -> Bandit:
    """Return the bandit without the arms of providers that are not in `keep`."""
    kept = frozenset(keep)
    return Bandit({name: arm for name, arm in bandit.arms.items() if name in kept}, bandit.steps)


class AnswerLog:
    """The providers of the latest answers by request id, for scores that come later; bounded, drops the oldest."""

    def __init__(self, max_answers: int = MAX_ANSWERS) -> None:
        if max_answers < 1:
            raise ValueError(f"max_answers must be >= 1 answer, got {max_answers}")
        self.max_answers = max_answers
        # No plain dict: to find its first key after many removals at the front takes time for each removal.
        self._providers: OrderedDict[tuple[str, str], str] = OrderedDict()

    def record(self, service: str, request_id: str, provider: str) -> None:
        """Remember which provider answered a request."""
        self._providers.pop((service, request_id), None)
        self._providers[service, request_id] = provider
        if len(self._providers) > self.max_answers:
            self._providers.popitem(last=False)

    def take_provider(self, message: ScoreAnswer) -> str | None:
        """Return the provider whose answer is scored, and forget that answer; None if it is not remembered."""
        if message.request_id is None:
            return message.provider
        return self._providers.pop((message.service, message.request_id), None)

    def __len__(self) -> int:
        return len(self._providers)

    def __repr__(self) -> str:
        return f"<AnswerLog {len(self)} of at most {self.max_answers}>"
