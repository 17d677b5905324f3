"""Segmentation networks in MLflow: one run each, tied to the CAM and the labels it came from."""

import logging
import time

import mlflow
from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient

from sweeps.chain import ChainConfig, ChainFolders
from sweeps.headline import Headline, chain_metrics, describe
from sweeps.store import Store
from sweeps.tracking import tracking_uri
from wsss.identity import cam_id, run_id
from wsss.training.checkpoint import CheckpointFolder
from wsss.training.segmentation import load_trained

EXPERIMENT = "wsss-segmentation"
PREDICTION_ID = "wsss.prediction_id"

logging.getLogger("mlflow").setLevel(logging.ERROR)


class HeadlineTracker:
    """Logs finished chains; nothing here raises, `problem` says what went wrong last."""

    def __init__(self, store: Store, headline: Headline) -> None:
        self.store, self.headline = store, headline
        self.uri = tracking_uri(store)
        self.problem: str | None = None

    def log(self, chain: ChainConfig) -> bool:
        """Log a finished chain once, the network with it; return whether MLflow has it."""
        try:
            self._log(chain)
        except Exception as error:  # whatever a tracking server does, the work goes on
            self.problem = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            return False
        return True

    def _log(self, chain: ChainConfig) -> None:
        client = MlflowClient(self.uri)
        experiment = self._experiment(client)
        wanted = f"tags.`{PREDICTION_ID}` = '{chain.prediction_id}'"
        found = client.search_runs([experiment], wanted, max_results=1)
        if found and found[0].info.status == "FINISHED":
            return
        run = found[0] if found else self._create(client, experiment, chain)
        metrics = chain_metrics(self.store, chain) or {}
        folders = ChainFolders(self.store.root, chain)
        values = {"miou/val": metrics["miou"], "miou/pixel_accuracy": metrics["pixel_accuracy"]}
        if metrics["labels_score"]:
            values["miou/labels_train"] = metrics["labels_score"]["miou"]
        values |= {f"per_class_iou/{name}": iou for name, iou in metrics["iou"].items()}
        now = int(time.time() * 1000)
        batch = [Metric(key, v, now, 0) for key, v in values.items() if v is not None]
        client.log_batch(run.info.run_id, metrics=batch)
        for name in ("metrics.json", "gallery.png"):
            client.log_artifact(run.info.run_id, str(folders.predictions / name))
        self._log_network(run.info.run_id, chain, folders, len(metrics["iou"]) - 1)
        client.set_terminated(run.info.run_id, "FINISHED")

    def _experiment(self, client: MlflowClient) -> str:
        found = client.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            return str(found.experiment_id)
        local = self.uri.startswith("sqlite:")
        location = (self.store.root / "mlartifacts").as_uri() if local else None
        return str(client.create_experiment(EXPERIMENT, artifact_location=location))

    def _create(self, client: MlflowClient, experiment: str, chain: ChainConfig):  # type: ignore[no-untyped-def]  # mlflow is untyped
        tags = {
            PREDICTION_ID: chain.prediction_id,
            "wsss.segmentation_id": chain.segmentation_id,
            "wsss.labels_id": chain.labels_id,
            "wsss.cam_id": cam_id(chain.run),
            "wsss.run_id": run_id(chain.run),
            "wsss.cam_cell": self.headline.cell,
            "mlflow.note.content": describe(self.headline),
        }
        run = client.create_run(experiment, run_name=f"{chain.name} -> DeepLabv2", tags=tags)
        settings = {f"segmentation.{k}": v for k, v in chain.segmentation.model_dump().items()}
        if chain.labels:
            settings |= {f"labels.{k}": v for k, v in chain.labels.model_dump().items()}
        client.log_batch(
            run.info.run_id, params=[Param(key, str(v)[:500]) for key, v in settings.items()]
        )
        return run

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
