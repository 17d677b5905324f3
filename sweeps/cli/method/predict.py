"""The command `wsss predict`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from wsss.basics.errors import ForeseenError
from wsss.basics.printable import printable

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

    wsss predict photo.jpg --network results/segmentations/<id>

    Pictures that cannot be read are named, and the others are segmented. Exit code: 1 if
    there are any, 2 if nothing could be started.
    """
    config, classes, stage = read_network(network / "config.json")  # before torch is loaded

    from wsss.labels.predict import Prediction, predict_images
    from wsss.training.checkpoint import CheckpointFolder
    from wsss.training.segmentation import load_trained

    bad = False
    checkpoints = CheckpointFolder(network / "checkpoints", owner=stage)
    model = load_trained(checkpoints, config, len(classes))
    for found in predict_images(model, images, out, config, classes):
        if isinstance(found, Prediction):
            shares = ", ".join(f"{name} {100 * x:.0f} %" for name, x in found.shares.items())
            print(printable(f"{found.picture}: {found.mask}: {shares}"))
        else:
            bad = True
            print(f"error: {printable(str(found))}", file=sys.stderr)
    if bad:
        raise SystemExit(1)


def read_network(path: Path) -> Network:
    """Return what a network's config.json says. Raises ForeseenError if it is no network's."""
    from sweeps.store.store import read_written
    from wsss.data.classes import require_class_names

    if not path.is_file():
        raise ForeseenError(f"{path}: missing; {OWN_FOLDER}")
    network = read_written(path, "sweeps headline", _network, OWN_FOLDER)
    require_class_names(network.classes, path)
    return network


def _network(saved: Any) -> Network:
    from pydantic import TypeAdapter

    from wsss.segmentation_config import DeepLabConfig

    # Networks from before this setting were built with half the dilation, whatever its default.
    settings = {"first_block_dilation": "half"} | saved["segmentation"]
    return Network(
        DeepLabConfig.model_validate(settings),
        TypeAdapter(tuple[str, ...]).validate_python(saved["classes"]),
        TypeAdapter(str).validate_python(saved.get("stage", "")),
    )
