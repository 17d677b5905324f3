"""From a CAM configuration to a segmentation network: the stages and their ids.

    <root>/counts/<counts_id>/                   pixels of the scored images, counted
    <root>/maps/<maps_id>/<image>.npz            CAMs of the training images
    <root>/walks/<walk_id>/                      affinity network; maps/: CAMs after the walk
    <root>/labels/<labels_id>/png/<image>.png    label maps
    <root>/segmentations/<segmentation_id>/      checkpoints of DeepLab
    <root>/predictions/<prediction_id>/          png/, image_counts.npz, gallery.png; export/

An id covers what its stage depends on and nothing else: another refinement does not infer CAMs
again, other DeepLab settings do not make labels again, other test scales do not train again.
"""

import hashlib
import json
from functools import cache
from typing import Any

from wsss.config import FileName, LabelsConfig, RunConfig, Settings
from wsss.identity import ID_LENGTH, cam_id, run_id
from wsss.segmentation_config import DeepLabConfig, PseudoLabelConfig, RandomWalkConfig

TEST_SETTINGS = {"test_scales", "test_flip", "test_crf"}


class ChainConfig(Settings):
    """One way from images to a segmentation network."""

    run: RunConfig
    labels: PseudoLabelConfig | None
    """None: trained on the true masks, an upper bound that needs pixel ground truth."""
    segmentation: DeepLabConfig
    eval_split: FileName = "val"
    fingerprints: tuple[tuple[FileName, FileName], ...] = ()
    """Of each predicted split: its name, and a digest of its list, images and masks."""
    labelled_split: FileName | None = None
    """Split that gets pseudo-labels and trains the affinity network; None: the CAM network's
    training split."""

    @property
    def label_split(self) -> str:
        """Name of the split that gets pseudo-labels."""
        return self.labelled_split or self.run.data.train_split

    @property
    def walks(self) -> bool:
        """Whether a random walk is part of it."""
        return self.labels is not None and self.labels.walks

    @property
    def random_walk(self) -> RandomWalkConfig:
        """Settings of the random walk."""
        return self.labels.random_walk if self.labels else RandomWalkConfig()

    @property
    def maps_id(self) -> str:
        """Id of the CAMs of the training images."""
        return _digest({"cam": cam_id(self.run)} | _inference(self.run.labels))

    @property
    def walk_id(self) -> str:
        """Id of the CAMs after the random walk."""
        other = {"split": self.labelled_split} if self.labelled_split else {}
        return _digest(
            {"maps": self.maps_id, "walk": self.random_walk.model_dump(mode="json")} | other
        )

    @property
    def labels_id(self) -> str:
        """Id of the label maps."""
        if self.labels is None:
            return _digest({"masks": self.run.data.model_dump(mode="json")})
        source = self.walk_id if self.walks else self.maps_id
        return _digest({"cams": source, "labels": _live(self.labels)})

    @property
    def segmentation_id(self) -> str:
        """Id of the trained segmentation network."""
        settings = _live_segmentation(self.segmentation)
        return _digest({"labels": self.labels_id, "segmentation": settings})

    @property
    def prediction_id(self) -> str:
        """Id of its predictions on the evaluation split and of their scores."""
        settings = self.segmentation.model_dump(mode="json", include=TEST_SETTINGS)
        split = self.eval_split, dict(self.fingerprints).get(self.eval_split)
        data = self.run.data
        masks = [data.eval_split, data.fingerprint] if self.labels else []  # that score the labels
        return _digest(
            {"network": self.segmentation_id, "test": settings, "split": split, "scored": masks}
        )

    def ids(self) -> dict[str, str]:
        """Return the ids of its stages by name, from the CAMs to the predictions."""
        made_from = {}
        if self.labels:
            made_from = {"cam": cam_id(self.run), "run": run_id(self.run), "maps": self.maps_id}
        if self.walks:
            made_from["walk"] = self.walk_id
        return made_from | {
            "labels": self.labels_id,
            "segmentation": self.segmentation_id,
            "prediction": self.prediction_id,
        }

    @property
    def name(self) -> str:
        """The source of the labels, in words."""
        if self.labels is None:
            return "true masks (supervised bound)"
        return {
            "none": "CAM",
            "crf": "CAM + dense CRF",
            "pamr": "CAM + PAMR",
            "random_walk": "CAM + random walk",
            "random_walk_crf": "CAM + random walk + dense CRF",
        }[self.labels.refinement]


def counts_id(config: RunConfig) -> str:
    """Return the id of a training's counted pixels."""
    return _digest({"cam": cam_id(config), "counted": inference_key(config)})


def inference_key(config: RunConfig) -> str:
    """Return, as JSON, all that a training's counts depend on: inference, images, thresholds.

    A background score off the .01 grid has its own grid.
    """
    data = config.data
    settings: dict[str, Any] = {"data": data.fingerprint, "eval_split": data.eval_split}
    settings |= _inference(config.labels)
    if not _is_on_grid(config.labels.background_score):
        settings["off_grid"] = config.labels.background_score
    return json.dumps(settings, sort_keys=True)


def _inference(labels: LabelsConfig) -> dict[str, Any]:
    """Return the settings that affect the CAMs of a given network.

    Besides `scales` and `flip`, only settings that differ from their defaults count, so that a new
    setting changes no earlier id.
    """
    cut = {"background_score", "threshold_range"}  # they affect what is made of the CAMs
    other = labels.model_dump(mode="json", exclude_defaults=True, exclude=cut)
    return other | {"scales": labels.scales, "flip": labels.flip}


@cache
def _is_on_grid(background_score: float) -> bool:
    if background_score < 0.995 and background_score == round(background_score, 2):
        return True  # a hundredth: decided without NumPy, so that planning starts fast
    from wsss.evaluation.confusion import threshold_grid

    return len(threshold_grid(background_score)) == len(threshold_grid(0.0))


def _live(labels: PseudoLabelConfig) -> dict[str, Any]:
    """Return the settings that affect labels made from given CAMs.

    The random walk is not among them: it is part of the CAMs' id.
    """
    unused = {"random_walk"}
    if "crf" not in labels.refinement:
        unused.add("crf")
    if labels.refinement != "pamr":
        unused.add("pamr")
    if labels.background == "fixed":
        unused |= {"confident_foreground", "confident_background"}
        unused.add("background_score" if labels.walks else "walked_background_score")
    else:
        unused |= {"background_score", "walked_background_score"}
    return labels.model_dump(mode="json", exclude=unused)


def _live_segmentation(segmentation: DeepLabConfig) -> dict[str, Any]:
    """Return the settings that affect a network trained on given labels."""
    unused = set(TEST_SETTINGS)
    if (segmentation.backbone, segmentation.output_stride) == ("resnet10_narrow", 16):
        unused.add("first_block_dilation")  # its last stage has no stride to lose
    if segmentation.weight_decay == 0:
        unused.add("head_bias_decay")
    if segmentation.lr_step >= segmentation.iterations:
        unused |= {"lr_step", "poly_power"}  # the rate never changes
    return segmentation.model_dump(mode="json", exclude=unused)


def _digest(settings: dict[str, Any]) -> str:
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:ID_LENGTH]
