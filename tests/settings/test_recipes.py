"""Recipes: joint sets of readings, laid over a preset by name."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sweeps.plan.trials import make_plan
from sweeps.tables.studies import TABLES
from wsss.identity import run_id
from wsss.method.losses import cam_losses
from wsss.overrides import ConfigError, apply_overrides
from wsss.presets import PRESETS, TINY
from wsss.recipes import RECIPES, named_config, preset_and_recipe, with_recipe


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_changes_what_it_lists_and_nothing_else(preset: str, recipe: str) -> None:
    before, after = PRESETS[preset].flat(), named_config(with_recipe(preset, recipe)).flat()
    changed = {key: value for key, value in after.items() if value != before[key]}
    assert changed.items() <= dict(RECIPES[recipe]).items()
    assert preset_and_recipe(with_recipe(preset, recipe)) == (preset, recipe)
    if recipe == "default":
        assert after == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("huge", "no preset 'huge'; there are: tiny, "),
        ("tiny-sem", "no recipe 'sem'; there are: d"),
        ("tiny-", "no recipe ''; there are: default, "),
    ],
)
def test_an_unknown_name_is_refused_with_those_there_are(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        named_config(name)


def total_loss(
    recipe: str, logits: Tensor, cams: Tensor, targets: Tensor, progress: float
) -> Tensor:
    """Return L of an original and one adjusted view, without L_bs, which is the paper's own."""
    one_pair = {"views.enhanced": True, "transfer.lambda_bs": 0.0}
    config = apply_overrides(named_config(with_recipe("paper", recipe)), one_pair)
    over_classes, over_views = config.train.cls_reduction, config.train.cls_over_views
    return cam_losses(
        logits,
        cams,
        targets,
        config.views,
        config.transfer,
        over_classes=over_classes,
        over_views=over_views,
        progress=progress,
    ).total


@pytest.fixture
def pair() -> tuple[Tensor, Tensor, Tensor]:
    """Scores [2, B, K] and raw CAMs [2, B, K, h, w] of two views, targets [B, K]."""
    cams = torch.randn(2, 3, 20, 4, 5, generator=torch.manual_seed(0), dtype=torch.float64)
    targets = torch.zeros(3, 20, dtype=torch.float64)
    targets[0, 2] = targets[1, 5] = targets[1, 7] = targets[2, 19] = 1
    cams[0, 1, 5] = -1  # a present class without a positive value
    return cams.mean((3, 4)), cams, targets


def test_under_seam_the_loss_of_a_pair_is_seams(pair: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, cams, targets = pair
    low, high = cams.relu().amin((3, 4), keepdim=True), cams.relu().amax((3, 4), keepdim=True)
    maps = (cams.relu() - low) / (high - low + 1e-12) * targets[:, :, None, None]
    cls = (
        F.multilabel_soft_margin_loss(logits[0], targets)
        + F.multilabel_soft_margin_loss(logits[1], targets)
    ) / 2
    expected = cls + (maps[0] - maps[1]).abs().mean()
    found = total_loss("seam", logits, cams, targets, progress=0.0)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize(("progress", "alpha"), [(0.0, 0.0), (0.25, 2.0), (0.5, 4.0), (1.0, 4.0)])
def test_under_puzzle_cam_the_loss_of_a_pair_is_puzzle_cams(
    pair: tuple[Tensor, Tensor, Tensor], progress: float, alpha: float
) -> None:
    logits, cams, targets = pair
    loss = torch.nn.MultiLabelSoftMarginLoss(reduction="none")
    apart = ((cams[0] - cams[1]).abs() * targets[:, :, None, None]).mean()
    expected = loss(logits[0], targets).mean() + loss(logits[1], targets).mean() + alpha * apart
    found = total_loss("puzzle_cam", logits, cams, targets, progress)
    torch.testing.assert_close(found, expected)


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
