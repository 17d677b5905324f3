"""Dense CRF refinement of CAMs (Kraehenbuehl and Koltun, NIPS 2011), by pydensecrf2.

Every pixel is linked to every other one by two Gaussian kernels: one over position alone (smooths)
and one over position and colour (follows edges). Only the labels that an image is known to hold
take part: an absent class cannot appear, and time grows with the number of labels.

| preset  | gaussian sxy, compat | bilateral sxy, srgb, compat | unary costs from               |
|---------|----------------------|-----------------------------|--------------------------------|
| psa     | 3, 3                 | 80, 13, 10                  | CAMs and (1 - max CAM)^alpha   |
| irn     | 3, 3                 | 50, 5, 10                   | a hard label map, .7 certain   |
| deeplab | 1, 3                 | 67, 3, 4                    | CAMs and the background score  |

DeepLab's colour kernel was chosen on 100 pixel masks of VOC val; the other two papers do not say
how theirs were chosen. Legend: P present classes, L' = P + 1 labels, H W image size.
"""

import importlib
import math
import shlex
import sys
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsss.basics.errors import ForeseenError
from wsss.labels.pseudo_label import most_probable, score_probs
from wsss.segmentation_config import CrfConfig


class MissingCrfError(ForeseenError, ImportError):
    """The optional package pydensecrf2 cannot be imported."""


class CrfPreset(NamedTuple):
    """One published set of kernel widths (pixels, 8-bit colour values) and weights."""

    gaussian_sxy: float
    gaussian_compat: float
    bilateral_sxy: float
    bilateral_srgb: float
    bilateral_compat: float
    unary: Literal["power", "label", "score"]
    """How CAMs become probabilities; see `crf_label`."""


PRESETS = {
    # PSA (Ahn and Kwak, CVPR 2018), tool/imutils.py crf_inference with its scale_factor of 1: the
    # factor divides both sxy and is 1 wherever the CRF runs at full resolution, as here.
    "psa": CrfPreset(3, 3, 80, 13, 10, "power"),
    # IRN (Ahn et al., CVPR 2019), misc/imutils.py crf_inference_label.
    "irn": CrfPreset(3, 3, 50, 5, 10, "label"),
    # DeepLabv2-ResNet101 (Chen et al., TPAMI 2018), as in kazuto1011/deeplab-pytorch.
    "deeplab": CrfPreset(1, 3, 67, 3, 4, "score"),
}

LABEL_CERTAINTY = 0.7
"""Probability of a label in IRN's unary costs, its gt_prob."""
SMALLEST_PROB = 1e-5
"""Lower bound of a probability before its logarithm, pydensecrf's own."""


def dense_crf(
    image: NDArray[np.uint8], probs: NDArray[np.float32], config: CrfConfig
) -> NDArray[np.float32]:
    """Return the mean-field probabilities of each label after `config.iterations` steps.

    image: [H, W, 3]; probs: [L', H, W], background first, then the present classes, summing to 1.
    Returns [L', H, W], summing to 1. Either array may be read-only or not contiguous. Raises
    ValueError if they do not fit, and MissingCrfError without pydensecrf2. Holds the GIL: use
    processes (`wsss.basics.pool`), not threads.
    """
    if image.shape != (*probs.shape[1:], 3):  # pydensecrf would read beyond the image
        raise ValueError(
            f"image {image.shape}, probs {probs.shape}; give (H, W, 3) and (labels, H, W)"
        )
    num_labels, height, width = probs.shape
    if num_labels == 1:  # nothing to decide
        return np.ones_like(probs, dtype=np.float32)
    preset = PRESETS[config.preset]
    crf = require_crf().DenseCRF2D(width, height, num_labels)
    costs = -np.log(np.clip(probs, SMALLEST_PROB, 1, dtype=np.float32))
    crf.setUnaryEnergy(np.ascontiguousarray(costs.reshape(num_labels, -1)))
    crf.addPairwiseGaussian(sxy=preset.gaussian_sxy, compat=preset.gaussian_compat)
    crf.addPairwiseBilateral(
        sxy=preset.bilateral_sxy,
        srgb=preset.bilateral_srgb,
        rgbim=np.array(image, order="C"),  # pydensecrf refuses read-only arrays, so always a copy
        compat=preset.bilateral_compat,
    )
    refined = np.array(crf.inference(config.iterations), dtype=np.float32)
    return refined.reshape(probs.shape)


def crf_label(
    image: NDArray[np.uint8],
    cams: NDArray[np.float32],
    labels: tuple[int, ...],
    background_score: float,
    config: CrfConfig,
) -> NDArray[np.uint8]:
    """Return the label map of CAMs after a dense CRF: [H, W], 0 background, class k as k + 1.

    image: [H, W, 3]; cams: [P, H, W] in [0, 1]; labels: the P 0-based classes. Under every preset
    the CRF starts from the label of `pseudo_label`; presets differ in its probability: irn gives it
    .7 and shares the rest among the others; psa takes `power_probs`; deeplab takes (score, CAMs)
    divided by their sum.
    """
    unary = PRESETS[config.preset].unary
    probs = score_probs(cams, background_score)
    if unary == "power":
        probs = power_probs(cams, background_score)
    elif unary == "label":
        probs = label_probs(probs.argmax(0), len(probs))
    return most_probable(dense_crf(image, probs, config), labels)


def power_probs(cams: NDArray[np.float32], background_score: float) -> NDArray[np.float32]:
    """Return PSA's probabilities: ((1 - max CAM)^alpha, CAMs) divided by their sum: [L', H, W].

    cams: [P, H, W] in [0, 1], P at least 1. With (1 - score)^alpha = score, background wins where
    the CAM is below the score. PSA's alphas 4, 16 and 32 are scores of .28, .12 and .08.
    """
    strongest = cams.max(0)
    if background_score in (0, 1):  # alpha would be infinite, or 0
        background = np.where(strongest > background_score, 0, 1)
    else:
        alpha = math.log(background_score) / math.log1p(-background_score)
        background = np.power(np.clip(1 - strongest, 0, 1), alpha)
    scores = np.concatenate([background[None], cams]).astype(np.float32)
    return scores / scores.sum(0)


def label_probs(indices: NDArray[np.integer[Any]], num_labels: int) -> NDArray[np.float32]:
    """Return LABEL_CERTAINTY for each pixel's label and equal shares of the rest for the others.

    indices: [H, W] in 0..L'-1, L' = num_labels, at least 2. Returns [L', H, W]. (IRN)
    """
    chosen = indices == np.arange(num_labels)[:, None, None]
    other = (1 - LABEL_CERTAINTY) / (num_labels - 1)
    return np.where(chosen, np.float32(LABEL_CERTAINTY), np.float32(other))


def require_crf() -> Any:
    """Import pydensecrf when it is needed: it is optional, and compiled when it is installed.

    Raises MissingCrfError.
    """
    try:
        return importlib.import_module("pydensecrf.densecrf")
    except ImportError as error:
        raise MissingCrfError(
            f"the dense CRF needs pydensecrf2, which cannot be imported ({error}); install it with "
            f"{shlex.join([sys.executable, '-m', 'pip', 'install', 'pydensecrf2'])} (Python 3.11 "
            "or 3.12 and a C++ compiler), or do without: labels `pamr`, `test_crf=false`"
        ) from None
