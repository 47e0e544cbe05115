"""What was paid under the keys that were paid last, in few bytes each."""

from __future__ import annotations

from itertools import islice

PER_COST = 2**32
"""The places of providers in one number; the cost comes above them."""
SLACK = 8
"""What is forgotten at once: one in so many of the keys, because to find the oldest takes a look through all."""


class PaidKeys(dict[str, int]):
    """By key, what was paid under it in all and to which provider last, as one number; of the last `max_keys` keys.

    A tuple for each, and an `OrderedDict`, would take half as much memory again.

    >>> keys = PaidKeys(1_000)
    >>> keys.add("k", 5, "alder"), keys.add("k", 7, "birch"), keys.paid("k"), keys.paid("other")
    (None, None, (12, 'birch'), None)
    """

    def __init__(self, max_keys: int) -> None:
        super().__init__()
        self.max_keys = max_keys
        self.has_forgotten = False
        """Whether a key was ever forgotten, so that one that is not in here may have been paid all the same."""
        self._most = max_keys + max_keys // SLACK
        self._providers: list[str] = []
        self._places: dict[str, int] = {}

    def paid(self, key: str) -> tuple[int, str] | None:
        """Return what was paid under a key in all, in micro-units, and to which provider last; None if not known."""
        packed = self.get(key)
        if packed is None:
            return None
        cost, place = divmod(packed, PER_COST)
        return cost, self._providers[place]

    def add(self, key: str, cost: int, provider: str) -> None:
        """Add a payment under a key."""
        before, place = self.pop(key, None), self._places.get(provider)
        if place is None or len(self) >= self._most:
            self.restore(key, cost if before is None else cost + before // PER_COST, provider)
        else:  # As nearly always, written out: each payment comes by here.
            self[key] = (cost if before is None else cost + before // PER_COST) * PER_COST + place

    def restore(self, key: str, paid: int, provider: str) -> None:
        """Set what was paid under a key in all, as the journal knows it."""
        place = self._places.get(provider)
        if place is None:
            place = self._places[provider] = len(self._providers)
            self._providers.append(provider)
        self[key] = paid * PER_COST + place
        if len(self) > self._most:
            for oldest in tuple(islice(self, len(self) - self.max_keys)):
                del self[oldest]
            self.has_forgotten = True

    def take_back(self, key: str, cost: int) -> None:
        """Take back a payment under a key that is not known to have been made."""
        packed = self.get(key)
        if packed is not None:
            if packed // PER_COST > cost:
                self[key] = packed - cost * PER_COST
            else:
                del self[key]

    def all(self) -> dict[str, tuple[int, str]]:
        """Return what is known of all keys, the first that was paid first."""
        return {key: (packed // PER_COST, self._providers[packed % PER_COST]) for key, packed in self.items()}

    def __repr__(self) -> str:
        return f"<PaidKeys {len(self)} keys, {len(self._providers)} providers>"
