"""The runs of a sweep: a parent, and a child per trial."""

from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from typing import Any

from sweeps.evidence import calibration
from sweeps.plan.sweep import Sweep
from sweeps.plan.trials import Trial
from sweeps.report.live.render import render_tables
from sweeps.store.store import Store
from sweeps.tables.studies import TABLES
from sweeps.track import view
from sweeps.track.view import CAM_ID, ROLE, RUN_ID, RunView, Subject, Summary, Values
from wsss.evaluation.auc import area_under_curve
from wsss.training.dead_maps import find_dead_maps

EXPERIMENT = "wsss"
SWEEP, CALIBRATION = "wsss.sweep", "wsss.calibration"
MIOU = "miou/fixed"
"""MLflow's UI shows a section per prefix, in alphabetical order: miou, per_class_..., score, train;
and compares by the metric that was logged first."""

ARTIFACTS = ("config.json", "done.json", "threshold_curve.png", "cam_gallery.png")


class SweepRuns(Subject):
    """Describes the runs of one sweep."""

    experiment = EXPERIMENT
    experiment_tags: Mapping[str, str] = {"mlflow.experimentKind": "custom_model_development"}

    def __init__(self, store: Store, sweep: Sweep) -> None:
        self.store, self.sweep = store, sweep
        self.addresses = store.sweep(sweep.name) / "mlflow.json"

    def parent(self) -> RunView:
        """Return the sweep's own run."""
        return RunView(
            id=self.sweep.name,
            key={SWEEP: self.sweep.name, ROLE: "sweep"},
            name=f"sweep {self.sweep.name}",
            tags=self._tags,
        )

    def children(
        self, wanted: Collection[str] | None, running: Collection[str]
    ) -> Iterator[RunView]:
        """Yield the runs of these trials, or of all; not started ones get none in MLflow."""
        for run_id in self._trials if wanted is None else wanted:
            yield self._child(self._trials[run_id], running=run_id in running)

    def closing(self) -> Summary:
        """Return the tables, and a calibration's outcome, as they stand."""
        runs = [self.store.run(run_id) for run_id in self._trials]
        verdict = calibration.read(self.store, self.sweep.name)
        return Summary(
            values={"finished_trials": sum(run.metrics() is not None for run in runs)},
            tags={CALIBRATION: verdict.outcome} if verdict else {},
            texts={"tables.txt": render_tables(self.sweep, self.store)},
        )

    @cached_property
    def _trials(self) -> dict[str, Trial]:
        return {trial.run_id: trial for trial in self.sweep.plan.trials}

    @cached_property
    def _tags(self) -> dict[str, str]:
        sweep = self.sweep
        return {
            **view.common_tags(sweep.preset, sweep.base.data, sweep.describe()),
            "mlflow.source.name": f"sweeps run {' '.join(sweep.table_names)}",
            "mlflow.source.type": "LOCAL",
        }

    def _child(self, trial: Trial, *, running: bool) -> RunView:
        run, cam = self.store.run(trial.run_id), self.store.cam(trial.cam_id)
        metrics, failure, epochs = run.metrics(), run.failure(), cam.epochs()
        return RunView(
            id=trial.run_id,
            key={RUN_ID: trial.run_id},
            name=trial.name,
            status=_status(metrics, failure, running=running),
            started=bool(running or metrics or failure or epochs),
            tags={
                **self._tags,
                CAM_ID: trial.cam_id,
                ROLE: "trial",
                "wsss.cells": ", ".join(trial.cells),
                SWEEP: self.sweep.name,
            },
            current_tags=view.message_tags(
                (cam.warning(), find_dead_maps(epochs, trial.config)),
                f"{failure['kind']}: {failure['message']}" if failure else "",
            ),
            params=trial.config.flat(),
            dataset=view.DatasetView(self.sweep.base.data, self.sweep.data),
            epochs={record["epoch"]: _figures(record) for record in epochs},
            outcome=self._outcome(trial, metrics) if metrics else None,
        )

    def _outcome(self, trial: Trial, metrics: dict[str, Any]) -> view.Outcome:
        folder = self.store.run(trial.run_id).path
        newest = sorted(self.store.cam(trial.cam_id).checkpoints.glob("epoch_*.pt"))[-1:]
        return view.Outcome(
            mark=MIOU,
            values=result_values(trial, metrics),
            tags={
                f"wsss.{key if key == 'code_version' else f'env.{key}'}": str(value)
                for key, value in metrics["environment"].items()
            },
            artifacts=(
                *((folder / name, "") for name in ARTIFACTS),
                *((path, "checkpoint") for path in newest),
            ),
        )


def result_values(trial: Trial, metrics: dict[str, Any]) -> Values:
    """Return the figures of a trial's done.json by metric name; None where there is none.

    mIoU and per-class IoU in percent. Runs scored by an older version lack some.
    """
    values = {
        MIOU: metrics["miou_fixed"],
        "miou/best_saw_gt": metrics["miou_best"],
        "miou/held_out": metrics.get("miou_held_out"),
        "miou/auc": area_under_curve(metrics["curve"], trial.config.labels),
        "miou/paper_as_printed": paper_miou(trial),
        "score/threshold_best_saw_gt": metrics["best_threshold"],
        "score/precision_fixed": metrics["precision_fixed"],
        "score/recall_fixed": metrics["recall_fixed"],
        "score/seconds_training": metrics["train_seconds"],
        "score/seconds_inference": metrics.get("inference_seconds"),
    }
    names = ("background", *metrics["classes"])
    ious = zip(names, metrics["iou_fixed"], strict=True)
    return values | {f"per_class_iou_fixed/{name}": iou for name, iou in ious}


def paper_miou(trial: Trial) -> float | None:
    """Return the mIoU which the paper printed for a trial's configuration, if it did."""
    for table in TABLES.values():
        for reference, cell in table.cells():
            if reference in trial.cells and cell.paper is not None:
                return cell.paper
    return None


def _figures(record: dict[str, Any]) -> Values:
    """Return the numbers of an epoch's record, lists and texts left out."""
    return {
        f"train/{key}": value
        for key, value in record.items()
        if isinstance(value, (int, float)) and key != "epoch"
    }


def _status(
    metrics: dict[str, Any] | None, failure: dict[str, Any] | None, *, running: bool
) -> str:
    if metrics:
        return "FINISHED"
    if running:
        return "RUNNING"
    return "FAILED" if failure else "KILLED"
