"""The runs of a headline: a parent, and a child per segmentation network.

Tags of each child say which CAMs, labels and networks it came from. A network that several
headlines share stays under the first one; its tag `wsss.headlines` names all of them.
"""

from collections.abc import Collection, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from sweeps.plan.chains.chain import ChainConfig
from sweeps.plan.chains.headline import Headline, chain_metrics, describe, source_of
from sweeps.store.rooms import DONE
from sweeps.store.store import Store
from sweeps.track import view
from sweeps.track.view import ROLE, RunView, Summary, Tracked
from wsss.segmentation_config import PseudoLabelConfig

if TYPE_CHECKING:
    from wsss.networks.deeplab import DeepLab

PREDICTION_ID = "wsss.prediction_id"
HEADLINES = "wsss.headlines"
CAM_CELL = "wsss.cam_cell"
MIOU, LABELS_MIOU = "miou/val", "miou/labels_train"
ARTIFACTS = (DONE, "gallery.png")


NOTE = """\
Segmentation networks trained on refined pseudo-labels: Tables I and II. A run with the tag
`wsss.role` = `segmentation` is one network, `headline` the run above those of one `sweeps
headline`.

mIoU and IoU per class are in percent, background included. `miou/val`: of the network, on the
images of the split `eval_split`; `miou/labels_train`: of the labels that it was trained on;
`miou/pixel_accuracy`: pixels that the network labels right. The tables are in the headline's run,
`report/headline.html`.

Each network is a logged model: `mlflow.pytorch.load_model("runs:/RUN_ID/network")`, in a checkout
of this project.
"""


class HeadlineRuns(Tracked):
    """Describes the runs of one headline."""

    kind, experiment, note = "headline", "wsss-segmentation", NOTE
    role, id_tag, shown = "segmentation", PREDICTION_ID, (MIOU, LABELS_MIOU)

    def __init__(self, store: Store, headline: Headline) -> None:
        super().__init__(store, headline.name, headline.sweep, describe(headline), "headline")
        self.headline = headline
        self.parent_tags = {
            CAM_CELL: headline.cell,
            "wsss.choice": headline.choice,
            "wsss.networks": ", ".join(c.prediction_id for c in headline.chains),
        }

    def children(
        self, wanted: Collection[str] | None, running: Collection[str]
    ) -> Iterator[RunView]:
        """Yield the runs of these networks, by prediction id, or of all."""
        for chain in self.headline.chains:
            if wanted is None or chain.prediction_id in wanted:
                yield self._child(chain, running=chain.prediction_id in running)

    @property
    def size(self) -> int:
        """The number of networks."""
        return len(self.headline.chains)

    def left(self) -> list[str | None]:
        """Return why networks failed that are not scored."""
        chains = self.headline.chains
        return [self._why_failed(chain) for chain in chains if not chain_metrics(self.store, chain)]

    def closing(self) -> Summary:
        """Return the mIoU of every network and of its labels."""
        values: dict[str, float | None] = {}
        for chain in self.headline.chains:
            metrics = chain_metrics(self.store, chain) or {}
            values[f"miou_val/{source_of(chain)}"] = metrics.get("miou")
            labels = metrics.get("labels_score") or {}
            values[f"miou_labels_train/{source_of(chain)}"] = labels.get("miou")
        return Summary(values)

    def _why_failed(self, chain: ChainConfig) -> str | None:
        from sweeps.stages.export import end_stages

        return self.store.folder(end_stages(self.headline, chain)[-1].rel).why_failed()

    def _child(self, chain: ChainConfig, *, running: bool) -> RunView:
        metrics, failure = chain_metrics(self.store, chain), self._why_failed(chain)
        lineage = {f"wsss.{stage}_id": stage_id for stage, stage_id in chain.ids().items()}
        if chain.labels is not None:
            lineage[CAM_CELL] = self.headline.cell
        return self.run(
            id=chain.prediction_id,
            key={PREDICTION_ID: chain.prediction_id},
            name=f"{chain.name} -> DeepLabv2",
            status=view.status(metrics, failure, running=running),
            started=bool(running or metrics or failure),
            tags={**lineage, ROLE: self.role, "wsss.refinement": source_of(chain)},
            current_tags=view.message_tags((), failure),
            list_tags={HEADLINES: self.headline.name},
            params={
                "refinement": source_of(chain),
                "eval_split": chain.eval_split,
                **{f"segmentation.{k}": v for k, v in chain.segmentation.model_dump().items()},
                **_label_settings(chain.labels),
            },
            data=chain.run.data.model_copy(update={"eval_split": chain.eval_split}),
            at_end=self._at_end(chain, metrics) if metrics else None,
        )

    def _at_end(self, chain: ChainConfig, metrics: dict[str, Any]) -> view.AtEnd:
        predictions = self.store.folder(f"predictions/{chain.prediction_id}").path
        num_classes = len(metrics["iou"]) - 1  # without the background
        return view.AtEnd(
            mark=MIOU,
            values={
                MIOU: metrics["miou"],
                "miou/pixel_accuracy": metrics["pixel_accuracy"],
                LABELS_MIOU: (metrics["labels_score"] or {}).get("miou"),
                **{f"per_class_iou/{name}": iou for name, iou in metrics["iou"].items()},
            },
            artifacts=tuple((predictions / name, "") for name in ARTIFACTS),
            network=partial(self._network, chain, num_classes),
        )

    def _network(self, chain: ChainConfig, num_classes: int) -> "DeepLab":
        """Load a chain's network, downloaded if need be. Raises ForeseenError."""
        from wsss.training.checkpoint import CheckpointFolder
        from wsss.training.segmentation import load_trained

        folder = self.store.folder(f"segmentations/{chain.segmentation_id}")
        folder.pull_training()
        return load_trained(CheckpointFolder(folder.checkpoints), chain.segmentation, num_classes)


def _label_settings(labels: PseudoLabelConfig | None) -> dict[str, Any]:
    """Return the label settings with dotted names, without groups that have no effect."""
    settings: dict[str, Any] = {}
    for key, value in labels.model_dump(exclude={"refinement"}).items() if labels else ():
        if not isinstance(value, dict):
            settings[f"labels.{key}"] = value
        elif labels and key in labels.refinement:  # e.g. crf in random_walk_crf
            settings |= {f"labels.{key}.{name}": inner for name, inner in value.items()}
    return settings
