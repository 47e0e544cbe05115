"""Reads the door's tables of a market file: `[serve]`, `[aliases.NAME]` and `[tenants.NAME]`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.ledger.periods import read_cap
from actors.market.file import read_document, read_text
from actors.market.tables import Places, TableReader
from actors.providers.provider import ProviderFilter
from actors.serve.config import DoorConfig
from actors.serve.names import Alias
from actors.serve.tenants import Tenant

if TYPE_CHECKING:
    from pathlib import Path

    from actors.market.tables import Table

SERVE_KEYS = tuple(name for name in DoorConfig.__struct_fields__ if name not in {"aliases", "tenants"})
COMMAND_OPTIONS = ("host", "port", "journal", "keys", "drain")
"""What a process cannot change while it serves, and is told when it starts."""
ALIAS_KEYS = Alias.__struct_fields__
WHERE_KEYS = tuple(name for name in ProviderFilter.__struct_fields__ if name != "predicate")
HEADINGS = {
    "[serve]": SERVE_KEYS,
    "[aliases.NAME]": ALIAS_KEYS,
    "[tenants.NAME]": Tenant.__struct_fields__,
}


def load_door(path: str | Path) -> DoorConfig:
    """Read the door's part of a market file. Raises `MarketError` for what cannot be used."""
    return parse_door(read_text(path), path=str(path))


def parse_door(text: str, *, path: str = "market") -> DoorConfig:
    """Return the configuration of a door that a market file describes; `path` is its name in errors.

    Raises `MarketError` for what cannot be used.

    >>> parse_door('''
    ...     [aliases.smart]
    ...     models = ["gpt-5-mini", "claude-sonnet-4-6"]
    ...     strategy = "cheapest"
    ... ''').aliases["smart"].models
    ('gpt-5-mini', 'claude-sonnet-4-6')
    """
    document = read_document(text, path)
    reader = TableReader(path, Places(text, document), HEADINGS)
    served = reader.table(document.get("serve", {}), "serve", "[serve]")
    for name in COMMAND_OPTIONS:
        if name in served:
            raise reader.error(f"serve.{name}", f"this is the option --{name} of the command; it needs a restart")
    reader.refuse_unknown(served, "serve", SERVE_KEYS)
    config = reader.convert(served, "serve", DoorConfig)
    aliases = {name: _alias(reader, table, key) for name, key, table in _tables(reader, document, "aliases")}
    tenants = {name: _tenant(reader, table, key) for name, key, table in _tables(reader, document, "tenants")}
    given = {name: getattr(config, name) for name in SERVE_KEYS}
    return DoorConfig(**given, aliases=aliases, tenants=tenants)


def _tables(reader: TableReader, document: Table, name: str) -> list[tuple[str, str, Table]]:
    entries: dict[str, Any] = reader.table(document.get(name, {}), name, f"[{name}]")
    return [
        (one, f"{name}.{one}", reader.table(entry, f"{name}.{one}", f"[{name}.{one}]"))
        for one, entry in entries.items()
    ]


def _alias(reader: TableReader, table: Table, key: str) -> Alias:
    reader.refuse_unknown(table, key, ALIAS_KEYS)
    where = reader.table(table.get("where", {}), f"{key}.where", f"[{key}.where]")
    reader.refuse_unknown(where, f"{key}.where", WHERE_KEYS)
    return reader.convert(table, key, Alias)


def _tenant(reader: TableReader, table: Table, key: str) -> Tenant:
    reader.refuse_unknown(table, key, Tenant.__struct_fields__)
    tenant = reader.convert(table, key, Tenant)
    if tenant.budget is not None:
        try:
            read_cap(tenant.budget)
        except ValueError as error:
            raise reader.error(f"{key}.budget", str(error)) from error
    return tenant
