"""Recipes: joint sets of readings, laid over a preset by name."""

from typing import Any

import pytest

from sweeps.jobs import Request
from sweeps.plan import make_plan
from sweeps.tables import TABLES
from wsss.identity import run_id
from wsss.overrides import ConfigError, apply_overrides
from wsss.presets import PRESETS, TINY
from wsss.recipes import RECIPES, named_config, preset_of, with_recipe


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_changes_what_it_lists_and_nothing_else(preset: str, recipe: str) -> None:
    before, after = PRESETS[preset].flat(), named_config(with_recipe(preset, recipe)).flat()
    changed = {key: value for key, value in after.items() if value != before[key]}
    assert changed.items() <= dict(RECIPES[recipe]).items()
    assert preset_of(with_recipe(preset, recipe)) == preset
    if recipe == "default":
        assert after == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("huge", "no preset 'huge'; there are: tiny, "),
        ("tiny-sem", "no recipe 'sem'; there are: d"),
    ],
)
def test_an_unknown_name_is_refused_with_those_there_are(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        named_config(name)


def test_the_study_is_table_iii_under_each_recipe() -> None:
    plan = make_plan([TABLES["recipes"], TABLES["III"]], TINY, 1)
    third = {row.labels: row.cells[0] for row in TABLES["III"].rows}
    for row in TABLES["recipes"].rows:
        for recipe, cell in zip(TABLES["recipes"].columns, row.cells, strict=True):
            base = named_config(with_recipe("tiny", recipe))
            expected: dict[str, Any] = apply_overrides(base, third[row.labels].overrides).flat()
            assert apply_overrides(TINY, cell.overrides).flat() == expected
            paper = third[row.labels].paper
            assert cell.paper == (paper if recipe == "default" else None)
    for labels in third:
        name = ",".join(labels)
        (default,) = plan.cell_trials[f"recipes[{name},default]"]
        assert default.run_id == plan.cell_trials[f"III[{name}]"][0].run_id
    ids = {run_id(trial.config) for trial in plan.trials}
    assert len(ids) == 20


def test_a_submitted_sweep_is_told_its_recipe() -> None:
    words = Request(("III",), "short-seam", "/data").arguments()
    assert words[words.index("--preset") + 1] == "short"
    assert words[words.index("--recipe") + 1] == "seam"
    assert "--recipe" not in Request(("III",), "short", "/data").arguments()
