"""Multi-scale CAMs at full resolution, for the classes an image is known to hold (III-A).

Legend: P present classes of one image, H W its size, h w feature size.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsss.config import LabelsConfig
from wsss.data.loading.crops import resized, scaled_size, stack_images
from wsss.data.pictures.image import read_image
from wsss.data.voc import Sample
from wsss.method.cam import EPSILON
from wsss.method.views import normalise
from wsss.networks.backbone import resized_map
from wsss.networks.cam_net import CamNet
from wsss.networks.precision import forward_in

WINDOW = 32
"""Images decoded ahead, to find some of equal size."""


class ImageCams(NamedTuple):
    """The CAMs of one image."""

    sample: Sample
    cams: NDArray[np.float32]
    """[P, H, W] in [0, 1], in the order of sample.labels."""


def infer_cams(
    model: CamNet,
    samples: Iterable[Sample],
    labels: LabelsConfig,
    *,
    device: torch.device,
    batch_size: int | None = None,
) -> Iterator[ImageCams]:
    """Yield each image's CAMs: ReLU, summed over scales and flips, divided by each class's maximum.

    Only of the present classes: image-level labels are given in weak supervision. Up to
    `batch_size` images of equal size share a forward; None: `images_at_once`. The order of
    `samples` is kept.
    """
    batch_size = batch_size or images_at_once(device)
    model.to(device).eval()
    with torch.inference_mode():
        remaining = iter(samples)
        while window := list(itertools.islice(remaining, 1 if batch_size == 1 else WINDOW)):
            images = [read_image(sample.image_path) for sample in window]
            found: dict[int, Tensor] = {}
            for places in same_size(images, batch_size):
                totals = multi_scale_cams(
                    model,
                    [images[place] for place in places],
                    [window[place].labels for place in places],
                    labels,
                    device=device,
                )
                found |= zip(places, totals, strict=True)
            for place, sample in enumerate(window):
                total = found.pop(place)
                total /= total.amax((1, 2), keepdim=True) + EPSILON
                yield ImageCams(sample, total.cpu().numpy())


def images_at_once(device: torch.device) -> int:
    """Return how many images of one size share a forward: 8 on a GPU, 1 on a CPU.

    A single image fills a CPU's cores, and batches were not faster there (docs/performance.md).
    """
    return 8 if device.type == "cuda" else 1


def same_size(images: Sequence[Tensor], batch_size: int) -> list[list[int]]:
    """Return the indices of images in groups of equal size, at most `batch_size` in each."""
    places: dict[torch.Size, list[int]] = {}
    for place, image in enumerate(images):
        places.setdefault(image.shape, []).append(place)
    return [
        group[start : start + batch_size]
        for group in places.values()
        for start in range(0, len(group), batch_size)
    ]


def multi_scale_cams(
    model: CamNet,
    images: Sequence[Tensor],
    classes: Sequence[tuple[int, ...]],
    labels: LabelsConfig,
    *,
    device: torch.device,
) -> list[Tensor]:
    """Return the sums of RGB images' CAMs after a ReLU over scales and flips, unnormalised.

    images: uint8 or float [3, H, W] in 0..255, all of one size, which share each forward. classes:
    of each image, 0-based. Returns [P, H, W] per image. Flips are added at feature resolution, as
    IRN does.
    """
    height, width = images[0].shape[1:]
    enlarged = height, width
    if labels.upsampling == "multiple_of_16":  # each cell covers 16 pixels (IRN's strided_up_size)
        enlarged = -(-height // 16) * 16, -(-width // 16) * 16  # cut to the image afterwards
    totals = [torch.zeros(len(present), height, width, device=device) for present in classes]
    # Made once: each copy to a GPU waits for the work that is queued there.
    channels = [torch.tensor(present, device=device) for present in classes]
    for scale in labels.scales:
        size = scaled_size(height, width, scale)
        x = normalise(resized(stack_images(images), size, labels.resize).to(device).float())
        if labels.flip:
            x = torch.cat([x, x.flip(3)])
        with forward_in(device, labels.precision):
            cams = model(x.contiguous(memory_format=torch.channels_last)).cams.relu()
        if labels.flip:
            straight, mirrored = cams.chunk(2)
            cams = straight + mirrored.flip(3)
        for total, low, chosen in zip(totals, cams, channels, strict=True):
            large = resized_map(low[None, chosen], enlarged)[0]
            total.add_(large[:, :height, :width])
    return totals
