"""What the runs of a sweep, a search and a headline hold, as data, without MLflow."""

import re
from pathlib import Path

import numpy as np
import pytest
from made_up.bucket_server import BUCKET
from made_up.finished import finish, finished_sweep
from made_up.planned import CELL, KEY, SEARCH, planned_headline, search_trial
from outcomes import ChainFolders

from sweeps.plan.chains.chain import ChainConfig
from sweeps.plan.chains.headline import load_headline, save_headline
from sweeps.plan.search import load_search, save_search
from sweeps.plan.sweep import save_sweep
from sweeps.stages.export import export_of
from sweeps.store.errors import StoreError
from sweeps.store.remote.mirror import Remote
from sweeps.store.rooms import Driven
from sweeps.store.store import Store, read_json, write_json
from sweeps.track.runs.headline import HeadlineRuns
from sweeps.track.runs.search import SearchRuns
from sweeps.track.runs.sweep import SweepRuns
from sweeps.track.subjects import runs_of
from sweeps.track.view import RunView, Tracked, git_tags
from wsss.basics.errors import ForeseenError
from wsss.identity import cam_id
from wsss.presets import TINY_DEEPLAB
from wsss.training.checkpoint_names import checkpoint_name

SWEEP = finished_sweep(("VI",), 1)
TRIAL = SWEEP.plan.trials[0]


def views(subject: Tracked, *running: str) -> dict[str, RunView]:
    return {view.id: view for view in subject.children(None, set(running))}


def the_trial(store: Store, *running: str) -> RunView:
    (view,) = SweepRuns(store, SWEEP).children([TRIAL.run_id], running)
    return view


def train(store: Store, cam: str, *dead: float) -> None:
    for epoch, share in enumerate(dead, 1):
        losses = {"loss": 1 / epoch, "loss_cls": None, "step_losses": [1.0]}
        more = {"seconds": 2.0, "dead": {"original": share}, "pulls": {"cls_s": -0.5}}
        store.cam(cam).add_epoch({"epoch": epoch} | losses | more)


def test_a_trial_is_running_killed_failed_or_finished_and_unknown_before(store: Store) -> None:
    def state(*running: str) -> str | None:
        view = the_trial(store, *running)
        return view.status if view.started else None

    assert (state(), state(TRIAL.run_id)) == (None, "RUNNING")
    train(store, TRIAL.cam_id, 0.0)
    assert (state(), state(TRIAL.run_id)) == ("KILLED", "RUNNING")
    store.run(TRIAL.run_id).fail("diverged", "at 3", "")
    assert state() == "FAILED"
    finish(store, TRIAL, 0.5)
    assert (state(), state(TRIAL.run_id)) == ("FINISHED", "FINISHED")


def test_a_trial_has_the_numbers_of_each_epoch_and_is_warned_until_it_fails(store: Store) -> None:
    assert the_trial(store).current_tags == {"wsss.warning": None, "wsss.failure": None}
    train(store, TRIAL.cam_id, 0.1, 0.1, 0.8)
    same = {"train/seconds": 2.0, "train/pull_cls_s": -0.5}
    assert the_trial(store).epochs == {
        epoch: {"train/loss": 1 / epoch, "train/dead_original": dead, **same}
        for epoch, dead in ((1, 0.1), (2, 0.1), (3, 0.8))
    }
    store.cam(TRIAL.cam_id).warn({"iteration": 100, "message": "at the prior"})
    warning = the_trial(store).current_tags["wsss.warning"]
    assert warning.startswith("at the prior; 80 % of the maps of present classes are empty")
    store.run(TRIAL.run_id).fail("diverged", "at iteration 3 " + "x" * 400, "")
    tags = the_trial(store).current_tags
    assert tags["wsss.warning"] is None
    assert tags["wsss.failure"] == ("diverged: at iteration 3 " + "x" * 400)[:400]


def test_a_trial_says_what_it_is_and_which_cells_show_it(store: Store) -> None:
    view = the_trial(store)
    assert view.key == {"wsss.run_id": TRIAL.run_id}
    assert view.name == TRIAL.name
    expected = {
        "wsss.cells": ", ".join(TRIAL.cells),
        "wsss.sweep": SWEEP.name,
        "wsss.role": "trial",
        "wsss.cam_id": TRIAL.cam_id,
        "wsss.data": "made-up:0123456789abcdef",
        "mlflow.source.name": "sweeps run VI",
        "mlflow.note.content": SWEEP.describe(),
    }
    assert expected.items() <= view.tags.items()
    assert view.params == TRIAL.config.flat()


def test_a_result_has_its_figures_its_files_and_the_newest_checkpoint(store: Store) -> None:
    finish(store, TRIAL, 0.5)
    run, folder = store.run(TRIAL.run_id), store.cam(TRIAL.cam_id).checkpoints
    folder.mkdir()
    for name in (checkpoint_name(3), checkpoint_name(2, 90)):
        (folder / name).touch()
    at_end, metrics = the_trial(store).at_end, run.result()
    curve = np.array(metrics["curve"])[5:81]
    assert at_end.mark == "miou/fixed"
    assert at_end.values["miou/fixed"] == metrics["miou_fixed"]
    assert at_end.values["miou/auc"] == pytest.approx(np.trapezoid(curve[:, 1], curve[:, 0]) / 0.75)
    assert at_end.values["per_class_iou_fixed/sheep"] == metrics["iou_fixed"][17]
    assert at_end.values["miou/held_out"] == metrics["miou_held_out"]
    assert at_end.values["miou/paper_as_printed"] == 47.82
    assert at_end.tags["wsss.code_version"] == "1.2.3"
    assert at_end.network is None
    assert at_end.tags["wsss.env.device"] == "cpu"
    assert at_end.artifacts == (
        *(
            (run.path / name, "")
            for name in ("config.json", "done.json", "threshold_curve.png", "cam_gallery.png")
        ),
        (folder / checkpoint_name(3), "checkpoint"),
    )


def test_a_sweep_has_its_settings_what_is_finished_and_the_best_cell(store: Store) -> None:
    first, *others = SWEEP.plan.trials
    finish(store, first, 0.4)
    runs = SweepRuns(store, SWEEP)
    parent = runs.parent()
    assert parent.key == {"wsss.sweep": SWEEP.name, "wsss.role": "sweep"}
    assert parent.params == {"tables": "VI", "seeds": 1, **SWEEP.base.flat()}
    assert runs.progress() is None
    assert runs.status() == "KILLED"
    said = runs.closing()
    assert said.values.keys() == {"finished_trials", "miou/best_cell"}
    assert (said.values["finished_trials"], said.tags["wsss.best_cell"]) == (1, first.cells[0])
    assert "Table VI" in said.texts["tables.txt"]
    assert list(views(runs)) == [trial.run_id for trial in SWEEP.plan.trials]
    assert not any(view.at_end and view.at_end.network for view in views(runs).values())

    for trial in others:
        store.run(trial.run_id).fail("DivergedError", "at 3", "")
    assert runs.status() == "FAILED"
    for trial in others:
        finish(store, trial, 0.6 if trial is others[1] else 0.5)
    assert runs.status() == "FINISHED"
    said, metrics = runs.closing(), store.run(others[1].run_id).result()
    assert said.values["miou/best_cell"] == metrics["miou_fixed"]
    assert said.tags["wsss.best_cell"] == ", ".join(others[1].cells)
    kept = [key for key, view in views(runs).items() if view.at_end and view.at_end.network]
    assert kept == [others[1].run_id]


def test_mlflow_shows_the_commit_of_a_result() -> None:
    for recorded, dirty in (("0.1.0+2039d67.s1f0c9d2ab4", "false"), ("1+2039d67-dirty.s1", "true")):
        expected = {"mlflow.source.git.commit": "2039d67", "mlflow.source.git.dirty": dirty}
        assert git_tags(recorded) == expected
    assert git_tags("0.1.0+s1f0c9d2ab4") == git_tags("1.2.3") == {}


def test_what_was_written_down_of_a_search_or_a_headline_is_read_back(store: Store) -> None:
    headline = planned_headline("random_walk", "masks")
    save_headline(store, headline)
    save_search(store, SEARCH)
    save_sweep(store, SWEEP)
    known = store.driven()
    assert [each.title for each in known] == [
        f"sweep {SWEEP.name}",
        f"search {SEARCH.name}",
        f"headline {headline.name}",
    ]
    assert load_headline(store, headline.name) == headline
    assert load_search(store, SEARCH.name) == SEARCH
    for each in known:
        assert runs_of(store, each).parent().id == each.name
    path = headline.folder(store) / "headline.json"
    write_json(path, read_json(path) | {"chains": []})
    with pytest.raises(StoreError, match=rf"headline\.json: holds no record of {headline.name}"):
        runs_of(store, known[2])


def test_a_drawn_trial_says_how_it_ended(store: Store) -> None:
    runs = SearchRuns(store, SEARCH)
    for trial in (
        search_trial(0, "finished", 1.0, 2.0, 3.0),
        search_trial(1, "stopped", 11.0),
        search_trial(2, "diverged", message="at 3"),
        search_trial(3, "running"),
        search_trial(4, "running"),
        search_trial(5, "error", message="no memory"),
    ):
        runs.history.save(trial)
    found = views(runs, "4")
    assert [view.status for view in found.values()] == [
        "FINISHED",
        "FINISHED",
        "FAILED",
        "KILLED",
        "RUNNING",
        "FAILED",
    ]
    early = [view.current_tags.get("wsss.stopped_early") for view in found.values()]
    assert early == ["false", "true", "false", None, None, None]
    assert found["2"].current_tags["wsss.failure"] == "at 3"
    assert found["1"].name == f"1 {KEY.split('.')[-1]}=0.6"
    assert found["1"].key == {"wsss.search": SEARCH.name, "wsss.search_trial": "1"}
    assert found["1"].params[KEY] == 0.6
    (one,) = runs.children(["1"], ())
    assert one == found["1"]


def test_a_search_that_is_to_draw_more_has_not_finished(store: Store) -> None:
    for samples, status in ((0, "FINISHED"), (1, "FINISHED"), (2, "KILLED")):
        save_search(store, SEARCH.model_copy(update={"samples": samples}))
        runs = runs_of(store, Driven("search", SEARCH.name))
        trial = search_trial(0, "finished", 3.0)
        runs.history.save(trial)
        for key in (trial.cam_id, cam_id(SEARCH.base)):
            runs.history.add_held_out(key, {"objective": 3.0, "threshold": 0.2, "held_out": 1.0})
        assert runs.status() == status


def test_a_drawn_trial_has_objective_and_losses_and_is_warned_as_any_training(store: Store) -> None:
    """An epoch is logged once, so it waits for its losses, which a bucket brings at the end."""
    runs = SearchRuns(store, SEARCH)

    def saved(status: str, *running: str) -> RunView:
        runs.history.save(search_trial(0, status, 1.0, 2.0, warning="at the prior"))
        return views(runs, *running)["0"]

    for status in ("running", "finished"):  # judged, but its records are on their way
        assert saved(status, "0").epochs == {}
    train(store, search_trial(0, "running").cam_id, 0.8)
    view = saved("running", "0")
    losses = {"train/loss": 1.0, "train/loss_cls": None}
    first = {"objective/search_half": 1.0, "objective/threshold": 0.3}
    assert view.epochs == {1: first | losses}
    assert saved("finished").epochs == {
        1: first | losses,
        2: first | {"objective/search_half": 2.0},
    }
    train(store, search_trial(0, "running").cam_id, 0.1, 0.1, 0.8)
    warning = saved("running", "0").current_tags["wsss.warning"]
    assert warning.startswith("at the prior; 80 % of the maps of present classes are empty")


def test_a_search_says_the_best_so_far_and_at_the_end_the_held_out_scores(store: Store) -> None:
    runs = SearchRuns(store, SEARCH)
    trials = [search_trial(n, "finished", 10.0 * n + 3) for n in range(2)]
    runs.history.save(trials[0])
    assert "objective" in runs.parent().params
    before = runs.progress()
    for trial in (trials[1], search_trial(2, "stopped", 21.0), search_trial(3, "running", 31.0)):
        runs.history.save(trial)
    after = runs.progress()
    assert (before.step, dict(before.values)) == (1, {"objective/best_so_far": 3.0})
    assert (after.step, dict(after.values)) == (3, {"objective/best_so_far": 13.0})
    assert after.tags == {"wsss.best_trial": "1"}
    assert runs.closing().values == {}
    assert views(runs).keys() == {"0", "1", "2", "3"}

    row = {"objective": 13.0, "threshold": 0.2, "held_out": 11.5}
    runs.history.add_held_out(trials[1].cam_id, row)
    runs.history.add_held_out(cam_id(SEARCH.base), row | {"held_out": 12.5})
    assert runs.closing().values == {
        "objective/held_out_best": 11.5,
        "objective/held_out_base": 12.5,
    }
    found = views(runs)
    ends = {key: view.at_end.values for key, view in found.items() if view.at_end}
    assert ends == {
        "1": {"objective/held_out": 11.5},
        "reference": {
            "objective/search_half": 13.0,
            "objective/threshold": 0.2,
            "objective/held_out": 12.5,
        },
    }
    assert found["reference"].params == SEARCH.base.flat()
    assert found["reference"].tags["wsss.role"] == "reference"


def predicted(store: Store, chain: ChainConfig, labels: float | None) -> Path:
    path = ChainFolders(store.root, chain).predictions / "done.json"
    score = None if labels is None else {"miou": labels}
    iou = {"background": 80.0, "person": None, "sheep": 17.0}
    write_json(path, {"miou": 40.0, "pixel_accuracy": 80.0, "iou": iou, "labels_score": score})
    return path.parent


def test_a_network_has_a_run_from_its_start_and_at_its_end_all_of_its_figures(store: Store) -> None:
    headline = planned_headline("crf", "masks")
    runs, (crf, masks) = HeadlineRuns(store, headline), headline.chains
    assert [view.started for view in views(runs).values()] == [False, False]
    (view,) = runs.children([crf.prediction_id], {crf.prediction_id})
    assert (view.started, view.status, view.at_end) == (True, "RUNNING", None)
    store.folder(f"predictions/{crf.prediction_id}").fail("diverged", "too fast", "")
    view = views(runs)[crf.prediction_id]
    assert (view.started, view.status) == (True, "FAILED")
    assert view.current_tags["wsss.failure"] == "diverged: too fast"
    folder = predicted(store, crf, 45.0)
    view = views(runs)[crf.prediction_id]
    assert (view.status, view.name) == ("FINISHED", "CAM + dense CRF -> DeepLabv2")
    assert view.at_end.values == {
        "miou/val": 40.0,
        "miou/pixel_accuracy": 80.0,
        "miou/labels_train": 45.0,
        "per_class_iou/background": 80.0,
        "per_class_iou/person": None,
        "per_class_iou/sheep": 17.0,
    }
    assert view.at_end.artifacts == ((folder / "done.json", ""), (folder / "gallery.png", ""))
    predicted(store, masks, None)
    assert runs.closing().values == {
        "miou_val/crf": 40.0,
        "miou_labels_train/crf": 45.0,
        "miou_val/masks": 40.0,
        "miou_labels_train/masks": None,
    }
    (one,) = runs.children([masks.prediction_id], ())
    assert one.id == masks.prediction_id


def test_another_machine_logs_what_a_bucket_holds_of_a_headline(
    store: Store, port: int, tmp_path: Path
) -> None:
    headline = planned_headline("crf")
    (chain,) = headline.chains
    save_headline(store, headline)
    predicted(store, chain, 45.0)
    checkpoint = ChainFolders(store.root, chain).segmentation / "checkpoints" / checkpoint_name(1)
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"no network")
    here, there = (Remote(f"s3://{BUCKET}/x", path) for path in (store.root, tmp_path / "there"))
    for room in ("headline", "predictions", "segmentations"):
        here.push_folder(room)
    there.pull_results()
    runs = runs_of(Store(there.mirror, there), Driven("headline", headline.name))
    assert (runs.status(), runs.closing().values["miou_val/crf"]) == ("FINISHED", 40.0)
    at_end = views(runs)[chain.prediction_id].at_end
    assert at_end.network
    with pytest.raises(ForeseenError, match="0 of 300 iterations can be read"):
        at_end.network()
    assert list(there.mirror.glob("segmentations/*/checkpoints/*.broken"))


def test_a_network_whose_export_failed_says_why(store: Store) -> None:
    headline = planned_headline("crf", export="test")
    runs, (chain,) = HeadlineRuns(store, headline), headline.chains
    predicted(store, chain, 45.0)
    assert views(runs)[chain.prediction_id].current_tags["wsss.failure"] is None
    store.folder(export_of(chain, "test").rel).fail("ServerTarError", "a.png: no palette", "")
    tags = views(runs)[chain.prediction_id].current_tags
    assert tags["wsss.failure"] == "ServerTarError: a.png: no palette"


def test_a_network_says_where_it_came_from_and_which_label_settings_are_in_use(
    store: Store,
) -> None:
    headline = planned_headline("random_walk_crf", "none", "masks")
    walked, plain, masks = views(HeadlineRuns(store, headline)).values()
    chain = headline.chains[0]
    assert walked.key == {"wsss.prediction_id": chain.prediction_id}
    assert walked.list_tags == {"wsss.headlines": headline.name}
    lineage = {
        "wsss.cam_id": cam_id(chain.run),
        "wsss.maps_id": chain.maps_id,
        "wsss.walk_id": chain.walk_id,
        "wsss.cam_cell": CELL,
    }
    assert lineage.items() <= walked.tags.items()
    assert not {"wsss.cam_id", "wsss.cam_cell"} & masks.tags.keys()
    assert walked.params["refinement"] == "random_walk_crf"
    assert masks.params["segmentation.backbone"] == TINY_DEEPLAB.backbone
    groups = [
        {key.split(".")[1] for key in view.params if re.match(r"labels\.\w+\.", key)}
        for view in (walked, plain)
    ]
    assert groups == [{"random_walk", "crf"}, set()]
    assert "labels.background" in plain.params
    assert not any(key.startswith("labels.") for key in masks.params)
