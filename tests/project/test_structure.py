"""The shape that the packages keep: no circles, no endless functions, few parameters but at the public doors."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.project import structure

ROOT = Path(__file__).resolve().parents[2]
MODULES = structure.modules_of(ROOT)

# Keyword-only doors that users call, and the command's, whose parameters are its options.
WIDE_DOORS = {
    "actors.batch.robust_batch.robust_batch",
    "actors.command.app.run",
    "actors.command.app.serve_door",
    "actors.command.app.show_check",
    "actors.command.app.show_simulation",
    "actors.errors.classification.classify_status",
    "actors.errors.exceptions.classify",
    "actors.errors.families.__init__",
    "actors.transports.http_client.__init__",
    "actors.supervisor.options.request",
    "actors.supervisor.pipeline.candidate_order.__init__",
    "actors.transports.model_transport.__init__",
    "actors.models.chat.chat",
    "actors.models.chat_stream.chat_stream",
    "actors.models.embed.embed",
    "actors.supervisor.streaming.smart_stream",
    "actors.policies.policy.__init__",
    "actors.policies.retry.with_retry",
    "actors.rate_limiter.rate_limiter.__init__",
    "actors.simulation.provider.__init__",
    "actors.supervisor.client.discover",
    "actors.supervisor.client.smart_request",
    "actors.transports.function.__init__",
    "actors.transports.http.__init__",
    "runtime.routing.router.pool",
    "runtime.system.__init__",
}


def names(found: list[str]) -> set[str]:
    return {one.partition(" ")[0] for one in found}


def test_no_module_imports_itself_by_a_circle_not_even_for_annotations() -> None:
    assert structure.cycle_in(MODULES) == []


def test_a_circle_is_found() -> None:
    one, two = "import actors.two", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import actors.one"
    found = structure.cycle_in(
        [structure.Module("actors.one", ast.parse(one), 1), structure.Module("actors.two", ast.parse(two), 3)]
    )
    assert set(found) == {"actors.one", "actors.two"}


def test_more_than_six_parameters_have_public_doors_only() -> None:
    assert names(structure.wide_functions(MODULES)) - WIDE_DOORS == set()


def test_what_is_beyond_the_sixth_parameter_of_a_door_is_given_by_name() -> None:
    wide = {
        f"{module.name}.{one.name}": structure.positional(one)
        for module in MODULES
        for one in structure.functions_of(module)
        if f"{module.name}.{one.name}" in WIDE_DOORS and module.name != "actors.command.app"
    }
    assert max(wide.values()) <= structure.MAX_PARAMETERS


def test_the_largest_functions_are_doors_whose_text_is_their_documentation() -> None:
    assert names(structure.long_functions(MODULES)) <= WIDE_DOORS


def test_the_figures_are_told_in_words() -> None:
    told = structure.report(ROOT)
    assert f"modules: {len(MODULES)}" in told
    assert "cycle of imports: none" in told
