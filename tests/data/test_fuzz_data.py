"""Any content of a data set's files: read, or refused by the readers' own error with its name."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fuzzing import EXAMPLES, T, damaged, fuzz, value_or_refusal
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from made_up.voc_tree import palette_mask
from PIL import Image

from sweeps.cli.method.data import page
from wsss.basics.printable import printable
from wsss.data.check import check_data
from wsss.data.check_splits import compare_lists
from wsss.data.classes import VOC_CLASSES, voc_palette
from wsss.data.drawn.folder import draw_voc
from wsss.data.errors import DataError
from wsss.data.pictures.image import read_image
from wsss.data.pictures.mask import read_mask
from wsss.data.voc import VocDataset

A, B = "drawn_000000", "drawn_000001"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A picture with mask and XML in `train`, and one of SBD's kind, in `train_aug` too."""
    draw_voc(tmp_path / "voc", num_train=1, num_extra=1, num_val=1)
    (tmp_path / "voc/classes.txt").write_text("\n".join(VOC_CLASSES))
    return tmp_path / "voc"


def value_or(read: Callable[[], T]) -> tuple[T | None, str]:
    return value_or_refusal(read, DataError)


LEVELS = st.sampled_from([0, 1, 2, 3, 7, 20, 21, 128, 254, 255])
VALUES = arrays(np.uint8, st.tuples(st.integers(1, 5), st.integers(1, 5)), elements=LEVELS)


@fuzz
@given(
    VALUES,
    st.sampled_from(["P", "L", "LA", "1", "RGB", "RGBA", "I;16"]),
    st.sampled_from([1, 3, 20, 254]),
    st.integers(0, 99),
    st.sampled_from([1, 2, 4, 8]),
)
def test_any_mask_is_the_numbers_it_was_made_of_or_refused(
    root: Path, values: np.ndarray, mode: str, num_classes: int, seed: int, bits: int
) -> None:
    path, rng = root / "mask.png", np.random.default_rng(seed)
    palette = np.array(voc_palette(), np.uint8).reshape(256, 3)
    num_colours = rng.integers(int(values.max()) + 1, 257) if seed % 2 else 0
    stored = np.concatenate([rng.permutation(palette[:num_colours]), palette[num_colours:]])
    if mode == "P":
        picture = palette_mask(values, stored.ravel().tolist())
    elif mode in ("RGB", "RGBA"):
        picture = Image.fromarray(palette[values]).convert(mode)
    elif mode == "I;16":
        picture = Image.fromarray(values.astype(np.uint16) + 256 * (seed % 2))
    else:
        picture = Image.fromarray(values).convert(mode, dither=Image.Dither.NONE)
    picture.save(path, **({"bits": bits} if mode == "P" and values.max() < 1 << bits else {}))
    mask, refusal = value_or(lambda: read_mask(path, num_classes))
    fits = ((values <= num_classes) | (values == 255)).all()
    if mask is None:
        assert str(path) in refusal
        assert not fits or (mode in ("P", "I;16") and seed % 2)
    elif mode == "1":
        assert mask.tolist() == (values >= 128).astype(int).tolist()
    else:
        assert fits
        assert mask.tolist() == values.tolist()


SPOILED = (
    f"JPEGImages/{A}.jpg",
    f"Annotations/{A}.xml",
    f"SegmentationClass/{A}.png",
    "classes.txt",
    "ImageSets/Segmentation/train.txt",
    f"SegmentationClassAug/{B}.png",
)


@settings(fuzz, max_examples=EXAMPLES or 40)
@given(
    st.sampled_from(SPOILED),
    st.integers(0, 2**32),
    st.sampled_from(["damage", "damage", "empty", "folder", "broken link", "gone", "swapped"]),
)
def test_what_the_check_finds_whole_can_be_used(root: Path, name: str, seed: int, how: str) -> None:
    path = root / name
    whole = path.read_bytes()
    other = root / random.Random(seed).choice(SPOILED)
    content = {"empty": b"", "swapped": other.read_bytes()}.get(how, damaged(whole, seed))
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "broken link":
        path.symlink_to(root / "nowhere")
    elif how != "gone":
        path.write_bytes(content)
    try:
        _use(root)
    finally:
        if path.is_dir():
            path.rmdir()
        path.unlink(missing_ok=True)
        path.write_bytes(whole)


def _use(root: Path) -> None:
    dataset, _ = value_or(lambda: VocDataset(root))
    if dataset is None:
        return
    report = check_data(dataset, ["train", "train_aug"], scored=["train"], decode=True)
    compare_lists(report, dataset, dataset.split_names())
    shown = page(report)
    assert shown == printable(shown)
    if report.problems:
        assert all(str(root) in problem for problem in report.problems)
        return
    for sample in dataset.samples("train_aug"):
        assert read_image(sample.image_path).shape[0] == 3
        if sample.image_id in dataset.image_ids("train"):
            assert dataset.mask(sample.image_id).shape == read_image(sample.image_path).shape[1:]
