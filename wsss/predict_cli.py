"""The command `wsss predict`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from wsss.errors import ForeseenError, explained


class NetworkFolderError(ForeseenError, RuntimeError):
    """A folder that holds no trained segmentation network."""


def predict(
    images: Annotated[list[Path], typer.Argument(help="pictures to segment", metavar="IMAGE...")],
    network: Annotated[
        Path,
        typer.Option(help="folder of a trained network: <store>/segmentations/<id>"),
    ],
    out: Annotated[Path, typer.Option(help="folder to write masks and overlays to")] = Path(
        "predictions"
    ),
) -> None:
    """Segment pictures of your own: a palette mask and an overlay each."""
    from wsss.predict import predict_images
    from wsss.segmentation_config import DeepLabConfig
    from wsss.training.checkpoint import CheckpointFolder
    from wsss.training.segmentation import load_trained

    with explained():
        path = network / "config.json"
        if not path.is_file():
            raise NetworkFolderError(
                f"{path}: missing; give a folder that `sweeps headline` trained in, "
                "<store>/segmentations/<id>"
            )
        saved = json.loads(path.read_text(encoding="utf-8"))
        config, classes = DeepLabConfig.model_validate(saved["segmentation"]), saved["classes"]
        model = load_trained(CheckpointFolder(network / "checkpoints"), config, len(classes))
        for found in predict_images(model, images, out, config, classes):
            shares = ", ".join(f"{name} {100 * part:.0f} %" for name, part in found.shares.items())
            print(f"{found.picture}: {found.mask}: {shares}")
