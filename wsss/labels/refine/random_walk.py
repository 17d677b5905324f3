"""Spreads CAMs over near pixels of high affinity, by sparse products (PSA, IRN).

A pixel has at most 68 neighbours within radius 5: the matrix of a 94 x 125 map is 6 MiB of values
instead of 527 MiB, and 2^log_steps products with P columns replace log_steps squarings of it.
Legend: P present classes of one image, C channels, H W image size, h w feature size, M pairs.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from wsss.data.pictures.image import read_image
from wsss.labels.infer import ImageCams
from wsss.method.cam import EPSILON
from wsss.method.views import normalise
from wsss.networks.affinity_net import AffinityNet, neighbour_pairs, pair_distances
from wsss.networks.backbone import resized_map
from wsss.networks.precision import forward_in
from wsss.segmentation_config import RandomWalkConfig


def transition(features: Tensor, radius: int, beta: float) -> csr_array:
    """Return the matrix of one step, which replaces a pixel by a weighted mean around it.

    features: [C, h, w]. Returns float32 CSR [hw, hw]: row i holds exp(-beta * distance), which is
    affinity^beta, to the pixels j nearer than `radius`, and 1 at i, divided by their sum.
    """
    height, width = features.shape[-2:]
    size = height * width
    pairs = neighbour_pairs(height, width, radius)
    distances = pair_distances(features[None], radius)[0]
    affinities = torch.exp(-beta * distances).cpu().numpy()
    first, second = (index.to(torch.int32).numpy() for index in pairs)
    diagonal = np.arange(size, dtype=np.int32)
    rows = np.concatenate([first, second, diagonal])
    columns = np.concatenate([second, first, diagonal])
    values = np.concatenate([affinities, affinities, np.ones(size, dtype=np.float32)])
    matrix = csr_array((values, (rows, columns)), shape=(size, size))
    matrix.data /= np.repeat(matrix.sum(axis=1), np.diff(matrix.indptr))
    return matrix


def random_walk(
    cams: NDArray[np.float32], matrix: csr_array, log_steps: int
) -> NDArray[np.float32]:
    """Return CAMs after 2^log_steps steps of a transition matrix: [P, h, w] -> [P, h, w].

    Equal to the product with the matrix squared log_steps times, which would no longer be sparse.
    The result stays within each CAM's minimum and maximum.
    """
    walked = np.ascontiguousarray(cams.reshape(len(cams), -1).T)  # [hw, P]
    for _ in range(2**log_steps):
        walked = matrix @ walked
    return np.ascontiguousarray(walked.T).reshape(cams.shape)


def walk_cams(
    cams: NDArray[np.float32], features: Tensor, config: RandomWalkConfig
) -> NDArray[np.float32]:
    """Return one image's CAMs after the walk, at image size again: [P, H, W] in [0, 1].

    cams: [P, H, W] in [0, 1]; features: [C, h, w] of the same image. The walk flattens peaks: with
    `config.walked_scale` maximum, each class is divided by its maximum again, as a plain CAM is.
    """
    low_height, low_width = features.shape[-2:]
    low = F.adaptive_avg_pool2d(torch.from_numpy(cams)[None], (low_height, low_width))[0]
    matrix = transition(features, config.radius, config.beta)
    walked = torch.from_numpy(random_walk(low.numpy(), matrix, config.log_steps))
    full = resized_map(walked[None], cams.shape[1:])
    if config.walked_scale == "maximum":
        full = full / (full.amax((2, 3), keepdim=True) + EPSILON)
    return full[0].clamp(0, 1).numpy()


def walk_labels(
    model: AffinityNet,
    images: Iterable[ImageCams],
    config: RandomWalkConfig,
    *,
    device: torch.device,
) -> Iterator[ImageCams]:
    """Yield each image's CAMs after the random walk; the network sees it once, at its own size."""
    model.to(device).eval()
    with torch.inference_mode():
        for image in images:
            with forward_in(device, config.precision):
                features = image_features(model, image, device=device)
            yield ImageCams(image.sample, walk_cams(image.cams, features, config))


def image_features(model: AffinityNet, image: ImageCams, *, device: torch.device) -> Tensor:
    """Return the affinity features of one image file, on the CPU: [C, h, w]."""
    x = normalise(read_image(image.sample.image_path).to(device)[None].float())
    return model(x.contiguous(memory_format=torch.channels_last))[0].cpu()
