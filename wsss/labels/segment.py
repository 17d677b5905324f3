"""Label probabilities of whole images by the segmentation network, and label maps as PNGs.

Legend: L labels (background and K classes), H W image size, h w feature size.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsss.data.classes import voc_palette
from wsss.data.errors import DataError
from wsss.data.loading.crops import resized, scaled_size
from wsss.data.pictures.image import as_array, read_image
from wsss.data.pictures.mask import write_label_png
from wsss.data.voc import Sample
from wsss.labels.refine.crf import dense_crf
from wsss.method.views import normalise
from wsss.networks.backbone import resized_map
from wsss.networks.deeplab import DeepLab
from wsss.networks.precision import forward_in
from wsss.segmentation_config import CrfConfig, DeepLabConfig


def segment_image(
    model: DeepLab, image: Tensor, config: DeepLabConfig, *, device: torch.device
) -> NDArray[np.float32]:
    """Return the label probabilities [L, H, W] of an RGB image, uint8 [3, H, W]; they sum to 1.

    model: on `device`, in evaluation mode. With `config.test_crf` a dense CRF refines them. Raises
    DataError for NaN, which a network that has diverged gives.
    """
    with torch.inference_mode():
        probs = multi_scale_probs(model, image, config, device=device).cpu().numpy()
    if np.isnan(probs).any():  # else all of the image would be background
        raise DataError(
            "a label's probability is NaN: the network's weights are broken; train it again with a "
            f"lower lr (now {config.lr})"
        )
    return crf_refined(as_array(image), probs) if config.test_crf else probs


def multi_scale_probs(
    model: DeepLab, image: Tensor, config: DeepLabConfig, *, device: torch.device
) -> Tensor:
    """Return the mean over scales and flips of the softmax at the image's size: [L, H, W].

    (DeepLabv2 takes the maximum of the scores over scales; the weakly supervised code that followed
    takes this mean.)
    """
    height, width = image.shape[1:]
    total = torch.zeros(model.num_labels, height, width, device=device)
    for scale in config.test_scales:
        size = scaled_size(height, width, scale)
        x = normalise(resized(image, size, "bilinear").to(device)[None].float())
        if config.test_flip:
            x = torch.cat([x, x.flip(3)])
        with forward_in(device, config.precision):
            logits = model(x.contiguous(memory_format=torch.channels_last))  # [1 or 2, L, h, w]
        for flipped, low in enumerate(logits):
            low = low.flip(2) if flipped else low  # noqa: PLW2901
            total += resized_map(low[None], (height, width))[0].softmax(0)
    return total / (len(config.test_scales) * (2 if config.test_flip else 1))


def crf_refined(image: NDArray[np.uint8], probs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Refine probabilities [L, H, W] by a dense CRF with DeepLab's kernels; same shape.

    Only background and labels that are the strongest somewhere take part, as the time grows with
    their number; the others get probability 0.
    """
    taking_part = np.union1d(probs.argmax(0), [0])
    chosen = probs[taking_part]
    refined = np.zeros_like(probs)
    refined[taking_part] = dense_crf(image, chosen / chosen.sum(0), CrfConfig(preset="deeplab"))
    return refined


def write_segmentation(
    model: DeepLab,
    samples: Iterable[Sample],
    config: DeepLabConfig,
    folder: Path,
    *,
    device: torch.device,
) -> Iterator[Path]:
    """Write each image's most probable labels as `folder`/<id>.png; yield the path once written.

    Image-level labels are not used. Raises DataError as `read_image` and `segment_image` do.
    """
    model.to(device).eval()
    for sample in samples:
        probs = segment_image(model, read_image(sample.image_path), config, device=device)
        path = folder / f"{sample.image_id}.png"
        write_label_png(path, strongest_label(probs))
        yield path


def strongest_label(probs: NDArray[np.float32]) -> NDArray[np.uint8]:
    """[L, H, W] -> the most probable label of each pixel [H, W]; of equals, the lower."""
    return probs.argmax(0).astype(np.uint8)


def label_colours(label: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[H, W] labels -> [H, W, 3] in VOC's colours."""
    return np.array(voc_palette(), dtype=np.uint8).reshape(256, 3)[label]
