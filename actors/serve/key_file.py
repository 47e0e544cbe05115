"""The file of the door's keys: one JSON object a line, readable by its user alone; it holds no secret."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from actors.serve.keys import ApiKey


def read_keys(path: str | Path) -> list[ApiKey]:
    """Return the keys of a file; of two with one id, the last counts. Raises ValueError, which names the line."""
    keys: dict[str, ApiKey] = {}
    for number, line in enumerate(Path(path).read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            key = msgspec.json.decode(line, type=ApiKey)
        except msgspec.DecodeError as error:
            raise ValueError(f"{path}: line {number} is no key: {error}") from error
        keys[key.id] = key
    return list(keys.values())


def line_of_key(path: str | Path, identity: str) -> int:
    """Return the number of the line of a key, the last one of its id; 0 if there is none."""
    lines = Path(path).read_bytes().splitlines()
    return max((number for number, line in enumerate(lines, 1) if f'"{identity}"'.encode() in line), default=0)


def add_key(path: str | Path, key: ApiKey) -> None:
    """Add a key to a file, or, under the id of one that is there, take its place; it is on disk before this returns."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, msgspec.json.encode(key) + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
