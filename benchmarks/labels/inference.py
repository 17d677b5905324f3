"""Multi-scale CAMs with flips against the usual loop: one image, one scale at a time.

Usage: python -m benchmarks.labels.inference [--threads 1]. The loop normalises in floats on the
CPU, runs batch norm on the activations, and resizes the maps of all 20 classes to full size before
it picks those that the image holds. Drawn pictures of 500 x 375; random weights.
"""

import argparse
import copy
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from benchmarks.pictures import voc_sized
from benchmarks.ratios import alternate, faster, show
from benchmarks.training.train_step import operations, with_plain_norms
from wsss.config import LabelsConfig, NetworkConfig
from wsss.data.voc import Sample
from wsss.gpu_check.trainings import NUM_CLASSES
from wsss.labels.infer import infer_cams
from wsss.method.cam import EPSILON
from wsss.method.views import IMAGENET_MEAN, IMAGENET_STD
from wsss.networks.cam_net import CamNet

SCALES = (0.5, 1.0, 1.5)
CPU = torch.device("cpu")
PRODUCT = 2048
"""Rows and columns of the matrices whose product stands for the processor's rate."""


def usual_loop(model: CamNet, samples: list[Sample]) -> list[NDArray[np.float32]]:
    """Return each image's CAMs [P, H, W] in [0, 1]."""
    found = []
    for sample in samples:
        image = Image.open(sample.image_path).convert("RGB")
        width, height = image.size
        total = torch.zeros(NUM_CLASSES, height, width)
        for scale in SCALES:
            size = (round(width * scale), round(height * scale))
            pixels = np.asarray(image.resize(size, Image.Resampling.BILINEAR)) / 255.0
            pixels = (pixels - IMAGENET_MEAN) / IMAGENET_STD
            x = torch.from_numpy(pixels.transpose(2, 0, 1).copy()).float()
            with torch.no_grad():
                cams = model(torch.stack([x, x.flip(2)])).cams.relu()
            both = (cams[0] + cams[1].flip(2)) / 2
            total += F.interpolate(both[None], (height, width), mode="bilinear")[0]
        kept = total[list(sample.labels)]
        found.append((kept / (kept.amax((1, 2), keepdim=True) + EPSILON)).numpy())
    return found


def compare(backbone: str, samples: list[Sample], *, four: bool = False) -> None:
    network = NetworkConfig(backbone=backbone, weights="none", feature_map="plain")
    torch.manual_seed(0)
    peer = CamNet(network, NUM_CLASSES).eval()
    ours = copy.deepcopy(peer).to(memory_format=torch.channels_last)
    with_plain_norms(peer)
    labels = LabelsConfig(scales=SCALES, resize="bilinear", upsampling="direct")  # as the loop

    def run(batch_size: int = 1) -> list[NDArray[np.float32]]:
        images = infer_cams(ours, samples, labels, device=CPU, batch_size=batch_size)
        return [image.cams for image in images]

    for one, other in zip(run(), usual_loop(peer, samples), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)
    name = f"multi-scale CAMs, {backbone}"
    faster(
        f"{name}: against the usual loop",
        run,
        lambda: usual_loop(peer, samples),
        goal=2,
        rounds=3 if len(samples) > 1 else 2,
    )
    if four:
        faster(f"{name}: one image at a time against four", run, lambda: run(4), rounds=3)


def rate_of_convolutions() -> None:
    """Show how close the network's plain forward is to the processor's limit."""
    network = NetworkConfig(backbone="resnet50", weights="none", feature_map="plain")
    model = CamNet(network, NUM_CLASSES).eval().to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 375, 500).contiguous(memory_format=torch.channels_last)
    square = torch.randn(PRODUCT, PRODUCT)
    with torch.inference_mode():
        counted = operations(lambda: model(x))
        pairs = alternate(lambda: model(x), lambda: square @ square, 3)
    shares = [counted / own / (2 * PRODUCT**3 / product) for own, product in pairs]
    show("operations a second of a ResNet-50's forward, against a matrix product's", shares)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--four", action="store_true", help="also four images in one forward")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    with tempfile.TemporaryDirectory(prefix="inference") as folder:
        samples = voc_sized(Path(folder) / "voc", 4).samples("train")
        compare("mobilenet_v2", samples, four=chosen.four)
        compare("resnet50", samples[:1])
    rate_of_convolutions()


if __name__ == "__main__":
    main()
