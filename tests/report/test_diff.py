"""Two cells or runs side by side, through the command `sweeps diff`."""

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from click.testing import Result
from commands import sweeps
from made_up.finished import fill, finished_sweep
from scipy.stats import sem, t

from sweeps.plan.sweep import Sweep
from sweeps.store.store import Store


@pytest.fixture(scope="module")
def sweep() -> Sweep:
    return finished_sweep(("VI",), 2)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, sweep: Sweep) -> Store:
    """VI[no,yes] is better, VI[yes,no] lacks seed 1, VI[yes,yes] is missing."""
    store = Store(tmp_path_factory.mktemp("store"))
    qualities = {"VI[no,no]": 0.5, "VI[no,yes]": 0.7, "VI[yes,no]": 0.5}
    missing = sweep.plan.cell_trials["VI[yes,no]"][1]
    fill(store, sweep, lambda t: None if t == missing else qualities.get(t.cells[0]))
    return store


def diff(store: Store, *words: str) -> Result:
    result = sweeps("diff", *words, "--store", store.root, COLUMNS="120")
    assert "Traceback" not in result.output
    return result


def metrics(store: Store, sweep: Sweep, cell: str) -> list[dict[str, Any]]:
    found = [store.run(trial.run_id).result() for trial in sweep.plan.cell_trials[cell]]
    return [one for one in found if one]


def test_cells_differ_by_their_settings_and_their_mean_over_seeds(
    store: Store, sweep: Sweep
) -> None:
    said = json.loads(diff(store, "VI[no,no]", "VI[no,yes]", "--json").output)
    assert said["settings"] == [["network.spatial_attention", False, True]]
    assert list(said["measures"]) == ["fixed", "held-out", "best", "auc"]
    a, b = (metrics(store, sweep, cell) for cell in ("VI[no,no]", "VI[no,yes]"))
    fixed = said["measures"]["fixed"]
    assert fixed["a"] == pytest.approx(fmean(one["miou_fixed"] for one in a))
    assert fixed["b"] == pytest.approx(fmean(one["miou_fixed"] for one in b))
    assert fixed["low"] < fixed["b"] - fixed["a"] < fixed["high"]
    assert said["measures"]["auc"]["low"] is None
    for measure, found in (("fixed", "miou_fixed"), ("best", "miou_best")):
        pairs = [two[found] - one[found] for one, two in zip(a, b, strict=True)]
        ends = said["measures"][measure]["seed_low"], said["measures"][measure]["seed_high"]
        assert ends == pytest.approx(t.interval(0.95, 1, fmean(pairs), sem(pairs)))
    assert said["classes"]["dog"]["b"] == pytest.approx(fmean(one["iou_fixed"][12] for one in b))
    shown = diff(store, "VI[no,no]", "VI[no,yes]").output
    assert f"{fixed['b'] - fixed['a']:+.2f}" in shown
    assert "network.spatial_attention" in shown
    assert "no difference is shown" not in shown
    assert "no interval" not in shown  # both are scored on the same images


def test_only_seeds_that_both_have_are_compared(store: Store, sweep: Sweep) -> None:
    said = json.loads(diff(store, "VI[no,no]", "VI[yes,no]", "--json").output)
    first = metrics(store, sweep, "VI[no,no]")[0]
    assert said["measures"]["fixed"]["a"] == first["miou_fixed"]
    assert (len(said["runs_a"]), len(said["runs_b"])) == (1, 1)
    one_seed = "seed noise is unknown, and any difference may be chance"
    assert one_seed in diff(store, "VI[no,no]", "VI[yes,no]").output
    assert one_seed not in diff(store, "VI[no,no]", "VI[no,yes]").output


def test_a_difference_that_seeds_turn_round_is_not_shown(tmp_path: Path, sweep: Sweep) -> None:
    store, signs = Store(tmp_path), (1, -1)
    shifts = {"VI[no,no]": 0.0, "VI[no,yes]": 0.02, "VI[yes,no]": 0.0, "VI[yes,yes]": 0.0}
    fill(store, sweep, lambda t: 0.5 + shifts[t.cells[0]] * signs[t.config.rng_seed])
    assert "no difference is shown" in diff(store, "VI[no,no]", "VI[no,yes]").output


def test_two_seeds_of_a_cell_are_runs_without_a_seed_in_common(store: Store, sweep: Sweep) -> None:
    runs = [trial.run_id for trial in sweep.plan.cell_trials["VI[no,no]"]]
    shown = diff(store, *runs).output
    assert "no seed in common" in shown
    assert "rng_seed" in shown


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("VI[yes,yes]", "no seed of it is finished; run its table first"),
        ("VI[yes]", "did you mean VI["),
        ("../../etc", "no run of this name"),
    ],
)
def test_what_cannot_be_compared_is_refused(store: Store, name: str, said: str) -> None:
    result = diff(store, "VI[no,no]", name)
    assert (result.exit_code, said in result.output) == (2, True)


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "not JSON"), ('{"train": {"lr": -1}}', "train.lr = -1"), ("{}", "holds no record of ")],
)
def test_a_run_whose_configuration_is_not_its_own_is_refused_by_the_name_of_the_file(
    store: Store, sweep: Sweep, text: str, said: str
) -> None:
    first, other = (trial.run_id for trial in sweep.plan.cell_trials["VI[no,no]"])
    path = store.run(other).path / "config.json"
    kept = path.read_text()
    path.write_text(text)
    result = diff(store, first, other)
    path.write_text(kept)
    assert result.exit_code == 2
    assert f"error: {path}: " in result.output
    assert said in result.output
