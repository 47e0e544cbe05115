import math

import pytest

from actors.policies.breaker.config import BreakerConfig


@pytest.mark.parametrize(
    "setting",
    [
        {"failure_threshold": 0},
        {"failure_rate": 0.0},
        {"min_calls": 0},
        {"window": -1.0},
        {"open_for": math.nan},
        {"max_open_for": 1.0},
        {"jitter": 1.0},
        {"slow_call": 0.0},
        {"slow_rate": 1.1},
        {"probe_lease": 0.0},
        {"slow_start": -1.0},
        {"slow_start": math.inf},
    ],
    ids=str,
)
def test_an_impossible_configuration_is_refused_by_name(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        BreakerConfig(**setting)
