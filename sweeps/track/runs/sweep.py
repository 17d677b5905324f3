"""The runs of a sweep: a parent, and a child per trial."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from sweeps.evidence import calibration
from sweeps.evidence.verdict import Word
from sweeps.plan.sweep import Sweep
from sweeps.plan.trials import Trial, best_configuration
from sweeps.report.live.render import render_tables
from sweeps.report.tables.model import Report
from sweeps.store.rooms import DONE
from sweeps.store.store import Store
from sweeps.tables.table import Table
from sweeps.track import view
from sweeps.track.view import CAM_ID, ROLE, RUN_ID, RunView, Summary, Tracked, Values
from wsss.evaluation.auc import area_under_curve
from wsss.training.diagnosis.learning import figures_of, find_dead_maps

if TYPE_CHECKING:
    from wsss.networks.cam_net import CamNet

EXPERIMENT = "wsss"
SWEEP, CALIBRATION, BEST_CELL = "wsss.sweep", "wsss.calibration", "wsss.best_cell"
MIOU = "miou/fixed"
"""MLflow's charts have a section per prefix: miou, per_class_..., score, train. Its page that
compares runs begins with the metric that was logged first, a loss of the first epoch."""

ARTIFACTS = ("config.json", DONE, "threshold_curve.png", "cam_gallery.png")


NOTE = """\
CAM trainings for weakly-supervised segmentation. A run with the tag `wsss.role` = `trial` is one
training with its pseudo-labels' scores, named after its cells; `sweep` is the run above those of
one `sweeps run`.

mIoU and IoU per class are in percent of the scored images, background included:

| metric | threshold between object and background |
|---|---|
| `miou/fixed` | the fixed background score; its choice saw no pixel ground truth |
| `miou/held_out` | chosen on one half of the scored images, scored on the other |
| `miou/best_saw_gt` | the best on the images that it is scored on: an upper bound |
| `miou/auc` | none: mean over all thresholds of the curve |
| `miou/paper_as_printed` | what the paper prints for the cell |

`train/...` is per epoch: losses have no unit, `seconds` are of the epoch; `score/seconds_...` are
of the whole training and inference.

The tables are in the sweep's run: `tables.txt` among its artifacts, `report/report.html` with
verdicts and intervals. It has the best cell in `wsss.best_cell` (mean of `miou/fixed` over seeds),
and the number of cells per verdict in `verdicts/...`. The network of the best cell's first seed is
that trial's logged model: `mlflow.pytorch.load_model("runs:/RUN_ID/network")`, in a checkout of
this project.
"""


class SweepRuns(Tracked):
    """Describes the runs of one sweep."""

    kind, experiment, note = "sweep", EXPERIMENT, NOTE
    role, id_tag = "trial", RUN_ID
    shown = (MIOU, "miou/held_out", "miou/best_saw_gt", "miou/auc", "miou/paper_as_printed")

    def __init__(self, store: Store, sweep: Sweep) -> None:
        tables = " ".join(sweep.table_names)
        super().__init__(store, sweep.name, sweep, sweep.describe(), f"run {tables}")
        self.sweep = sweep
        self.params = {"tables": tables, "seeds": sweep.num_seeds, **sweep.base.flat()}

    @property
    def size(self) -> int:
        """The number of trials."""
        return len(self._trials)

    def report_says(self) -> Summary:
        """Return the number of cells per verdict."""
        from sweeps.report.tables.model import build_report

        return verdict_counts(build_report(self.sweep, self.store))

    def children(
        self, wanted: Collection[str] | None, running: Collection[str]
    ) -> Iterator[RunView]:
        """Yield the runs of these trials, or of all.

        If all are asked for and finished, the first trial of the best cell has its network.
        """
        kept = None
        if wanted is None and not self.left() and (best := self._best):
            kept = best[0][0]
        for run_id in self._trials if wanted is None else wanted:
            trial = self._trials[run_id]
            yield self._child(trial, running=run_id in running, keeps_network=trial is kept)

    def left(self) -> list[str | None]:
        """Return why trials failed that are not finished."""
        return [self.store.run(run).why_failed() for run in self._trials.keys() - self._finished()]

    def closing(self) -> Summary:
        """Return the tables, the best cell, and a calibration's outcome so far."""
        values: dict[str, float | None] = {"finished_trials": len(self._finished())}
        tags = {}
        if best := self._best:
            trials, values["miou/best_cell"] = best
            tags[BEST_CELL] = ", ".join(trials[0].cells)
        if verdict := calibration.read(self.store, self.sweep.name):
            tags[CALIBRATION] = verdict.outcome
        return Summary(
            values, tags=tags, texts={"tables.txt": render_tables(self.sweep, self.store)}
        )

    def _finished(self) -> dict[str, float]:
        """Return the mIoU at the fixed background score of finished trials, by run id."""
        found = {run_id: self.store.run(run_id).result() for run_id in self._trials}
        return {run_id: metrics["miou_fixed"] for run_id, metrics in found.items() if metrics}

    @property
    def _best(self) -> tuple[tuple[Trial, ...], float] | None:
        return best_configuration(self.sweep.plan, self._finished())

    @cached_property
    def _trials(self) -> dict[str, Trial]:
        return {trial.run_id: trial for trial in self.sweep.plan.trials}

    def _child(self, trial: Trial, *, running: bool, keeps_network: bool) -> RunView:
        run, cam = self.store.run(trial.run_id), self.store.cam(trial.cam_id)
        metrics, failure, epochs = run.result(), run.why_failed(), cam.epochs()
        return self.run(
            id=trial.run_id,
            key={RUN_ID: trial.run_id},
            name=trial.name,
            status=view.status(metrics, failure, running=running),
            started=bool(running or metrics or failure or epochs),
            tags={
                CAM_ID: trial.cam_id,
                ROLE: "trial",
                "wsss.cells": ", ".join(trial.cells),
                SWEEP: self.sweep.name,
            },
            current_tags=view.message_tags(
                (cam.warning(), find_dead_maps(epochs, trial.config)), failure
            ),
            params=trial.config.flat(),
            epochs={record["epoch"]: _figures(record) for record in epochs},
            at_end=self._at_end(trial, metrics, keeps_network=keeps_network) if metrics else None,
        )

    def _at_end(self, trial: Trial, metrics: dict[str, Any], *, keeps_network: bool) -> view.AtEnd:
        folder, cam = self.store.run(trial.run_id).path, self.store.cam(trial.cam_id)
        environment, num_classes = metrics["environment"], len(metrics["classes"])
        return view.AtEnd(
            mark=MIOU,
            values=_result_values(trial, metrics, self.sweep.plan.tables),
            tags={
                f"wsss.{key if key == 'code_version' else f'env.{key}'}": str(value)
                for key, value in environment.items()
            }
            | view.git_tags(environment["code_version"]),
            artifacts=(
                *((folder / name, "") for name in ARTIFACTS),
                *((cam.checkpoints / name, "checkpoint") for name in cam.checkpoint_names()[-1:]),
            ),
            network=partial(self._network, trial, num_classes) if keeps_network else None,
        )

    def _network(self, trial: Trial, num_classes: int) -> "CamNet":
        """Load a trial's network. Raises ForeseenError."""
        from sweeps.stages.train_cam import load_cam

        return load_cam(trial.config, self.store.cam(trial.cam_id), num_classes)


def verdict_counts(report: Report) -> Summary:
    """Return the number of cells of a report per verdict."""
    found = Counter(
        cell.verdict.word
        for table in report.tables
        for cell in table.cells.values()
        if cell.verdict
    )
    return Summary({f"verdicts/{word.replace(' ', '_')}": found[word] for word in Word})


def _result_values(trial: Trial, metrics: dict[str, Any], tables: Sequence[Table]) -> Values:
    """Return the metrics of a trial's done.json; None for those an older version did not score.

    mIoU and per-class IoU in percent.
    """
    cells = {reference: cell.paper for table in tables for reference, cell in table.cells()}
    printed = (cells[name] for name in trial.cells if cells[name] is not None)
    values = {
        MIOU: metrics["miou_fixed"],
        "miou/best_saw_gt": metrics["miou_best"],
        "miou/held_out": metrics.get("miou_held_out"),
        "miou/auc": area_under_curve(metrics["curve"], trial.config.labels),
        "miou/paper_as_printed": next(printed, None),
        "score/threshold_best_saw_gt": metrics["best_threshold"],
        "score/precision_fixed": metrics["precision_fixed"],
        "score/recall_fixed": metrics["recall_fixed"],
        "score/seconds_training": metrics["train_seconds"],
        "score/seconds_inference": metrics.get("inference_seconds"),
    }
    names = ("background", *metrics["classes"])
    ious = zip(names, metrics["iou_fixed"], strict=True)
    return values | {f"per_class_iou_fixed/{name}": iou for name, iou in ious}


def _figures(record: dict[str, Any]) -> Values:
    return {f"train/{key}": value for key, value in figures_of(record).items() if key != "epoch"}
