"""The command `wsss predict`."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from wsss.basics.errors import ForeseenError, explained, let_through
from wsss.basics.printable import printable, quoted

if TYPE_CHECKING:
    from wsss.segmentation_config import DeepLabConfig


OWN_FOLDER = "give a folder that `sweeps headline` trained in: <store>/segmentations/<id>"


class Network(NamedTuple):
    """A trained segmentation network."""

    config: "DeepLabConfig"
    classes: tuple[str, ...]
    """Without the background."""
    stage: str
    """Id of the training whose checkpoints these are; "" if the folder does not say."""


class NetworkFolderError(ForeseenError, RuntimeError):
    """A folder that holds no trained segmentation network."""


def predict(
    images: Annotated[list[Path], typer.Argument(help="pictures to segment", metavar="IMAGE")],
    network: Annotated[
        Path, typer.Option(help="folder of a trained network: <store>/segmentations/<id>")
    ],
    out: Annotated[Path, typer.Option(help="folder to write masks and overlays to")] = Path(
        "predictions"
    ),
) -> None:
    """Segment pictures of your own: a palette mask and an overlay each.

    Pictures that cannot be read are named at the end; the others are segmented. Exit code: 1 if
    there are any, 2 if nothing could be started.
    """
    from wsss.labels.predict import Prediction, predict_images
    from wsss.training.checkpoint import CheckpointFolder
    from wsss.training.segmentation import load_trained

    bad = []
    with explained():
        config, classes, stage = read_network(network / "config.json")
        checkpoints = CheckpointFolder(network / "checkpoints", owner=stage)
        model = load_trained(checkpoints, config, len(classes))
        for found in predict_images(model, images, out, config, classes):
            if not isinstance(found, Prediction):
                bad.append(found)
                continue
            shares = ", ".join(f"{name} {100 * part:.0f} %" for name, part in found.shares.items())
            print(printable(f"{found.picture}: {found.mask}: {shares}"))
    for unreadable in bad:
        print(f"error: {printable(str(unreadable.error))}", file=sys.stderr)
    if bad:
        raise SystemExit(1)


def read_network(path: Path) -> Network:
    """Return what a network's config.json says. Raises NetworkFolderError."""
    from wsss.data.classes import CLASS_NAME, MAX_CLASSES
    from wsss.segmentation_config import DeepLabConfig

    if not path.is_file():
        raise NetworkFolderError(f"{path}: missing; {OWN_FOLDER}")
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        # Networks from before this setting were built with half the dilation, whatever its default.
        if "network" in saved:
            raise NetworkFolderError(
                f"{path}: belongs to a CAM network, which predicts no masks; {OWN_FOLDER}"
            )
        settings = {"first_block_dilation": "half"} | saved["segmentation"]
        config, classes = DeepLabConfig.model_validate(settings), saved["classes"]
        if not isinstance(classes, list) or not 1 <= len(classes) <= MAX_CLASSES:
            raise ValueError(f"classes are {quoted(classes)}")
        for name in classes:
            if not isinstance(name, str) or not CLASS_NAME.fullmatch(name):
                raise ValueError(f"{quoted(name)} is not the name of a class")
        if len(set(classes)) < len(classes):
            raise ValueError("a class is named twice")
        stage = saved.get("stage", "")
        if not isinstance(stage, str):
            raise TypeError(f"stage is {quoted(stage)}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        let_through(error, path)
        reason = printable(" ".join(f"{type(error).__name__}: {error}".split()))[:200]
        raise NetworkFolderError(
            f"{path}: not what `sweeps headline` writes ({reason}); get the folder again"
        ) from None
    return Network(config, tuple(classes), stage)
