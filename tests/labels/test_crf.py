"""The dense CRF against pydensecrf and mean field over all pairs of pixels; what it is given."""

import importlib

import numpy as np
import pytest
from numpy.typing import NDArray

from wsss.labels.pseudo_label import most_probable, pseudo_label, score_probs
from wsss.labels.refine.crf import MissingCrfError, crf_label, dense_crf, label_probs, power_probs
from wsss.segmentation_config import CrfConfig

needs_crf = pytest.mark.skipif(
    importlib.util.find_spec("pydensecrf") is None, reason="pydensecrf2 is an optional package"
)


def random_probs(num_labels: int, height: int, width: int) -> NDArray[np.float32]:
    scores = np.random.default_rng(0).random((num_labels, height, width))
    return (scores / scores.sum(0)).astype(np.float32)


def smooth_image(height: int, width: int) -> NDArray[np.uint8]:
    down, right = np.mgrid[:height, :width] / max(height, width)
    return (np.stack([down, right, down * right], 2) * 40 + 100).astype(np.uint8)


PUBLISHED = {
    "psa": ((3, 3), (80, 13, 10)),
    "irn": ((3, 3), (50, 5, 10)),
    "deeplab": ((1, 3), (67, 3, 4)),
}
"""Written down apart from the package: sxy, compat; sxy, srgb, compat."""


@needs_crf
@pytest.mark.parametrize("preset", PUBLISHED)
def test_each_preset_is_pydensecrf_with_the_published_numbers(preset: str) -> None:
    image, probs = smooth_image(30, 40), random_probs(3, 30, 40)
    (near_sxy, near_compat), (sxy, srgb, compat) = PUBLISHED[preset]
    crf = importlib.import_module("pydensecrf.densecrf").DenseCRF2D(40, 30, 3)
    crf.setUnaryEnergy(importlib.import_module("pydensecrf.utils").unary_from_softmax(probs))
    crf.addPairwiseGaussian(sxy=near_sxy, compat=near_compat)
    crf.addPairwiseBilateral(sxy=sxy, srgb=srgb, rgbim=image, compat=compat)
    expected = np.array(crf.inference(4)).reshape(probs.shape)
    found = dense_crf(image, probs, CrfConfig(preset=preset, iterations=4))
    assert np.allclose(found, expected, atol=1e-5)


@needs_crf
@pytest.mark.parametrize("preset", PUBLISHED)
def test_a_blob_off_its_object_moves_onto_the_object(preset: str) -> None:
    image = np.full((40, 50, 3), 40, np.uint8)
    image[10:30, 15:35] = 220
    cams = np.full((1, 40, 50), 0.1, np.float32)
    cams[0, 12:32, 18:38] = 0.4
    cams[0, 16:26, 22:30] = 0.9
    truth = np.zeros((40, 50), np.uint8)
    truth[10:30, 15:35] = 8
    before = (pseudo_label(cams, (7,), 0.15) != truth).mean()
    found = crf_label(image, cams, (7,), 0.15, CrfConfig(preset=preset))
    assert set(np.unique(found)) == {0, 8}
    assert (found != truth).mean() < before / 4


@needs_crf
def test_read_only_and_strided_arrays_are_taken_and_left_alone() -> None:
    image, probs = smooth_image(8, 10)[::-1], random_probs(2, 8, 10)
    expected = dense_crf(image.copy(), probs, CrfConfig())
    strided = probs.transpose(1, 2, 0).copy().transpose(2, 0, 1)
    image.flags.writeable = strided.flags.writeable = False
    assert np.array_equal(dense_crf(image, strided, CrfConfig()), expected)


@needs_crf
def test_hard_label_costs_are_those_of_pydensecrf() -> None:
    unary_from_labels = importlib.import_module("pydensecrf.utils").unary_from_labels
    indices = np.array([[0, 1, 2], [2, 1, 0]])
    expected = unary_from_labels(indices, 3, gt_prob=0.7, zero_unsure=False).reshape(3, 2, 3)
    assert np.allclose(-np.log(label_probs(indices, 3)), expected, atol=1e-6)


@needs_crf
def test_a_zero_probability_is_a_large_cost_and_not_infinite() -> None:
    probs = np.zeros((2, 1, 6), np.float32)
    probs[0] = 1
    found = dense_crf(smooth_image(1, 6), probs, CrfConfig(preset="psa"))
    assert found.shape == probs.shape
    assert np.isfinite(found).all()
    assert (found[0] > 0.99).all()


@pytest.mark.parametrize(("alpha", "score"), [(4, 0.2755), (16, 0.1193), (32, 0.0742)])
def test_power_of_psa_is_the_one_that_crosses_at_the_score(alpha: int, score: float) -> None:
    cams = np.array([[[0.0, 0.3, 0.9]], [[0.0, 0.2, 0.3]]], np.float32)
    scores = [[1.0, 0, 0], [0.7**alpha, 0.3, 0.2], [0.1**alpha, 0.9, 0.3]]
    expected = [[value / sum(pixel) for value in pixel] for pixel in scores]
    assert np.allclose(power_probs(cams, score)[:, 0].T, expected, atol=2e-3)


@pytest.mark.parametrize("score", [0.0, 0.07, 0.5, 0.9, 1.0])
def test_power_of_psa_decides_as_the_pseudo_label_does(score: float) -> None:
    cams = np.random.default_rng(3).random((2, 30, 40), dtype=np.float32)
    cams[:, 0] = 0
    labels = np.array([0, 5, 9])[power_probs(cams, score).argmax(0)]
    assert np.array_equal(labels, pseudo_label(cams, (4, 8), score))


def test_scores_become_probabilities_by_hand() -> None:
    cams = np.array([[[0.6, 0.0, 0.15]], [[0.25, 0.0, 0.0]]], np.float32)
    expected = [[[0.15, 1, 0.5]], [[0.6, 0, 0.5]], [[0.25, 0, 0]]]
    assert np.allclose(score_probs(cams, 0.15), expected)
    zero = score_probs(cams, 0.0)[:, 0, 1]
    assert zero.tolist() == [1, 0, 0]


def test_the_most_probable_score_is_the_pseudo_label() -> None:
    rng = np.random.default_rng(0)
    cams = np.round(rng.random((3, 30, 40)), 1).astype(np.float32)  # with ties
    labels = (1, 4, 19)
    for score in (0.0, 0.3, 0.75):
        score32 = float(np.float32(score))
        found = most_probable(score_probs(cams, score32), labels)
        assert np.array_equal(found, pseudo_label(cams, labels, score))
    assert set(np.unique(found)) == {0, 2, 5, 20}


def test_probabilities_of_another_size_than_the_image_are_refused() -> None:
    with pytest.raises(ValueError, match=r"give \(H, W, 3\) and \(labels, H, W\)"):
        dense_crf(smooth_image(8, 10), random_probs(2, 10, 8), CrfConfig())


def test_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(importlib.import_module("sys").modules, "pydensecrf", None)
    monkeypatch.setitem(importlib.import_module("sys").modules, "pydensecrf.densecrf", None)
    with pytest.raises(MissingCrfError, match="-m pip install pydensecrf2"):
        dense_crf(smooth_image(8, 10), random_probs(2, 8, 10), CrfConfig())
