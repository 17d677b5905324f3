"""Which configuration a headline builds on, from stores whose figures are known."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from finished import finished_sweep

from sweeps.plan.chains.best_cell import BEST, DEFAULT_CELL, Choice, choose_cell
from sweeps.plan.run_command import run_command
from sweeps.plan.sweep import Sweep, save_sweep
from sweeps.plan.trials import Trial
from sweeps.store.errors import StoreError
from sweeps.store.store import Store, write_json
from wsss.overrides import apply_overrides


def leave(store: Store, sweep: Sweep, mious: dict[str, list[float | None]]) -> None:
    """Save a sweep and, for each cell named, the held-out mIoU of its seeds; None: failed."""
    save_sweep(store, sweep)
    for cell, values in mious.items():
        for trial, miou in zip(sweep.plan.cell_trials[cell], values, strict=False):
            _end(store, trial, miou)


def basis(choice: Choice) -> tuple[str, float, int, int]:
    """Return what a choice says of itself: cell, mIoU, seeds and configurations."""
    found = re.search(r"\(([\d.]+), (.*)\) of (\d+) finished configurations", choice.why)
    assert found, choice.why
    seeds = re.search(r"\d+", found[2])
    return choice.cell, float(found[1]), int(seeds[0]) if seeds else 1, int(found[3])


def _end(store: Store, trial: Trial, miou: float | None) -> None:
    name = "failure.json" if miou is None else "done.json"
    write_json(store.run(trial.run_id).path / name, {"miou_held_out": miou, "miou_best": 99.0})


def store_with(tmp_path: Path, mious: dict[str, list[float | None]], seeds: int = 1) -> Store:
    store = Store(tmp_path)
    leave(store, finished_sweep(("III",), seeds), mious)
    return store


FOUR = {"III[no,no]": [40.0], "III[yes,no]": [43.5], "III[no,yes]": [43.0], "III[yes,yes]": [41.0]}
ASKED = finished_sweep(("III",), 1)


def test_the_highest_held_out_miou_wins(tmp_path: Path) -> None:
    best = choose_cell(store_with(tmp_path, FOUR), ASKED, BEST)
    assert basis(best) == ("III[yes,no]", 43.5, 1, 4)


def test_the_mean_over_seeds_decides_and_not_the_luckiest_seed(tmp_path: Path) -> None:
    mious: dict[str, list[float | None]] = {
        "III[no,no]": [40.0, 41.0],
        "III[yes,no]": [50.0, 38.0],
        "III[no,yes]": [44.0, 46.0],
        "III[yes,yes]": [41.0, 41.0],
    }
    best = choose_cell(store_with(tmp_path, mious, seeds=2), ASKED, BEST)
    assert basis(best) == ("III[no,yes]", 45.0, 2, 4)


def test_a_configuration_with_a_failed_seed_is_left_out(tmp_path: Path) -> None:
    mious: dict[str, list[float | None]] = {name: [*values, 40.0] for name, values in FOUR.items()}
    mious["III[yes,no]"] = [43.5, None]
    best = choose_cell(store_with(tmp_path, mious, seeds=2), ASKED, BEST)
    assert basis(best) == ("III[no,yes]", 41.5, 2, 3)


def test_a_sweep_with_trials_to_do_is_not_chosen_from(tmp_path: Path) -> None:
    store = store_with(tmp_path, {"III[yes,no]": [43.5]})
    command = re.escape(run_command(ASKED, store))
    with pytest.raises(StoreError, match=f"still has trials to do; .* with: {command}$"):
        choose_cell(store, ASKED, BEST)


@pytest.mark.parametrize(
    "change",
    [
        {"data.fingerprint": "another"},
        {"train.epochs": 9},
        {"network.backbone": "resnet18"},
        {"network.atrous_start": "random"},
    ],
)
def test_sweeps_of_other_data_or_settings_do_not_count(
    tmp_path: Path, change: dict[str, object]
) -> None:
    store = store_with(tmp_path, FOUR)
    asked = replace(ASKED, base=apply_overrides(ASKED.base, change))
    command = re.escape(run_command(asked, store))
    with pytest.raises(StoreError, match=f"name another --cell, or run one with: {command}$"):
        choose_cell(store, asked, BEST)


def test_a_sweep_of_another_version_is_left_out(tmp_path: Path) -> None:
    store = store_with(tmp_path, FOUR)
    old = {"tables": ["III"], "base": {"network": {"gone": 1}}}
    write_json(store.sweep("old") / "sweep.json", old)
    assert choose_cell(store, ASKED, BEST).cell == "III[yes,no]"


def test_configurations_scored_on_other_images_do_not_count(tmp_path: Path) -> None:
    store, sweep = Store(tmp_path), finished_sweep(("readings",), 1)
    cells = sweep.plan.cell_trials
    other = next(cell for cell in cells if "eval_split" in cell)
    leave(store, sweep, {cell: [30.0] for cell in cells})
    _end(store, cells[other][0], 90.0)
    best = choose_cell(store, ASKED, BEST)
    assert basis(best)[1] == 30.0


def test_a_repeated_seed_does_not_count(tmp_path: Path) -> None:
    store, sweep = Store(tmp_path), finished_sweep(("noise-floor",), 1)
    values = {cell: [50.0 if "again" in cell else 40.0] for cell in sweep.plan.cell_trials}
    leave(store, sweep, values)  # type: ignore[arg-type]
    best = choose_cell(store, ASKED, BEST)
    assert basis(best)[1:] == (40.0, 1, 2)


def test_seeds_of_two_sweeps_are_averaged_together(tmp_path: Path) -> None:
    store = store_with(tmp_path, FOUR)
    wide, f3 = finished_sweep(("noise-floor",), 2), "noise-floor[F3,every seed]"
    mious: dict[str, list[float | None]] = {cell: [1.0, 1.0] for cell in wide.plan.cell_trials}
    mious[f3] = [41.0, 61.0]  # seed 0 is III[yes,yes] itself
    leave(store, wide, mious)
    best = choose_cell(store, ASKED, BEST)
    assert basis(best)[1:3] == (51.0, 2)


def test_without_a_wish_the_best_is_taken_and_the_reason_says_what_it_saw(tmp_path: Path) -> None:
    choice = choose_cell(store_with(tmp_path, FOUR), ASKED, None)
    assert (choice.cell, choice.by_masks) == ("III[yes,no]", True)
    assert "held-out" in choice.why
    assert "saw the pixel masks of the 30 scored images (train)" in choice.why


def test_without_a_sweep_the_papers_full_method_is_taken(tmp_path: Path) -> None:
    choice = choose_cell(Store(tmp_path), ASKED, None)
    assert (choice.cell, choice.by_masks) == (DEFAULT_CELL, False)
    assert "no ended sweep" in choice.why


def test_a_named_cell_is_taken_whatever_is_better(tmp_path: Path) -> None:
    choice = choose_cell(store_with(tmp_path, FOUR), ASKED, "III[no,no]")
    assert (choice.cell, choice.by_masks) == ("III[no,no]", False)
