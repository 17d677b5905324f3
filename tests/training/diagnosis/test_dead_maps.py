"""Trainings whose maps die, as a person sees them: terminal, status, MLflow's tag and report."""

import json
from pathlib import Path
from typing import Any

import pytest
from commands import wsss
from made_up.finished import cell, finish, finished_sweep, status_of

from sweeps.plan.sweep import Sweep
from sweeps.plan.trials import Trial
from sweeps.report.formats.html import html
from sweeps.report.formats.markdown import markdown
from sweeps.report.formats.write import as_text
from sweeps.report.live.render import render_tables
from sweeps.report.tables import pictures
from sweeps.report.tables.answer import answer
from sweeps.report.tables.closing import closing
from sweeps.report.tables.document import sweep_document
from sweeps.report.tables.findings import findings
from sweeps.report.tables.model import build_report
from sweeps.stages.stage import Place
from sweeps.stages.trial import run_trial
from sweeps.store.store import Store
from wsss.config import RunConfig
from wsss.overrides import apply_overrides
from wsss.presets import TINY
from wsss.training.diagnosis.learning import MAX_DEAD, MAX_RISE, DeadMaps, find_dead_maps


def training(*original: float, **views: tuple[float, ...]) -> list[dict[str, Any]]:
    """Records of epochs with these dead shares."""
    shares = {"original": original, **views}
    return [
        {"epoch": epoch + 1, "dead": {view: values[epoch] for view, values in shares.items()}}
        for epoch in range(len(original))
    ]


def of_epochs(count: int, **settings: Any) -> RunConfig:
    named = {key.replace("__", "."): value for key, value in settings.items()}
    return apply_overrides(TINY, {"train.epochs": count} | named)


# The rule


@pytest.mark.parametrize(
    ("num_epochs", "shares", "warned"),
    [
        # Trainings that went well: drawn data, no view
        (8, (0.60, 0.54, 0.39, 0.24, 0.15, 0.12, 0.08, 0.07), []),
        (
            8,
            (0.38, 0.60, 0.26, 0.24, 0.15, 0.11, 0.12, 0.08),
            [],
        ),  # begun with maps alive by chance
        (6, (0.78, 0.66, 0.46, 0.34, 0.26, 0.26), []),  # real pictures, enhanced view
        (3, (0.50, 0.44, 0.14), []),  # drawn data, few epochs
        # Dead in the second half
        (6, (0.9, 0.8, *[MAX_DEAD + 0.1] * 3, MAX_DEAD), [4, 5]),
        # They die, but for the first epoch
        (20, (0.0, 0.3, 0.1, 0.1 + MAX_RISE - 0.01, 0.1 + MAX_RISE + 0.01, 0.2), [5]),
        # The first epoch is judged only if it is the last
        (1, (MAX_DEAD + 0.1,), [1]),
        (1, (MAX_DEAD - 0.1,), []),
        (2, (MAX_DEAD + 0.1,), []),
    ],
)
def test_a_training_is_warned_of_in_its_second_half_and_whenever_maps_die(
    num_epochs: int, shares: tuple[float, ...], warned: list[int]
) -> None:
    records = training(*shares)
    ends = range(1, len(shares) + 1)
    assert [n for n in ends if find_dead_maps(records[:n], of_epochs(num_epochs))] == warned


def test_the_view_with_most_dead_maps_is_named_and_what_it_does_to_the_loss() -> None:
    shares = {"enhanced": (0.6, 0.5), "decreased": (0.6, 0.45)}
    records, views = training(0.6, 0.1, **shares), {"views__enhanced": True}
    found = find_dead_maps(records, of_epochs(2, **views))
    assert found == DeadMaps(2, "enhanced", 0.5, compared=True)
    assert "in the enhanced view (epoch 2): L_s is satisfied by nothing" in str(found)
    for settings in ({}, views | {"transfer__lambda_s": 0.0}):
        assert "L_s" not in str(find_dead_maps(records, of_epochs(2, **settings)))


def test_a_view_that_an_earlier_record_lacks_is_judged_by_those_that_have_it() -> None:
    records = training(0.1, 0.1, 0.9, enhanced=(0.1, 0.1, 0.9))
    del records[1]["dead"]["enhanced"]
    found = find_dead_maps(records, of_epochs(8))
    assert found is not None
    assert found.view == "original"


def test_records_of_older_stores_are_not_judged() -> None:
    assert find_dead_maps([], of_epochs(2)) is None
    assert find_dead_maps([{"epoch": 1}, {"epoch": 2}], of_epochs(2)) is None
    resumed = [{"epoch": 1}, *training(0.6, 0.5)[1:]]
    assert find_dead_maps(resumed, of_epochs(2)) is not None


# Where it is shown


@pytest.fixture
def sweep() -> Sweep:
    """Table III, one seed: 4 trials of 8 epochs."""
    return finished_sweep(("III",), 1)


def train(store: Store, trial: Trial, *dead: float) -> None:
    """Finish a trial whose last epochs have these dead shares, the others the first of them."""
    finish(store, trial, 0.5)
    views, others = ("original", *trial.config.views.names), trial.config.train.epochs - len(dead)
    for epoch, share in enumerate([dead[0]] * others + list(dead), start=1):
        record = {"epoch": epoch, "seconds": 1.0, "loss": 1.0, "step_losses": [1.0] * 5}
        store.cam(trial.cam_id).add_epoch(record | {"dead": dict.fromkeys(views, share)})


def test_a_trial_reports_it_with_the_epochs_numbers_and_the_command_prints_it(
    small: RunConfig, drawn: Path, tmp_path: Path
) -> None:
    too_fast = {"train.lr": 0.5, "train.clip_norm": None}  # half of the maps die and more
    config = apply_overrides(small, {"train.epochs": 4, "views.enhanced": True} | too_fast)
    records = run_trial(config, Place(Store(tmp_path), drawn))
    epochs = [record for record in records if "loss_cls" in record]
    found = [record.get("dead_maps", "").partition("(epoch ")[2][:1] for record in epochs]
    assert found == ["", "", "3", "4"]
    settings = tmp_path / "settings.yaml"
    settings.write_text(json.dumps(config.model_dump(mode="json", exclude={"data"})))
    where = ("--run", tmp_path / "run", "--data", drawn, "--preset", "tiny")
    told = wsss("train-cam", *where, "--config", settings).output
    warnings = [line for line in told.splitlines() if "warning" in line]
    assert [line.split("(epoch ")[1][0] for line in warnings] == ["3", "4"]


def test_status_and_table_name_the_cells_whose_maps_died_also_after_the_end(
    store: Store, sweep: Sweep
) -> None:
    train(store, cell(sweep, "yes,no"), 0.3, 0.46)
    train(store, cell(sweep, "no,no"), 0.3, 0.1)
    shown = status_of(store, sweep)
    words = "46 % of the maps of present classes are empty in the original view"
    assert f"warning: III[yes,no] seed 0: {words} (epoch 8): L_s is" in shown
    assert shown.count("warning:") == shown.count("empty maps") == 1
    assert render_tables(sweep, store).count("empty maps") == 1


def test_a_status_names_three_trials_of_a_warning_and_counts_the_others(
    store: Store, sweep: Sweep
) -> None:
    for name in ("no,no", "yes,no", "no,yes", "yes,yes"):
        train(store, cell(sweep, name), 0.3, 0.46)
    shown = status_of(store, sweep)
    assert shown.count("are empty in the original view") == 3
    assert "warning: and so of 1 more trial\n" in shown


def test_the_report_says_where_maps_died(store: Store, sweep: Sweep) -> None:
    for name in ("no,no", "yes,yes"):
        train(store, cell(sweep, name), 0.6, 0.1 if name == "no,no" else 0.46)
    report = build_report(sweep, store)
    (table,) = report.tables
    said = "Maps died: III[yes,yes] in 1 of 1 seed; the most in III[yes,yes] seed 0: 46 % of the"
    assert [sentence.startswith(said) for sentence in findings(table)].count(True) == 1
    assert answer(table).answer.endswith("2 cells missing. Maps died in 1 of 2 trials.")
    (warning,) = closing(report)["Warnings"].items
    assert warning.startswith("III[yes,yes] seed 0: 46 % of the")
    document = sweep_document(report)
    for text in (as_text(document, width=400), markdown(document), html(document)):
        assert "the most in III" in text


def test_the_curve_of_a_row_is_of_the_view_with_most_dead_maps_and_old_rows_have_none(
    store: Store, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[str, list[list[float]]] = {}
    monkeypatch.setattr(pictures, "dead_curves", lambda curves: drawn.update(curves) or "<svg/>")
    finish(store, cell(sweep, "no,no"), 0.5)  # of an older store: no `dead`
    sweep_document(build_report(sweep, store))
    assert drawn == {}
    finish(store, cell(sweep, "yes,no"), 0.5)
    folder = store.cam(cell(sweep, "yes,no").cam_id)
    for record in training(0.6, 0.5, 0.3, enhanced=(0.5, 0.6, 0.4)):
        folder.add_epoch({"seconds": 1.0, "step_losses": [1.0] * 5} | record)
    assert "which lowers L_s for no gain" in html(sweep_document(build_report(sweep, store)))
    assert drawn == {"III[yes,no]": [[0.6, 0.6, 0.4]]}


def test_the_answer_counts_a_training_whose_maps_died_before_it_is_scored(
    store: Store, sweep: Sweep
) -> None:
    train(store, cell(sweep, "no,no"), 0.6, 0.46)
    train(store, cell(sweep, "yes,yes"), 0.6, 0.46)
    (store.run(cell(sweep, "yes,yes").run_id).path / "done.json").unlink()
    (table,) = build_report(sweep, store).tables
    both = "Maps died: III[no,no] in 1 of 1 seed and III[yes,yes] in 1 of 1 seed;"
    assert any(sentence.startswith(both) for sentence in findings(table))
    assert answer(table).answer.endswith(" Maps died in 2 of 2 trials.")
