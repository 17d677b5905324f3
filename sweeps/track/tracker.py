"""MLflow as a view of the store: a sweep's runs.

Everything logged is read from the store, so a tracking server that was away loses nothing: `sync`
logs whatever a run still lacks. Runs are found by tag, hence one MLflow run per trial whatever
happened. Nothing here raises into a sweep; `problem` says what went wrong last.
"""

import json
import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.tracking import MlflowClient

from sweeps.evidence import calibration
from sweeps.plan.sweep import Sweep
from sweeps.plan.trials import Trial
from sweeps.report.live.render import render_tables
from sweeps.store.store import Store, write_json
from sweeps.track.client import experiment_of, find_run, open_client, reason, tracking_uri
from sweeps.track.values import AUC, MIOU, result_values
from wsss.training.dead_maps import find_dead_maps

EXPERIMENT = "wsss"
RUN_ID, SWEEP, PARENT = "wsss.run_id", "wsss.sweep", "mlflow.parentRunId"
EPOCH = "train/epoch"
CALIBRATION = "wsss.calibration"
WARNING = "wsss.warning"
"""Tag of a run whose training is not clearly below the label prior."""
MAX_PARAM_LENGTH = 500


class Tracker:
    """Logs one sweep: a parent run, and a child run per trial."""

    def __init__(self, store: Store, sweep: Sweep) -> None:
        self.store, self.sweep = store, sweep
        self.uri = tracking_uri(store)
        self.problem: str | None = None
        self._client: MlflowClient | None = None
        self._experiment_id = ""
        self._parent_id = ""
        self._mlflow_ids: dict[str, str] = {}
        """Run id -> MLflow's id of the run, of the trials seen so far."""
        self._parent_status = "KILLED"
        """Before this process: RUNNING, FINISHED, or KILLED for one that was not finished."""

    def sync(self, trials: Iterable[Trial], *, running: frozenset[str] = frozenset()) -> bool:
        """Log what MLflow lacks of these trials; `running` holds the run ids now at work.

        Returns whether MLflow is up to date with the store; if not, `problem` says why.
        """
        try:
            self._connect()
            for trial in trials:
                self._sync_trial(trial, running=trial.run_id in running)
        except Exception as error:  # whatever a tracking server does, the sweep goes on
            self.problem = reason(error)
            self._client = None
            return False
        self.problem = None
        return True

    def finish(self, *, status: str) -> bool:
        """Log the tables, and a calibration's outcome, as they stand; end the parent run so."""
        try:
            client = self._connect()
            finished = [trial for trial in self.sweep.plan.trials if self._metrics(trial)]
            client.log_metric(self._parent_id, "finished_trials", len(finished))
            client.log_text(self._parent_id, render_tables(self.sweep, self.store), "tables.txt")
            if verdict := calibration.read(self.store, self.sweep.name):
                client.set_tag(self._parent_id, CALIBRATION, verdict.outcome)
            client.set_terminated(self._parent_id, status)
            self._note_addresses()
        except Exception as error:
            self.problem = reason(error)
            return False
        return True

    def log_report(self, folder: Path) -> bool:
        """Attach a folder of report files to the sweep's run, whose status stays what it was."""
        try:
            client = self._connect()
            client.log_artifacts(self._parent_id, str(folder), "report")
            if self._parent_status != "RUNNING":  # else a driver is at work, and ends it
                client.set_terminated(self._parent_id, self._parent_status)
        except Exception as error:
            self.problem = reason(error)
            return False
        return True

    def _note_addresses(self) -> None:
        """Write down where the runs are, so that a report can link to them without MLflow."""
        found = {"uri": self.uri, "experiment_id": self._experiment_id, "runs": self._mlflow_ids}
        write_json(self.store.sweep(self.sweep.name) / "mlflow.json", found)

    def _metrics(self, trial: Trial) -> dict[str, Any] | None:
        return self.store.run(trial.run_id).metrics()

    def _connect(self) -> MlflowClient:
        """Return the client, with the experiment and the sweep's parent run in place."""
        if self._client is not None:
            return self._client
        client = open_client(self.uri)
        kind = {"mlflow.experimentKind": "custom_model_development"}
        self._experiment_id = experiment_of(client, EXPERIMENT, self.store, tags=kind)
        self._client = client
        parent = self._find({SWEEP: self.sweep.name, "wsss.role": "sweep"})
        if parent is None:
            parent = client.create_run(
                self._experiment_id,
                run_name=f"sweep {self.sweep.name}",
                tags={
                    SWEEP: self.sweep.name,
                    "wsss.role": "sweep",
                    "mlflow.note.content": self.sweep.describe(),
                    **self._common_tags(),
                },
            )
        else:
            self._parent_status = parent.info.status
            client.update_run(parent.info.run_id, status="RUNNING")
        self._parent_id = parent.info.run_id
        return client

    def _common_tags(self) -> dict[str, str]:
        data = self.sweep.base.data
        return {
            "wsss.preset": self.sweep.preset,
            "wsss.data": f"{data.name}:{data.fingerprint}",
            "mlflow.source.name": f"sweeps run {' '.join(self.sweep.table_names)}",
            "mlflow.source.type": "LOCAL",
        }

    def _find(self, tags: dict[str, str]) -> Run | None:
        assert self._client is not None
        return find_run(self._client, self._experiment_id, tags)

    def _run_of(self, trial: Trial) -> Run | None:
        """Return a trial's run. A search takes longer the more runs there are; an id is direct."""
        if known := self._mlflow_ids.get(trial.run_id):
            run = self._connect().get_run(known)
            if run.info.lifecycle_stage == "active":
                return run
        return self._find({RUN_ID: trial.run_id})

    def _sync_trial(self, trial: Trial, *, running: bool) -> None:
        client = self._connect()
        metrics, failure = self._metrics(trial), self.store.run(trial.run_id).failure()
        epochs = self.store.cam(trial.cam_id).epochs()
        run = self._run_of(trial)
        if run is None:
            if not (running or metrics or failure or epochs):
                return  # not started: MLflow shows runs, not plans
            run = self._create(trial)
        self._mlflow_ids[trial.run_id] = run.info.run_id
        run_id, status = run.info.run_id, _status(running, metrics, failure)
        if run.info.status == status == "FINISHED" and MIOU in run.data.metrics:
            if AUC not in run.data.metrics:
                client.log_metric(run_id, AUC, result_values(trial, metrics or {})[AUC])
            return
        self._log_epochs(run, epochs)
        warnings = (self.store.cam(trial.cam_id).warning(), find_dead_maps(epochs, trial.config))
        self._tag_warning(run, "" if failure else "; ".join(str(w) for w in warnings if w))
        if metrics:
            self._log_result(run_id, trial, metrics)
        if metrics and "wsss.failure" in run.data.tags:
            client.delete_tag(run_id, "wsss.failure")
        if failure:
            client.set_tag(run_id, "wsss.failure", f"{failure['kind']}: {failure['message']}"[:400])
        if status == "RUNNING":
            if run.info.status != "RUNNING":
                client.update_run(run_id, status="RUNNING")
        else:
            client.set_terminated(run_id, status)

    def _tag_warning(self, run: Run, warning: str) -> None:
        """Tag a run with what its training is warned of; "": with nothing, whatever it had."""
        if warning:
            self._connect().set_tag(run.info.run_id, WARNING, warning[:400])
        elif WARNING in run.data.tags:
            self._connect().delete_tag(run.info.run_id, WARNING)

    def _create(self, trial: Trial) -> Run:
        client = self._connect()
        run = client.create_run(
            self._experiment_id,
            run_name=trial.name,
            tags={
                RUN_ID: trial.run_id,
                "wsss.cam_id": trial.cam_id,
                "wsss.role": "trial",
                "wsss.cells": ", ".join(trial.cells),
                SWEEP: self.sweep.name,
                PARENT: self._parent_id,
                **self._common_tags(),
                "mlflow.note.content": self.sweep.describe(),
            },
        )
        params = [
            Param(key, str(value)[:MAX_PARAM_LENGTH]) for key, value in trial.config.flat().items()
        ]
        client.log_batch(run.info.run_id, params=params)
        client.log_inputs(run.info.run_id, datasets=[self._dataset()])
        return run

    def _dataset(self) -> DatasetInput:
        """Return the data set's name and fingerprint as MLflow shows them beside a run."""
        data, source = self.sweep.base.data, json.dumps({"uri": str(self.sweep.data)})
        dataset = Dataset(data.name, data.fingerprint, source_type="local", source=source)
        return DatasetInput(dataset, [InputTag("mlflow.data.context", data.train_split)])

    def _log_epochs(self, run: Run, epochs: list[dict[str, Any]]) -> None:
        """Log the epochs behind the last one that MLflow has."""
        logged = run.data.metrics.get(EPOCH, 0)
        now = int(time.time() * 1000)
        batch = []
        for record in epochs:
            if record["epoch"] <= logged:
                continue
            for key, value in sorted(record.items(), key=lambda item: item[0] == "epoch"):
                if isinstance(value, (int, float)) and math.isfinite(value):
                    batch.append(Metric(f"train/{key}", float(value), now, record["epoch"]))
        for start in range(0, len(batch), 1000):
            self._connect().log_batch(run.info.run_id, metrics=batch[start : start + 1000])

    def _log_result(self, run_id: str, trial: Trial, metrics: dict[str, Any]) -> None:
        """Log the artifacts, then the score: a run that has its score is complete."""
        client = self._connect()
        folder, cam = self.store.run(trial.run_id).path, self.store.cam(trial.cam_id)
        for name in ("config.json", "done.json", "threshold_curve.png", "cam_gallery.png"):
            client.log_artifact(run_id, str(folder / name))
        checkpoints = sorted(cam.checkpoints.glob("epoch_*.pt"))
        if checkpoints:
            client.log_artifact(run_id, str(checkpoints[-1]), "checkpoint")
        now = int(time.time() * 1000)
        batch = [
            Metric(key, float(value), now, 0)
            for key, value in result_values(trial, metrics).items()
            if value is not None and math.isfinite(value)
        ]
        environment = [
            RunTag(f"wsss.{key if key == 'code_version' else f'env.{key}'}", str(value))
            for key, value in metrics["environment"].items()
        ]
        client.log_batch(run_id, metrics=batch, tags=environment)


def _status(running: bool, metrics: Any, failure: Any) -> str:  # noqa: FBT001
    if metrics:
        return "FINISHED"
    if running:
        return "RUNNING"
    return "FAILED" if failure else "KILLED"
