"""The drawn data set: its layout, its masks and annotations, and what makes it safe to write."""

import shutil
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from made_up.voc_tree import contents
from PIL import Image

from wsss.data.drawn.folder import draw_voc
from wsss.data.drawn.pictures import Drawing, draw_picture, drawing_of
from wsss.data.errors import DataError

COUNTS: dict[str, Any] = {"num_train": 6, "num_extra": 4, "num_val": 3}
TRAIN = [f"drawn_00000{i}" for i in range(6)]
EXTRA = [f"drawn_00000{i}" for i in range(6, 10)]
VAL = ["drawn_000010", "drawn_000011", "drawn_000012"]
# Label numbers as the VOC development kit lists them, aeroplane = 1.
VOC_LABELS = {"bird": 3, "boat": 4, "car": 7, "cat": 8, "horse": 13, "sheep": 17}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_voc(tmp_path_factory.mktemp("drawn") / "voc", **COUNTS)


@pytest.fixture(scope="module")
def pictures() -> list[Drawing]:
    return [draw_picture(rng_seed=0, image_index=index) for index in range(60)]


def read_mask(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


def test_every_list_and_folder_holds_exactly_the_ids_that_voc_and_sbd_would_give_it(
    tree: Path,
) -> None:
    lists = {"train": TRAIN, "val": VAL, "trainval": TRAIN + VAL, "train_aug": TRAIN + EXTRA}
    expected = {
        *(f"ImageSets/Segmentation/{name}.txt" for name in lists),
        *(f"JPEGImages/{name}.jpg" for name in TRAIN + EXTRA + VAL),
        *(f"SegmentationClassAug/{name}.png" for name in TRAIN + EXTRA + VAL),
        *(f"SegmentationClass/{name}.png" for name in TRAIN + VAL),
        *(f"Annotations/{name}.xml" for name in TRAIN + VAL),
        "drawn.json",
    }
    assert contents(tree).keys() == expected
    for name, ids in lists.items():
        assert (tree / f"ImageSets/Segmentation/{name}.txt").read_text().splitlines() == ids


def test_the_xml_names_the_classes_of_the_mask(tree: Path) -> None:
    for image_id in TRAIN + VAL:
        mask = read_mask(tree / "SegmentationClass" / f"{image_id}.png")
        annotation = ElementTree.parse(tree / "Annotations" / f"{image_id}.xml").getroot()
        named = {VOC_LABELS[node.text or ""] for node in annotation.findall("object/name")}
        assert named == set(np.unique(mask).tolist()) - {0, 255}


def test_the_files_show_the_picture_and_a_border_beside_each_outline_but_in_extra_ones(
    tree: Path,
) -> None:
    for index, image_id in enumerate(TRAIN + EXTRA + VAL):
        drawing = draw_picture(rng_seed=0, image_index=index)
        decoded = np.array(Image.open(tree / "JPEGImages" / f"{image_id}.jpg")).astype(int)
        assert abs(decoded - drawing.image).mean() < 5
        owner = np.zeros(drawing.labels.shape, int)
        for number, drawn in enumerate(drawing.objects, start=1):
            owner[drawn.body | drawn.part] = number
        expected = drawing.labels.copy()
        for y, x in np.ndindex(*owner.shape) if image_id not in EXTRA else ():
            around = owner[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
            if (around != owner[y, x]).any():
                expected[y, x] = 255
        for folder in ("SegmentationClass", "SegmentationClassAug")[image_id in EXTRA :]:
            np.testing.assert_array_equal(read_mask(tree / folder / f"{image_id}.png"), expected)
        assert (0.01 < (expected == 255).mean() < 0.12) == (image_id not in EXTRA)


def test_two_runs_write_the_same_bytes_and_another_seed_writes_others(
    tree: Path, tmp_path: Path
) -> None:
    stamps = {path: path.stat().st_mtime_ns for path in tree.rglob("*")}
    assert draw_voc(tree, **COUNTS) == tree  # left as it is
    assert {path: path.stat().st_mtime_ns for path in tree.rglob("*")} == stamps
    assert contents(draw_voc(tmp_path / "again", **COUNTS)) == contents(tree)
    other = draw_voc(tmp_path / "other", **COUNTS, rng_seed=1)
    images = [path.read_bytes() for path in sorted(tree.glob("JPEGImages/*"))]
    assert not set(images) & {path.read_bytes() for path in other.glob("JPEGImages/*")}


def test_labels_are_the_visible_bodies_and_parts_of_objects(pictures: list[Drawing]) -> None:
    for image, labels, objects in pictures:
        assert image.shape == (*labels.shape, 3)
        owners = np.zeros(labels.shape, int)
        for drawn in objects:
            owners += drawn.body.astype(int) + drawn.part
            assert (labels[drawn.body | drawn.part] == VOC_LABELS[drawn.name]).all()
        assert owners.max() == 1
        np.testing.assert_array_equal(owners == 1, labels > 0)


def test_classes_are_balanced_and_about_half_the_images_hold_two(pictures: list[Drawing]) -> None:
    holding = Counter(name for d in pictures for name in {drawn.name for drawn in d.objects})
    assert set(holding) == set(VOC_LABELS)
    assert max(holding.values()) < 2 * min(holding.values())
    several = np.mean([len({drawn.name for drawn in d.objects}) > 1 for d in pictures])
    assert 0.3 < several < 0.7


def test_mean_colour_of_the_part_tells_the_class_not_of_the_body(pictures: list[Drawing]) -> None:
    def accuracy(field: str) -> float:
        samples = [
            (drawn.name, drawing.image[getattr(drawn, field)].mean(0))
            for drawing in pictures
            for drawn in drawing.objects
        ]
        half = len(samples) // 2
        centres = {
            name: np.mean([colour for known, colour in samples[:half] if known == name], 0)
            for name in VOC_LABELS
        }
        hits = [
            name == min(centres, key=lambda c: float(np.linalg.norm(centres[c] - colour)))
            for name, colour in samples[half:]
        ]
        return float(np.mean(hits))

    assert accuracy("part") > 0.85
    assert 1 / 6 < accuracy("body") < 0.7


def test_a_folder_with_other_contents_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "VOC2012").mkdir()
    (tmp_path / "VOC2012" / "mine.txt").write_text("keep")
    with pytest.raises(
        DataError,
        match=r"VOC2012: holds something else than pictures drawn with version 1, train 6",
    ):
        draw_voc(tmp_path / "VOC2012", **COUNTS)
    assert contents(tmp_path) == {"VOC2012/mine.txt": b"keep"}


@pytest.mark.parametrize(
    "change", [{"rng_seed": 7}, {"num_train": 5}, {"num_extra": 0}, {"kind": "dim"}]
)
def test_a_tree_drawn_with_other_settings_is_refused(tree: Path, change: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"else than pictures drawn with .*; remove it or name"):
        draw_voc(tree, **COUNTS | change)


def draw_with(monkeypatch: pytest.MonkeyPatch, event: Callable[[], object]) -> None:
    """Let something happen before the last picture is drawn."""

    def draw(kind: str, rng_seed: int, image_index: int) -> Drawing:
        if image_index == 12:
            event()
        return drawing_of(kind, rng_seed, image_index)

    monkeypatch.setattr("wsss.data.drawn.files.drawing_of", draw)


def test_an_interrupted_draw_leaves_nothing_and_one_that_is_overtaken_succeeds(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_with(monkeypatch, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        draw_voc(tmp_path / "voc", **COUNTS)
    assert list(tmp_path.iterdir()) == []
    draw_with(monkeypatch, lambda: shutil.copytree(tree, tmp_path / "voc"))
    root = draw_voc(tmp_path / "voc", **COUNTS)
    assert contents(root) == contents(tree)
    assert list(tmp_path.iterdir()) == [root]
