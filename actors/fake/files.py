"""Reads the config or the plan of a fake server from the text of a file: TOML, or JSON."""

from __future__ import annotations

import tomllib
from typing import TypeVar

import msgspec

from actors.fake.config import FakeConfig
from actors.fake.faults import FaultPlan

ReadT = TypeVar("ReadT")


def read_config(text: str) -> FakeConfig:
    r"""Return the config that a text states, as TOML or as a JSON object. Raises ValueError, which says what is wrong.

    >>> read_config('seed = 3\n[[models]]\nname = "m"\nprice = {input = "0.25", output = "2"}').models[0].price.output
    '2'
    """
    return _read(text, FakeConfig)


def read_plan(text: str) -> FaultPlan:
    r"""Return the plan that a text states, as TOML or as a JSON object. Raises ValueError, which says what is wrong.

    >>> read_plan('[[faults]]\nkind = "outage"\nsince = 5.0').faults[0].since
    5.0
    """
    return _read(text, FaultPlan)


def _read(text: str, kind: type[ReadT]) -> ReadT:
    try:
        if text.lstrip().startswith("{"):
            return msgspec.json.decode(text, type=kind)
        return msgspec.convert(tomllib.loads(text), kind)
    except (msgspec.DecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(str(error)) from error
