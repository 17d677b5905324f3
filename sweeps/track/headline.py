"""Segmentation networks in MLflow: a run for the headline, and a child run per network.

Each child says by tags which CAMs, labels and networks it came from. A network that several
headlines share stays under the first; its tag `wsss.headlines` names them all.
"""

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.tracking import MlflowClient

from sweeps.plan.chain import ChainConfig, ChainFolders
from sweeps.plan.headline import Headline, chain_metrics, describe, source_of
from sweeps.report.headline.build import chain_ids
from sweeps.store.store import Store
from sweeps.track.client import experiment_of, find_run, open_client, reason, tracking_uri
from sweeps.track.tracker import EXPERIMENT as CAM_EXPERIMENT
from sweeps.track.tracker import MAX_PARAM_LENGTH, PARENT, RUN_ID
from wsss.identity import cam_id, run_id
from wsss.training.checkpoint import CheckpointFolder
from wsss.training.segmentation import load_trained

EXPERIMENT = "wsss-segmentation"
PREDICTION_ID = "wsss.prediction_id"
HEADLINE, HEADLINES = "wsss.headline", "wsss.headlines"
CAM_RUN = "wsss.cam_mlflow_run"

logging.getLogger("mlflow").setLevel(logging.ERROR)


class HeadlineTracker:
    """Logs finished chains; nothing here raises, `problem` says what went wrong last."""

    def __init__(self, store: Store, headline: Headline) -> None:
        self.store, self.headline = store, headline
        self.uri = tracking_uri(store)
        self.problem: str | None = None

    def log(self, chain: ChainConfig) -> bool:
        """Log a finished chain once, the network with it; return whether MLflow has it."""
        return self._attempt(lambda: self._log(chain))

    def log_report(self, folder: Path) -> bool:
        """Attach the report to the headline's run and end it; return whether MLflow has it."""
        return self._attempt(lambda: self._log_report(folder))

    def stop(self) -> bool:
        """Mark the headline's run as interrupted, if there is one."""
        return self._attempt(self._stop)

    def _attempt(self, step: Callable[[], None]) -> bool:
        try:
            step()
        except Exception as error:  # whatever a tracking server does, the work goes on
            self.problem = reason(error)
            return False
        return True

    def _log(self, chain: ChainConfig) -> None:
        client = open_client(self.uri)
        experiment = experiment_of(client, EXPERIMENT, self.store)
        parent = self._parent(client, experiment)
        run = find_run(client, experiment, {PREDICTION_ID: chain.prediction_id})
        if run is None:
            run = self._create(client, experiment, chain)
        self._log_lineage(client, run, chain, parent.info.run_id)
        if run.info.status == "FINISHED":
            return
        metrics = chain_metrics(self.store, chain) or {}
        folders = ChainFolders(self.store.root, chain)
        values = {"miou/val": metrics["miou"], "miou/pixel_accuracy": metrics["pixel_accuracy"]}
        if metrics["labels_score"]:
            values["miou/labels_train"] = metrics["labels_score"]["miou"]
        values |= {f"per_class_iou/{name}": iou for name, iou in metrics["iou"].items()}
        client.log_batch(run.info.run_id, metrics=_metrics(values))
        for name in ("done.json", "gallery.png"):
            client.log_artifact(run.info.run_id, str(folders.predictions / name))
        self._log_network(run.info.run_id, chain, folders, len(metrics["iou"]) - 1)
        client.set_terminated(run.info.run_id, "FINISHED")

    def _log_report(self, folder: Path) -> None:
        client = open_client(self.uri)
        parent = self._parent(client, experiment_of(client, EXPERIMENT, self.store)).info.run_id
        values = {}
        for chain in self.headline.chains:
            metrics = chain_metrics(self.store, chain) or {}
            values[f"miou_val/{source_of(chain)}"] = metrics.get("miou")
            labels = metrics.get("labels_score") or {}
            values[f"miou_labels_train/{source_of(chain)}"] = labels.get("miou")
        client.log_batch(parent, metrics=_metrics(values))
        client.log_artifacts(parent, str(folder), "report")
        client.set_terminated(parent, "FINISHED")

    def _stop(self) -> None:
        client = open_client(self.uri)
        run = find_run(
            client, experiment_of(client, EXPERIMENT, self.store), {HEADLINE: self.headline.name}
        )
        if run is not None and run.info.status == "RUNNING":
            client.set_terminated(run.info.run_id, "KILLED")

    def _parent(self, client: MlflowClient, experiment: str) -> Run:
        """Return the headline's run, running unless it had ended well."""
        name, sweep = self.headline.name, self.headline.sweep
        run = find_run(client, experiment, {HEADLINE: name})
        if run is not None:
            if run.info.status != "FINISHED":
                client.update_run(run.info.run_id, status="RUNNING")
            return run
        data = sweep.base.data
        tags = {
            HEADLINE: name,
            "wsss.role": "headline",
            "wsss.preset": sweep.preset,
            "wsss.data": f"{data.name}:{data.fingerprint}",
            "wsss.cam_cell": self.headline.cell,
            "wsss.choice": self.headline.choice,
            "wsss.networks": ", ".join(c.prediction_id for c in self.headline.chains),
            "mlflow.note.content": describe(self.headline),
        }
        return client.create_run(experiment, run_name=f"headline {name}", tags=tags)

    def _create(self, client: MlflowClient, experiment: str, chain: ChainConfig) -> Run:
        tags = {PREDICTION_ID: chain.prediction_id, "wsss.role": "segmentation"}
        run = client.create_run(experiment, run_name=f"{chain.name} -> DeepLabv2", tags=tags)
        settings: dict[str, Any] = {"refinement": source_of(chain), "eval_split": chain.eval_split}
        settings |= {f"segmentation.{k}": v for k, v in chain.segmentation.model_dump().items()}
        settings |= _label_settings(chain)
        params = [Param(key, str(v)[:MAX_PARAM_LENGTH]) for key, v in settings.items()]
        client.log_batch(run.info.run_id, params=params)
        return run

    def _log_lineage(self, client: MlflowClient, run: Run, chain: ChainConfig, parent: str) -> None:
        """Add the tags that say where a network came from, as far as the run lacks them."""
        known = run.data.tags
        tags = {f"wsss.{stage}_id": value for stage, value in chain_ids(chain)}
        tags["wsss.refinement"] = source_of(chain)
        tags["mlflow.note.content"] = describe(self.headline)
        tags[PARENT] = parent
        if chain.labels is not None:
            tags["wsss.cam_cell"] = self.headline.cell
            if CAM_RUN not in known and (cam := self._cam_run(client, chain)):
                tags[CAM_RUN] = cam
        tags = {key: value for key, value in tags.items() if key not in known}
        names = [name for name in known.get(HEADLINES, "").split(", ") if name]
        if self.headline.name not in names:
            tags[HEADLINES] = ", ".join([*names, self.headline.name])
        client.log_batch(run.info.run_id, tags=[RunTag(key, v) for key, v in tags.items()])

    def _cam_run(self, client: MlflowClient, chain: ChainConfig) -> str | None:
        """Return MLflow's id of the CAM's own run; None if no sweep has logged it."""
        experiment = client.get_experiment_by_name(CAM_EXPERIMENT)
        if experiment is None:
            return None
        wanted = ({RUN_ID: run_id(chain.run)}, {"wsss.cam_id": cam_id(chain.run)})
        found = (find_run(client, experiment.experiment_id, tags) for tags in wanted)
        return next((str(run.info.run_id) for run in found if run is not None), None)

    def _log_network(
        self, run: str, chain: ChainConfig, folders: ChainFolders, num_classes: int
    ) -> None:
        """Log the network so that `mlflow.pytorch.load_model` gives it back."""
        checkpoints = CheckpointFolder(folders.segmentation / "checkpoints")
        model = load_trained(checkpoints, chain.segmentation, num_classes)
        before = mlflow.get_tracking_uri()
        mlflow.set_tracking_uri(self.uri)
        try:
            with mlflow.start_run(run_id=run):
                mlflow.pytorch.log_model(model, name="network", serialization_format="pickle")
        finally:
            mlflow.set_tracking_uri(before)


def _metrics(values: dict[str, float | None]) -> list[Metric]:
    now = int(time.time() * 1000)
    return [
        Metric(key, value, now, 0)
        for key, value in values.items()
        if value is not None and math.isfinite(value)
    ]


def _label_settings(chain: ChainConfig) -> dict[str, Any]:
    """Return the label settings with dotted names, without the groups that are not used."""
    if chain.labels is None:
        return {}
    used = {"crf": "crf" in chain.labels.refinement, "random_walk": chain.walks,
            "pamr": chain.labels.refinement == "pamr"}  # fmt: skip
    settings: dict[str, Any] = {}
    for key, value in chain.labels.model_dump(exclude={"refinement"}).items():
        if not isinstance(value, dict):
            settings[f"labels.{key}"] = value
        elif used[key]:
            settings |= {f"labels.{key}.{name}": inner for name, inner in value.items()}
    return settings
