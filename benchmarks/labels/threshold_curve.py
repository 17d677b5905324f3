"""Confusion matrices at 60 thresholds of one set of CAMs: one pass over the pixels, or one each.

Usage: python -m benchmarks.labels.threshold_curve. Four images of 500 x 375 with two classes each.
"usual pass": the background score is put before the CAMs and the argmax is taken at each threshold.
"lean pass": strongest class and CAM are found once, and compared with each threshold.
"""

import numpy as np
from numpy.typing import NDArray

from benchmarks.ratios import faster
from wsss.evaluation.confusion import collect, count_image, threshold_grid

NUM_LABELS, CLASSES, NUM_IMAGES = 21, (2, 7), 4
THRESHOLDS = threshold_grid(0.15)[:60]


def confusion(mask: NDArray[np.uint8], predicted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return [L, L] of one image whose pixels all count."""
    codes = mask.astype(np.int64) * NUM_LABELS + predicted
    return np.bincount(codes.ravel(), minlength=NUM_LABELS**2).reshape(NUM_LABELS, NUM_LABELS)


def main() -> None:
    rng = np.random.default_rng(0)
    cams = rng.random((NUM_IMAGES, 2, 375, 500), dtype=np.float32)
    masks = rng.integers(0, NUM_LABELS, (NUM_IMAGES, 375, 500)).astype(np.uint8)
    labels = np.array(CLASSES) + 1

    def ours() -> NDArray[np.int64]:
        counted = [
            (str(index), *count_image(cam, CLASSES, mask, THRESHOLDS, NUM_LABELS))
            for index, (cam, mask) in enumerate(zip(cams, masks, strict=True))
        ]
        return collect(counted, THRESHOLDS, NUM_LABELS).confusions()

    def lean() -> NDArray[np.int64]:
        total = np.zeros((len(THRESHOLDS), NUM_LABELS, NUM_LABELS), dtype=np.int64)
        for cam, mask in zip(cams, masks, strict=True):
            strongest, label = cam.max(0), labels[cam.argmax(0)]
            for index, threshold in enumerate(THRESHOLDS):
                total[index] += confusion(mask, np.where(strongest > threshold, label, 0))
        return total

    def usual() -> NDArray[np.int64]:
        names = np.array([0, *labels])
        total = np.zeros((len(THRESHOLDS), NUM_LABELS, NUM_LABELS), dtype=np.int64)
        for cam, mask in zip(cams, masks, strict=True):
            for index, threshold in enumerate(THRESHOLDS):
                padded = np.pad(cam, ((1, 0), (0, 0), (0, 0)), constant_values=threshold)
                total[index] += confusion(mask, names[padded.argmax(0)])
        return total

    assert (ours() == lean()).all()
    assert (ours() == usual()).all()
    faster("threshold curve, 60 thresholds: one pass against 60 usual ones", ours, usual, goal=60)
    faster("threshold curve, 60 thresholds: one pass against 60 lean ones", ours, lean)


if __name__ == "__main__":
    main()
