"""Which configuration a headline builds on, from stores whose figures are known."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from made_up.finished import finished_sweep

from sweeps.plan.chains.best_cell import BEST, DEFAULT_CELL, choose_cell
from sweeps.plan.run_command import run_command
from sweeps.plan.sweep import Sweep, save_sweep
from sweeps.store.errors import StoreError
from sweeps.store.store import Store, write_json
from sweeps.tables.table import Cell, Row, Table
from wsss.overrides import apply_overrides

Mious = Mapping[str, Sequence[float | None]]
"""Cell -> the held-out mIoU of its seeds; None: failed."""
ASKED = finished_sweep(("III",), 1)
FOUR: Mious = {"III[no,no]": [40], "III[yes,no]": [43.5], "III[no,yes]": [43], "III[yes,yes]": [41]}


def leave(store: Store, sweep: Sweep, mious: Mious) -> None:
    """Save a sweep and what its trials came to."""
    save_sweep(store, sweep)
    for cell, values in mious.items():
        for trial, miou in zip(sweep.plan.cell_trials[cell], values, strict=False):
            name = "failure.json" if miou is None else "done.json"
            figures = {"miou_held_out": miou, "miou_best": 99.0}
            write_json(store.run(trial.run_id).path / name, figures)


@pytest.fixture
def full(store: Store) -> Store:
    """A store with an ended sweep, whose best cell is III[yes,no]."""
    leave(store, ASKED, FOUR)
    return store


def best(store: Store) -> tuple[str, float, int, int]:
    """Return what the choice says of itself: cell, mIoU, seeds and configurations."""
    choice = choose_cell(store, ASKED, BEST)
    found = re.search(r"\(([\d.]+), (.*)\) of (\d+) finished configurations", choice.why)
    assert found, choice.why
    seeds = re.search(r"\d+", found[2])
    return choice.cell, float(found[1]), int(seeds[0]) if seeds else 1, int(found[3])


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ((), ("III[yes,no]", 43.5, 1, 4)),
        ((41.0, 40.0, 43.0, 41.0), ("III[no,yes]", 43.0, 2, 4)),  # the mean, not the luckiest seed
        ((40.0, None, 40.0, 40.0), ("III[no,yes]", 41.5, 2, 3)),  # one with a failed seed is out
    ],
)
def test_the_highest_mean_of_held_out_mious_wins(
    store: Store, seconds: tuple[float | None, ...], expected: tuple[str, float, int, int]
) -> None:
    """seconds: of seed 1 of the four cells, if there is one."""
    mious = {cell: [*FOUR[cell], *seconds[at : at + 1]] for at, cell in enumerate(FOUR)}
    leave(store, finished_sweep(("III",), 2 if seconds else 1), mious)
    assert best(store) == expected


def test_a_sweep_with_trials_to_do_is_not_chosen_from(store: Store) -> None:
    leave(store, ASKED, {"III[yes,no]": [43.5]})
    command = re.escape(run_command(ASKED, store))
    with pytest.raises(StoreError, match=f"still has trials to do; .* with: {command}$"):
        best(store)


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
    full: Store, change: dict[str, object]
) -> None:
    asked = replace(ASKED, base=apply_overrides(ASKED.base, change))
    command = re.escape(run_command(asked, full))
    with pytest.raises(StoreError, match=f"name another --cell, or run one with: {command}$"):
        choose_cell(full, asked, BEST)


def test_a_sweep_of_another_version_and_a_table_of_ones_own_are_left_out(full: Store) -> None:
    old = {"tables": ["III"], "base": {"network": {"gone": 1}}}
    write_json(full.sweep("old") / "sweep.json", old)
    own = Table("mine", "mine", ("row",), (Row(("a",), (Cell({"train.lr": 0.3}, None),)),))
    leave(full, replace(ASKED, table_names=("mine",), own_tables=(own,)), {"mine[a]": [90.0]})
    assert best(full)[0] == "III[yes,no]"


@pytest.mark.parametrize(
    ("table", "left_out"), [("readings", "eval_split"), ("noise-floor", "again")]
)
def test_configurations_scored_on_other_images_and_repeated_seeds_do_not_count(
    store: Store, table: str, left_out: str
) -> None:
    sweep = finished_sweep((table,), 1)
    cells = sweep.plan.cell_trials
    leave(store, sweep, {cell: [90.0 if left_out in cell else 30.0] for cell in cells})
    assert best(store)[1:3] == (30.0, 1)


def test_seeds_of_two_sweeps_are_averaged_together(full: Store) -> None:
    wide, f3 = finished_sweep(("noise-floor",), 2), "noise-floor[F3,every seed]"
    mious = {cell: [1.0, 1.0] for cell in wide.plan.cell_trials}
    leave(full, wide, mious | {f3: [41.0, 61.0]})  # seed 0 is III[yes,yes] itself
    assert best(full)[1:3] == (51.0, 2)


def test_without_a_wish_the_best_is_taken_and_the_reason_says_what_it_saw(full: Store) -> None:
    choice = choose_cell(full, ASKED, None)
    assert (choice.cell, choice.by_masks) == ("III[yes,no]", True)
    assert "held-out" in choice.why
    assert "saw the pixel masks of the 30 scored images (train)" in choice.why
    choice = choose_cell(full, ASKED, "III[no,no]")  # a wish is granted, whatever is better
    assert (choice.cell, choice.by_masks) == ("III[no,no]", False)


def test_without_a_sweep_the_papers_full_method_is_taken(store: Store) -> None:
    choice = choose_cell(store, ASKED, None)
    assert (choice.cell, choice.by_masks) == (DEFAULT_CELL, False)
    assert "no ended sweep" in choice.why
