"""`--ray` is refused in words before anything is called."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from actors.command.bad_input import BadInput
from actors.command.on_nodes import check_ray


def test_without_ray_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_nothing(_: str) -> Any:
        return None

    monkeypatch.setattr(importlib.util, "find_spec", find_nothing)
    check_ray(None)
    with pytest.raises(BadInput, match=r'Ray is not installed; write: pip install "understudy\[ray\]"'):
        check_ray("auto")
    with pytest.raises(BadInput, match="expected the address of a Ray cluster"):
        check_ray("")
    with pytest.raises(BadInput, match="--traces: a run with --ray records none"):
        check_ray("auto", traces=0.5)
