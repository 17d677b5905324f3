"""The paper's equations as slow NumPy loops, written from the paper and not from the package.

Every function takes one image, without a batch axis, unless it says so; numbers are float64.
Legend: K classes, C channels, H W pixels, h w feature size, L labels (background and K classes).
"""

import math
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms.v2 import functional

Array = NDArray[np.float64]

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
EPSILON = 1e-5
IGNORED = 255


def class_activation(weights: Array, features: Array) -> tuple[Array, Array]:
    """Eq. 1: weights [K, C], features [C, h, w] -> CAMs [K, h, w] and their means [K]."""
    num_classes, channels = weights.shape
    _, height, width = features.shape
    cams = np.zeros((num_classes, height, width))
    for k, y, x in np.ndindex(*cams.shape):
        for c in range(channels):
            cams[k, y, x] += weights[k, c] * features[c, y, x]
    logits = np.array([sum(cam.ravel()) / (height * width) for cam in cams])
    return cams, logits


def adjust_value(g: float, alpha: float, beta: float, reading: str, mean: float = 0.0) -> float:
    """Eq. 2 on one pixel value 0..255; `mean` is the image's, for the reading about_mean."""
    if reading == "about_mean":
        value = alpha * (g - mean) + mean + beta / 10
    else:
        shift = {
            "literal_clip": beta,
            "literal_unclipped": beta,
            "wrap": beta,
            "beta_tenth": beta / 10,
            "beta_thousandth": beta / 1000 * 255,
            "decreased_negative": -beta / 10 if alpha < 1 else beta / 10,
            "slider": beta - 255,
        }[reading]
        value = alpha * g + shift
    if reading == "literal_unclipped":
        return value
    if reading == "wrap":
        return math.floor(value) % 256
    return min(max(value, 0.0), 255.0)


def network_input(
    pixels: NDArray[np.uint8],
    box: Sequence[int],
    change: tuple[float, float] | None,
    reading: str,
    padding: str,
) -> Array:
    """One view of one crop [3, S, S] as the network sees it; `change` is (alpha, beta).

    Padding is 0 behind the normalisation, so that its pixel value is the mean of ImageNet;
    with padding "after", Eq. 2 acts on that value too.
    """
    top, left, bottom, right = box
    content = [float(v) for v in pixels[:, top:bottom, left:right].ravel()]
    mean = sum(content) / len(content)
    view = np.zeros(pixels.shape)
    for c, y, x in np.ndindex(*pixels.shape):
        inside = top <= y < bottom and left <= x < right
        value = float(pixels[c, y, x]) if inside else 255 * MEAN[c]
        if change is not None and (inside or padding == "after"):
            value = adjust_value(value, *change, reading, mean)
        view[c, y, x] = (value / 255 - MEAN[c]) / STD[c]
    return view


def normalise(cams: Array, present: Array) -> Array:
    """ReLU, then each present class over its maximum; [K, h, w], absent classes 0."""
    result = np.zeros(cams.shape)
    for k in range(len(cams)):
        if present[k]:
            highest = max(0.0, float(cams[k].max()))
            for y, x in np.ndindex(*cams[k].shape):
                result[k, y, x] = max(0.0, cams[k, y, x]) / (highest + EPSILON)
    return result


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def activate(cams: Array, present: Array, activation: str) -> Array:
    """CAMs [K, h, w] as the L1 losses see them; absent classes 0."""
    if activation == "relu_max":
        return normalise(cams, present)
    result = np.zeros(cams.shape)
    for k, y, x in np.ndindex(*cams.shape):
        if present[k]:
            value = float(cams[k, y, x])
            if activation == "min_max":
                shown = [max(0.0, float(v)) for v in cams[k].ravel()]
                span = max(shown) - min(shown) + EPSILON
                result[k, y, x] = max(0.0, max(0.0, value) - min(shown) - EPSILON) / span
                continue
            result[k, y, x] = value if activation == "raw" else sigmoid(value)
    return result


def belongs(cam: Array, present: Array, score: float, rule: str) -> NDArray[np.bool_]:
    """Whether each pixel belongs to each class; cam is normalised [K, h, w]."""
    result = np.zeros(cam.shape, bool)
    for y, x in np.ndindex(*cam.shape[1:]):
        winner, highest = None, score
        for k in range(len(cam)):
            if not present[k]:
                continue
            if rule == "threshold":
                result[k, y, x] = cam[k, y, x] > score
            elif cam[k, y, x] > highest:
                winner, highest = k, cam[k, y, x]
        if rule == "argmax" and winner is not None:
            result[winner, y, x] = True
    return result


def merge(raw: Sequence[Array], present: Array, transfer: Any) -> Array:
    """The merged CAM of one or two raw adjusted CAMs [K, h, w], by the four cases of III-B."""
    confidence = [activate(cam, present, transfer.cam_activation) for cam in raw]
    if len(raw) == 1:
        return confidence[0]
    shown = [normalise(cam, present) for cam in raw]
    member = [belongs(cam, present, transfer.belongs_score, transfer.belongs) for cam in shown]
    merged = np.zeros(raw[0].shape)
    for at in np.ndindex(*merged.shape):
        in_e, in_d = member[0][at], member[1][at]
        larger = max(confidence[0][at], confidence[1][at])
        if transfer.half_of == "sigmoid":
            sure = max(sigmoid(float(raw[0][at])), sigmoid(float(raw[1][at]))) > 0.5
        else:
            sure = max(shown[0][at], shown[1][at]) > 0.5
        if in_e and in_d:
            merged[at] = larger
        elif in_e or in_d:
            merged[at] = larger if sure else 0.0
    return merged


def background_map(cam: Array, score: float, kind: str) -> Array:
    """M_b of one CAM whose absent classes are 0: [K, h, w] -> [1 + K, h, w], background first."""
    num_classes, height, width = cam.shape
    result = np.zeros((1 + num_classes, height, width))
    for y, x in np.ndindex(height, width):
        best = 0
        for k in range(1, num_classes):
            if cam[k, y, x] > cam[best, y, x]:
                best = k
        strongest = cam[best, y, x]
        if kind in ("peaks", "background"):
            result[0, y, x] = 1 - strongest
        elif kind == "one_minus_max":
            result[0, y, x] = 1 - strongest
            result[1 + best, y, x] = strongest
        elif strongest > score:
            result[1 + best, y, x] = strongest
        else:
            result[0, y, x] = score
    if kind == "peaks":
        for k in range(num_classes):
            y, x = divmod(int(cam[k].argmax()), width)
            result[1 + k, y, x] = cam[k, y, x]
    return result


def l1(first: Array, second: Array, present: Array, reduction: str) -> float:
    """Distance of two maps [K, h, w] of one image; absent classes count as equal."""
    total, pixels = 0.0, first.shape[1] * first.shape[2]
    for k, y, x in np.ndindex(*first.shape):
        if present[k]:
            total += abs(first[k, y, x] - second[k, y, x])
    if reduction == "sum":
        return total
    classes = len(first) if reduction == "all" else max(1, int(sum(present)))
    return total / (classes * pixels)


def cross_entropy(logits: Array, targets: Array, over_classes: str, over_views: str) -> float:
    """Eq. 4 with a sigmoid: logits [V, B, K], targets [B, K]."""
    num_views, batch, num_classes = logits.shape
    views = []
    for v in range(num_views):
        total = 0.0
        for b in range(batch):
            for k in range(num_classes):
                a, y = sigmoid(float(logits[v, b, k])), float(targets[b, k])
                total -= y * math.log(a) + (1 - y) * math.log(1 - a)
        views.append(total / batch / (num_classes if over_classes == "mean" else 1))
    return sum(views) / (num_views if over_views == "mean" else 1)


def image_losses(
    cams: Sequence[Array], present: Array, transfer: Any, merged: Array | None = None
) -> tuple[float, float]:
    """L_s (Eq. 5) and L_bs (Eq. 6) of one image's raw CAMs: original, then one or two views.

    `merged` replaces the merged CAM: give that of a fixed point to see what a stopped gradient
    sees.
    """
    if transfer.empty_maps == "skip":
        alive = [all(cam[k].max() > 0 for cam in cams) for k in range(len(present))]
        present = present * np.array(alive)
    activated = [activate(cam, present, transfer.cam_activation) for cam in cams]
    one_view = len(cams) == 2  # L_s is then its single term (III.2), and M^o that view's own CAM
    if merged is None:
        with_original = one_view and transfer.single_view == "merged"
        merged = merge(cams if with_original else cams[1:], present, transfer)
    anchor = activated[0] if transfer.similarity_pairs == "eq5" or one_view else merged
    terms = [l1(anchor, view, present, transfer.l1_reduction) for view in activated[1:]]
    maps = [
        background_map(cam, transfer.belongs_score, transfer.background_map)
        for cam in (activated[0], merged)
    ]
    l_bs = l1(*maps, np.concatenate([[1.0], present]), transfer.l1_reduction)
    return sum(terms) / (1 if one_view and transfer.single_view == "full" else 2), l_bs


def total_loss(
    logits: Array,
    cams: Array,
    targets: Array,
    transfer: Any,
    *,
    over_classes: str = "mean",
    over_views: str = "mean",
    progress: float = 1.0,
    merged: Sequence[Array] | None = None,
) -> tuple[float, float, float | None, float | None]:
    """Eq. 7: logits [V, B, K], cams [V, B, K, h, w] -> L, L_cls, L_s, L_bs, means over images."""
    cls = cross_entropy(logits, targets, over_classes, over_views)
    if len(cams) == 1:
        return cls, cls, None, None
    pairs = [
        image_losses(cams[:, b], targets[b], transfer, None if merged is None else merged[b])
        for b in range(len(targets))
    ]
    l_s, l_bs = (sum(column) / len(pairs) for column in zip(*pairs, strict=True))
    weight = 1.0 if progress >= transfer.start else 0.0
    if weight and transfer.ramp > 0:
        weight = min(1.0, (progress - transfer.start) / transfer.ramp)
    return cls + weight * (transfer.lambda_s * l_s + transfer.lambda_bs * l_bs), cls, l_s, l_bs


def poly(iteration: int, num_iterations: int, power: float) -> float:
    """Eq. 8: lr / lr0."""
    return math.exp(power * math.log(1 - iteration / num_iterations))


def irn_update(
    parameter: Array, gradient: Array, speed: Array, *, lr: float, decay: float
) -> tuple[Array, Array]:
    """One parameter and its speed after a step of IRN's PolyOptimizer, at the scheduled rate `lr`.

    It hands the weight decay to SGD in the place of the momentum, while its parameter groups name
    the decay once more: so the speed keeps 1e-4 of itself, and the decay applies as it should.
    """
    speed = decay * speed + gradient + decay * parameter
    return parameter - lr * speed, speed


def coarse_labels(labels: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Label maps [H, W] on a coarser grid [h, w]: the pixel in which each place's centre lies.

    In fractions, so that nothing is rounded; a centre between two pixels belongs to the one behind.
    """
    result = np.zeros((height, width), labels.dtype)
    for y, x in np.ndindex(height, width):
        row = math.floor(Fraction(2 * y + 1, 2) * Fraction(labels.shape[0], height))
        column = math.floor(Fraction(2 * x + 1, 2) * Fraction(labels.shape[1], width))
        result[y, x] = labels[row, column]
    return result


def label_loss(logits: Array, labels: NDArray[Any]) -> tuple[float, float]:
    """A batch's cross entropy per labelled place, and the part of these that is right.

    logits [B, L, h, w]; labels [B, H, W] are first brought to [B, h, w].
    """
    total, right, count = 0.0, 0, 0
    for scores, truth in zip(logits, labels, strict=True):
        coarse = coarse_labels(truth, *scores.shape[1:])
        for y, x in np.ndindex(*coarse.shape):
            if coarse[y, x] != IGNORED:
                here = [float(value) for value in scores[:, y, x]]
                total += math.log(sum(math.exp(value) for value in here)) - here[coarse[y, x]]
                right += here.index(max(here)) == coarse[y, x]
                count += 1
    return total / count, right / count


def context_association(
    features: Array,
    *,
    values: Array | None = None,
    temperature: float | None = None,
    residual: bool = False,
) -> Array:
    """Eq. 3 and what follows it, pixel by pixel: [C, h, w] and values [C', h, w] -> [C', h, w].

    Weights are ReLU(cosine) over their sum, or with a temperature the softmax of the cosines. What
    is mixed is the features, if no values are given.
    """
    mixing = features if values is None else values
    places = list(np.ndindex(*features.shape[1:]))
    pixels = [features[:, y, x] for y, x in places]
    mixed = np.zeros((len(mixing), len(pixels)))
    for m, first in enumerate(pixels):
        weights = []
        for second in pixels:
            lengths = math.sqrt(sum(first**2)) * math.sqrt(sum(second**2))
            cosine = sum(first * second) / lengths if lengths > 0 else 0.0
            weights.append(
                max(0.0, cosine) if temperature is None else math.exp(cosine / temperature)
            )
        if sum(weights) > 0:
            for weight, (y, x) in zip(weights, places, strict=True):
                mixed[:, m] += weight / sum(weights) * mixing[:, y, x]
        if residual:
            mixed[:, m] += mixing[:, places[m][0], places[m][1]]
    return mixed.reshape(mixing.shape)


def spatial_attention(x: Array, kernel: Array, bias: float) -> Array:
    """CBAM's spatial part: x [C, h, w], kernel [2, 7, 7] over the channels' mean and maximum."""
    _, height, width = x.shape
    pooled = np.stack([x.mean(0), x.max(0)])
    result = np.zeros(x.shape)
    for y, x_ in np.ndindex(height, width):
        total = bias
        for c, dy, dx in np.ndindex(2, 7, 7):
            row, column = y + dy - 3, x_ + dx - 3
            if 0 <= row < height and 0 <= column < width:
                total += kernel[c, dy, dx] * pooled[c, row, column]
        result[:, y, x_] = x[:, y, x_] * sigmoid(total)
    return result


def label_map(cams: NDArray[Any], labels: Sequence[int], threshold: float) -> NDArray[np.int64]:
    """Pseudo-label of each pixel from CAMs [P, H, W] of the 0-based classes `labels`.

    The first of the strongest classes if it is above the threshold, else background.
    """
    result = np.zeros(cams.shape[1:], np.int64)
    for y, x in np.ndindex(*result.shape):
        highest = threshold
        for p, k in enumerate(labels):
            if cams[p, y, x] > highest:
                highest, result[y, x] = cams[p, y, x], k + 1
    return result


def confusion(truth: NDArray[Any], predicted: NDArray[Any], num_labels: int) -> NDArray[np.int64]:
    """Pixel by pixel, without those of value 255: rows ground truth, columns prediction."""
    matrix = np.zeros((num_labels, num_labels), np.int64)
    for t, p in zip(truth.ravel().tolist(), predicted.ravel().tolist(), strict=True):
        if t != IGNORED:
            matrix[t, p] += 1
    return matrix


def ious(matrix: NDArray[np.int64]) -> list[float | None]:
    """IoU of each label; None where neither ground truth nor prediction holds it."""
    result: list[float | None] = []
    for label in range(len(matrix)):
        both = int(matrix[label, label])
        either = int(matrix[label].sum()) + int(matrix[:, label].sum()) - both
        result.append(both / either if either else None)
    return result


def miou(matrix: NDArray[np.int64]) -> float:
    occurring = [value for value in ious(matrix) if value is not None]
    return sum(occurring) / len(occurring)


def resize_bilinear(channel: Array, height: int, width: int) -> Array:
    """Resize [h, w] with pixel centres at half-integers; borders are repeated."""

    def places(size: int, target: int) -> list[tuple[int, int, float]]:
        found = []
        for index in range(target):
            centre = max(0.0, (index + 0.5) * size / target - 0.5)
            low = min(int(centre), size - 1)
            found.append((low, min(low + 1, size - 1), centre - low))
        return found

    rows, columns = places(channel.shape[0], height), places(channel.shape[1], width)
    result = np.zeros((height, width))
    for y, (top, bottom, down) in enumerate(rows):
        line = (1 - down) * channel[top] + down * channel[bottom]
        for x, (left, right, across) in enumerate(columns):
            result[y, x] = (1 - across) * line[left] + across * line[right]
    return result


def resize_8_bit(image: NDArray[np.uint8], width: int, height: int, resize: str) -> Array:
    """Resize [H, W, 3] by torchvision, which rounds some pixels otherwise than Pillow."""
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1).contiguous()
    resized = functional.resize(
        pixels, [height, width], functional.InterpolationMode(resize), antialias=True
    )
    return resized.permute(1, 2, 0).double().numpy()


def multi_scale_cams(
    network: Callable[[Array], Array],
    image: Image.Image,
    labels: Sequence[int],
    scales: Iterable[float],
    *,
    flip: bool,
    resize: str = "bicubic",
    multiple: int = 16,
) -> Array:
    """Multi-scale CAMs [P, H, W] in [0, 1] of the classes `labels` of one image, in IRN's order.

    `network` maps one normalised image [3, H, W] to the raw CAMs of all classes [K, h, w]. One
    scale and one direction at a time: ReLU, enlarged to the next multiple of `multiple`, cut to
    the image, mirrored back, added up; the classes are chosen last, each over its maximum.
    """
    width, height = image.size
    large = (math.ceil(height / multiple) * multiple, math.ceil(width / multiple) * multiple)
    total = None
    for scale in scales:
        size = (round(width * scale), round(height * scale))
        scaled = resize_8_bit(np.asarray(image), *size, resize)
        x = np.stack([(scaled[:, :, c] / 255 - MEAN[c]) / STD[c] for c in range(3)])
        directions = [x, x[:, :, ::-1]] if flip else [x]
        for number, view in enumerate(directions):
            raw = np.maximum(network(view.copy()), 0)
            raw = raw[:, :, ::-1] if number == 1 else raw
            full = np.stack([resize_bilinear(cam, *large) for cam in raw])[:, :height, :width]
            total = full + (0 if total is None else total)
    assert total is not None
    chosen = np.stack([total[k] for k in labels])
    return np.stack([cam / (cam.max() + EPSILON) for cam in chosen])
