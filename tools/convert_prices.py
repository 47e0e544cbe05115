"""Write the price list of `actors/tariffs/data` from a wheel of genai-prices: `python tools/convert_prices.py WHEEL`.

Its prices are Python source, which is read as text and not run. Kept are prices by the token and by the call; prices of
pages, hours and searches, of batches, and of other modalities than text are left out.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
import zipfile
from decimal import Context, Decimal
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent.parent / "actors" / "tariffs" / "data"
KEYS = {
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cache_read",
    "cache_write_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h",
    "output_reasoning_mtok": "reasoning",
}
CLAUSES = {
    "ClauseStartsWith": "starts_with",
    "ClauseEndsWith": "ends_with",
    "ClauseContains": "contains",
    "ClauseRegex": "regex",
    "ClauseEquals": "equals",
}
EXACT = Context(prec=100)


def fields(call: ast.Call) -> dict[str, ast.expr]:
    return {one.arg: one.value for one in call.keywords if one.arg is not None}


def kind(node: ast.expr) -> str:
    return ast.unparse(node.func).rpartition(".")[2] if isinstance(node, ast.Call) else ""


def clause(node: ast.expr) -> list[Any]:
    assert isinstance(node, ast.Call)
    name, given = kind(node), fields(node)
    if name in {"ClauseOr", "ClauseAnd"}:
        (inner,) = given.values()
        assert isinstance(inner, ast.List)
        return [name.removeprefix("Clause").lower(), [clause(one) for one in inner.elts]]
    word = CLAUSES[name]
    return [word, ast.literal_eval(given[word])]


def price(node: ast.expr) -> str:
    assert isinstance(node, ast.Call)
    return ast.literal_eval(node.args[0])


def tariff(node: ast.expr) -> dict[str, Any] | None:
    """Return the keys of a `Tariff`, of which every tier has every price that it changes."""
    assert isinstance(node, ast.Call)
    given, found, tiers = fields(node), dict[str, Any](), dict[int, dict[str, str]]()
    for key, name in KEYS.items():
        value = given.get(key)
        if value is None:
            continue
        if kind(value) == "TieredPrices":
            inner = fields(value)  # type: ignore[arg-type]
            found[name] = price(inner["base"])
            assert isinstance(inner["tiers"], ast.List)
            for tier in inner["tiers"].elts:
                parts = fields(tier)  # type: ignore[arg-type]
                tiers.setdefault(ast.literal_eval(parts["start"]), {})[name] = price(parts["price"])
        else:
            found[name] = price(value)
    if "requests_kcount" in given:
        found["per_call"] = format(EXACT.divide(Decimal(price(given["requests_kcount"])), Decimal(1000)), "f")
    if "input" not in found:
        return None
    so_far: dict[str, str] = {}
    ordered: list[dict[str, Any]] = []
    for above in sorted(tiers):
        so_far = so_far | tiers[above]
        ordered.append({"above": above, **so_far})
    return found | ({"tiers": ordered} if ordered else {})


def prices(node: ast.expr) -> list[dict[str, Any]]:
    """Return the tariffs of a model in their order, each with the date from which on it counts, if it has one."""
    if not isinstance(node, ast.List):
        only = tariff(node)
        return [] if only is None else [{"tariff": only}]
    found: list[dict[str, Any]] = []
    for one in node.elts:
        given = fields(one)  # type: ignore[arg-type]
        if (listed := tariff(given["prices"])) is None:
            continue
        entry: dict[str, Any] = {"tariff": listed}
        constraint = given.get("constraint")
        if constraint is not None and kind(constraint) == "StartDateConstraint":
            date = fields(constraint)["start_date"]  # type: ignore[arg-type]
            assert isinstance(date, ast.Call)
            entry["since"] = "{:04}-{:02}-{:02}".format(*map(ast.literal_eval, date.args))
        elif constraint is not None and kind(constraint) == "TimeOfDateConstraint":
            entry["at_times"] = True
        found.append(entry)
    return found


def providers(source: str) -> list[dict[str, Any]]:
    (listed,) = [one.value for one in ast.parse(source).body if isinstance(one, ast.AnnAssign)]
    assert isinstance(listed, ast.List)
    found: list[dict[str, Any]] = []
    for provider in listed.elts:
        given = fields(provider)  # type: ignore[arg-type]
        models: list[dict[str, Any]] = []
        assert isinstance(given["models"], ast.List)
        for model in given["models"].elts:
            parts = fields(model)  # type: ignore[arg-type]
            if tariffs := prices(parts["prices"]):
                entry = {"id": ast.literal_eval(parts["id"]), "match": clause(parts["match"]), "prices": tariffs}
                if "context_window" in parts:
                    entry["window"] = ast.literal_eval(parts["context_window"])
                models.append(entry)
        entry = {"id": ast.literal_eval(given["id"]), "models": models}
        for name in ("provider_match", "model_match"):
            if name in given and not isinstance(given[name], ast.Constant):
                entry[name] = clause(given[name])
        if "fallback_model_providers" in given:
            entry["fallback"] = ast.literal_eval(given["fallback_model_providers"])
        found.append(entry)
    return found


def main() -> None:
    wheel = Path(sys.argv[1])
    with zipfile.ZipFile(wheel) as packed:
        source = packed.read("genai_prices/data.py")
        licence = next(name for name in packed.namelist() if name.endswith("licenses/LICENSE"))
        notice = packed.read(licence).decode()
        version = wheel.name.split("-")[1]
    listed = providers(source.decode())
    document = {
        "source": f"genai-prices {version}, genai_prices/data.py",
        "sha256": hashlib.sha256(source).hexdigest(),
        "providers": listed,
    }
    DATA.mkdir(exist_ok=True)
    (DATA / "prices.json").write_text(json.dumps(document, separators=(",", ":")) + "\n", encoding="utf-8")
    (DATA / "LICENSE").write_text(notice, encoding="utf-8")


if __name__ == "__main__":
    main()
