"""Multi-scale CAMs at full resolution, for the classes an image is known to hold (III-A).

Legend: P present classes of one image, H W its size, h w feature size.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from wsss.config import LabelsConfig
from wsss.data.loading import read_rgb
from wsss.data.voc import Sample
from wsss.method.cam import EPSILON
from wsss.method.views import normalise
from wsss.networks.cam_net import CamNet


class ImageCams(NamedTuple):
    """The CAMs of one image."""

    sample: Sample
    cams: NDArray[np.float32]
    """[P, H, W] in [0, 1], in the order of sample.labels."""


def infer_cams(
    model: CamNet, samples: Iterable[Sample], labels: LabelsConfig, *, device: torch.device
) -> Iterator[ImageCams]:
    """Yield each image's CAMs: ReLU, summed over scales and flips, over the maximum per class.

    Absent classes are never computed: the image-level labels are given in weak supervision.
    """
    model.to(device).eval()
    with torch.inference_mode():
        for sample in samples:
            image = read_rgb(sample)
            total = multi_scale_cams(model, image, sample.labels, labels, device=device)
            total /= total.amax((1, 2), keepdim=True) + EPSILON
            yield ImageCams(sample, total.cpu().numpy())


def multi_scale_cams(
    model: CamNet,
    image: Image.Image,
    classes: tuple[int, ...],
    labels: LabelsConfig,
    *,
    device: torch.device,
) -> Tensor:
    """Return the sum of an RGB image's ReLU'd CAMs over scales and flips: [P, H, W], unnormalised.

    Flips are averaged at feature resolution, which is the same, as resizing is linear.
    """
    width, height = image.size
    total = torch.zeros(len(classes), height, width, device=device)
    for scale in labels.scales:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        scaled = image if size == image.size else image.resize(size, Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(scaled)).to(device).permute(2, 0, 1)[None]
        x = normalise(pixels.float())
        if labels.flip:
            x = torch.cat([x, x.flip(3)])
        cams = model(x.contiguous(memory_format=torch.channels_last)).cams[:, list(classes)].relu()
        low = (cams[0] + cams[1].flip(2)) / 2 if labels.flip else cams[0]  # [P, h, w]
        total += F.interpolate(
            low[None], size=(height, width), mode="bilinear", align_corners=False
        )[0]
    return total
