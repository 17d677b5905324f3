"""The evaluation server's archive: written alike each time, and every broken rule is named."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
from made_up.voc_tree import encoded, palette_mask
from PIL import Image

from wsss.data.classes import voc_palette
from wsss.data.errors import DataError
from wsss.data.pictures.mask import write_label_png
from wsss.evaluation.voc_server import write_server_tar

FOLDER = "results/VOC2012/Segmentation/comp6_test_cls"
SIZES = {"2008_000006": (40, 30), "2008_000011": (25, 50), "2012_004330": (33, 33)}
IDS = list(SIZES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "predictions"
    for index, (name, (width, height)) in enumerate(SIZES.items()):
        label = np.random.default_rng(index).integers(0, 21, (height, width), dtype=np.uint8)
        write_label_png(folder / f"{name}.png", label)
    (folder / "not_of_the_split.png").write_bytes(b"")
    return folder


def png(label: np.ndarray, mode: str = "P", palette: list[int] | None = None) -> bytes:
    plain = Image.fromarray(label.astype(np.uint8))
    return encoded(palette_mask(label, palette) if mode == "P" else plain.convert(mode), "PNG")


def test_the_archive_holds_the_split_where_the_server_looks_in_the_same_bytes_each_time(
    folder: Path, tmp_path: Path
) -> None:
    write_server_tar(folder, SIZES, tmp_path / "one.tar")
    with tarfile.open(tmp_path / "one.tar") as tar:
        assert tar.getnames() == [f"{FOLDER}/{name}.png" for name in IDS]
        for member in tar:
            assert (member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "")
            assert member.mode == 0o644
            file = tar.extractfile(member)
            assert file.read() == (folder / Path(member.name).name).read_bytes()
    write_server_tar(folder, dict(reversed(SIZES.items())), tmp_path / "other.tar")
    assert (tmp_path / "other.tar").read_bytes() == (tmp_path / "one.tar").read_bytes()


def test_a_missing_prediction_is_named_and_nothing_is_written(folder: Path, tmp_path: Path) -> None:
    (folder / f"{IDS[1]}.png").unlink()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(DataError, match=rf"1 of 3 .* missing, first {IDS[1]}\.png; predict"):
        write_server_tar(folder, SIZES, tmp_path / "new.tar")
    with pytest.raises(DataError, match="no image ids"):
        write_server_tar(folder, {}, tmp_path / "new.tar")
    assert sorted(tmp_path.iterdir()) == before


LABEL = np.arange(40 * 30).reshape(30, 40) % 21


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (png(LABEL), None),
        (png(LABEL, palette=voc_palette()[:63]), None),
        (png(LABEL, mode="L"), "has mode L, the server takes P"),
        (png(LABEL, mode="RGB"), "is not in VOC.s palette"),
        (png(np.where(LABEL == 20, 21, LABEL)), "value 21 is no class"),
        (png(np.where(LABEL == 20, 255, LABEL)), "value 255 is no label"),
        (png(LABEL.T), "30x40 pixels, its image has 40x30"),
        (png(LABEL, palette=[0, 0, 0, 255, 0, 0] * 128), "another palette than VOC's"),
        (png(LABEL, palette=voc_palette()[:30]), "another palette than VOC's"),
        (b"GIF89a not a png", "cannot be decoded"),
    ],
)
def test_a_prediction_the_server_would_refuse_is_named_with_its_rule(
    folder: Path, tmp_path: Path, data: bytes, message: str | None
) -> None:
    (folder / f"{IDS[0]}.png").write_bytes(data)
    if message is None:
        write_server_tar(folder, SIZES, tmp_path / "new.tar")
        return
    with pytest.raises(DataError, match=rf"{IDS[0]}\.png: .*{message}.*; "):
        write_server_tar(folder, SIZES, tmp_path / "new.tar")
    assert not list(tmp_path.glob("*.tar*"))
