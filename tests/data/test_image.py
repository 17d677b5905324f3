"""The reader of photographs: the same pixels from every format, upright, or an error by name."""

import builtins
import errno
import io
import os
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fuzzing import EXAMPLES, damaged, value_or_refusal
from made_up.voc_tree import encoded
from PIL import Image, ImageOps

from wsss.basics.files import read_bytes
from wsss.config import LabelsConfig, TrainConfig
from wsss.data.errors import DataError
from wsss.data.loading.batches import CropDataset, LabelledCrops
from wsss.data.pictures.image import BROKEN_IMAGE, MAX_PIXELS, as_array, image_size, read_image
from wsss.data.pictures.mask import write_label_png
from wsss.data.voc import Sample
from wsss.evaluation.figures import draw_gallery
from wsss.labels.infer import infer_cams
from wsss.labels.predict import predict_images
from wsss.labels.refine.random_walk import image_features
from wsss.method.views import IMAGENET_MEAN, IMAGENET_STD
from wsss.overrides import apply_overrides
from wsss.presets import TINY
from wsss.segmentation_config import DeepLabConfig
from wsss.training.affinity import AffinityCrops

CPU = torch.device("cpu")
WIDTH, HEIGHT = 57, 40


def smooth(mode: str = "RGB") -> Image.Image:
    """A picture without symmetry, as a photograph has none."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    picture = coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    if mode in ("LA", "RGBA"):
        alpha = Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8))
        picture = picture.convert(mode[:-1])
        picture.putalpha(alpha)
        return picture
    return picture.convert(mode)


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def png(depth: int, colour: int, rows: list[bytes], width: int = WIDTH) -> bytes:
    """A PNG by hand: Pillow writes 16 bits in grey only."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


FILES: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: encoded(smooth(), "JPEG"),
    "JPEG progressive": lambda: encoded(smooth(), "JPEG", progressive=True),
    "JPEG without subsampling": lambda: encoded(smooth(), "JPEG", subsampling=0),
    "JPEG stored as RGB": lambda: encoded(smooth(), "JPEG", keep_rgb=True),
    "JPEG grey": lambda: encoded(smooth("L"), "JPEG"),
    "JPEG CMYK": lambda: encoded(smooth("CMYK"), "JPEG"),
    "JPEG YCCK": lambda: as_ycck(encoded(smooth("CMYK"), "JPEG")),
    "JPEG of several pictures": lambda: encoded(
        smooth(), "MPO", save_all=True, append_images=[smooth().rotate(180)]
    ),
    "PNG": lambda: encoded(smooth(), "PNG"),
    "PNG grey": lambda: encoded(smooth("L"), "PNG"),
    "PNG grey and alpha": lambda: encoded(smooth("LA"), "PNG"),
    "PNG and alpha": lambda: encoded(smooth("RGBA"), "PNG"),
    "PNG palette": lambda: encoded(smooth().quantize(16), "PNG"),
    "PNG palette with a transparent colour": lambda: encoded(
        smooth().quantize(16), "PNG", transparency=3
    ),
    "PNG black and white": lambda: encoded(smooth("1"), "PNG"),
    "WEBP": lambda: encoded(smooth(), "WEBP"),
    "WEBP and alpha": lambda: encoded(smooth("RGBA"), "WEBP", lossless=True),
    "BMP": lambda: encoded(smooth(), "BMP"),
    "BMP grey": lambda: encoded(smooth("L"), "BMP"),
}


def as_ycck(data: bytes) -> bytes:
    """Say in Adobe's marker that the four channels are YCCK."""
    place = data.index(b"Adobe") + 11
    return data[:place] + b"\2" + data[place + 1 :]


def by_pillow(data: bytes) -> np.ndarray:
    """Upright, alpha dropped."""
    with Image.open(io.BytesIO(data)) as image:
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))


@pytest.mark.parametrize("kind", FILES)
def test_every_kind_of_file_is_read_as_pillow_reads_it(tmp_path: Path, kind: str) -> None:
    data = FILES[kind]()
    # VOC's layout calls every image .jpg: the name says nothing.
    path = written(tmp_path / "a.jpg", data)
    image = read_image(path)
    assert image.dtype == torch.uint8
    assert image.shape == (3, HEIGHT, WIDTH)
    assert image.permute(1, 2, 0).is_contiguous()
    np.testing.assert_array_equal(as_array(image), by_pillow(data))
    assert as_array(image).std() > 20
    assert image_size(path) == (WIDTH, HEIGHT)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_is_read_upright(tmp_path: Path, form: str, orientation: int) -> None:
    options = {"lossless": True} if form == "WEBP" else {}
    path = written(tmp_path / "a.jpg", encoded(smooth(), form, exif=exif(orientation), **options))
    image = read_image(path)
    np.testing.assert_array_equal(as_array(image), by_pillow(path.read_bytes()))
    assert image.permute(1, 2, 0).is_contiguous()
    turned = orientation >= 5
    assert image_size(path) == ((HEIGHT, WIDTH) if turned else (WIDTH, HEIGHT))
    assert tuple(image.shape[1:]) == image_size(path)[::-1]


def test_damaged_and_unknown_tags_turn_nothing(tmp_path: Path) -> None:
    for value in (0, 9, 77):
        path = written(tmp_path / "a.jpg", encoded(smooth(), "JPEG", exif=exif(value)))
        assert read_image(path).shape == (3, HEIGHT, WIDTH)
    data = encoded(smooth(), "JPEG", exif=exif(6))
    place = data.index(b"Exif\0\0") + 6
    path = written(tmp_path / "a.jpg", data[:place] + b"garbage!" + data[place + 8 :])
    assert read_image(path).shape == (3, HEIGHT, WIDTH)
    assert image_size(path) == (WIDTH, HEIGHT)


@pytest.mark.parametrize(("depth", "factor"), [(1, 255), (2, 85), (4, 17), (8, 1)])
def test_grey_of_fewer_bits_is_spread_over_the_whole_range(
    tmp_path: Path, depth: int, factor: int
) -> None:
    path = written(tmp_path / "a.jpg", png(depth, 0, [b"\xb4\x1e"] * 3, width=16 // depth))
    bits = f"{0xB41E:016b}"
    values = [int(bits[k : k + depth], 2) * factor for k in range(0, 16, depth)]
    assert read_image(path).tolist() == [[values] * 3] * 3


TURNED: dict[str, Callable[[], bytes]] = {
    f"{form} turned": partial(encoded, smooth(), form, exif=exif(6), comment=b"c", dpi=(72, 72))
    for form in ("JPEG", "PNG", "WEBP")
}
DAMAGED = ("JPEG", "JPEG progressive", "PNG", "PNG palette", "WEBP", "BMP", *TURNED)


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_or_cut_file_is_read_as_by_pillow_or_refused_with_it(
    tmp_path: Path, kind: str, recwarn: pytest.WarningsRecorder
) -> None:
    path, whole, read = tmp_path / "a.jpg", (FILES | TURNED)[kind](), 0
    for seed in range(EXAMPLES or 60):
        data = whole[:2] + damaged(whole[2:], seed) if seed % 3 else whole[: -seed - 1]
        path.write_bytes(data)
        size, _ = value_or_refusal(lambda: image_size(path), DataError)
        image, refused = value_or_refusal(lambda: read_image(path), DataError)
        try:
            expected = by_pillow(data)
        except BROKEN_IMAGE:
            if image is not None:
                assert "turned" in kind  # a damaged tag turns nothing
                continue
            told = r"cannot be decoded as .*; replace the file$|.*; save the image with 8 bits"
            assert re.match(f"{path}: ({told})", refused), refused
        else:
            if image is None:
                assert "8 bits" in refused
                continue
            np.testing.assert_array_equal(as_array(image), expected)
            assert size
            assert image.shape == (3, *size[::-1])
            read += 1
    assert 3 < read < (EXAMPLES or 60) - 10


def test_a_png_with_too_few_pixels_or_none_is_refused_and_ends_no_process(tmp_path: Path) -> None:
    none = png(8, 2, [b"\7" * 3 * WIDTH])
    none = none[: none.index(b"IDAT") - 4] + none[-12:]
    for data in (png(8, 2, [b"\7" * 3] + [b""] * 39), none):
        path = written(tmp_path / "few.jpg", data)
        with pytest.raises(DataError, match=r"few\.jpg: cannot be decoded .*; replace the file"):
            read_image(path)


def jpeg_bomb() -> bytes:
    """A small picture that says it were 65,500 pixels wide and high."""
    data = encoded(Image.new("RGB", (8, 8)), "JPEG")
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", 65_500, 65_500) + data[place + 4 :]


FORMATS = "cannot be decoded as JPEG or PNG or WEBP or BMP"
TOO_LARGE = "over 178,956,970 pixels; scale it"
NO_PICTURES: dict[str, tuple[bytes | None, str]] = {
    "missing": (None, "missing; add the file"),
    "words": (b"no picture", FORMATS),
    "empty": (b"", FORMATS),
    **{form: (encoded(smooth(), form), FORMATS) for form in ("GIF", "TIFF", "PPM", "EPS")},
    "JPEG bomb": (jpeg_bomb(), TOO_LARGE),
    "PNG bomb": (png(8, 2, [b""], width=2**31 - 1), TOO_LARGE),
    **{
        f"16 bits in {channels}": (
            png(16, colour, [bytes(range(2 * channels)) * WIDTH] * HEIGHT),
            "16 bits per channel; save the image with 8",
        )
        for colour, channels in ((0, 1), (2, 3), (4, 2), (6, 4))
    },
}


@pytest.mark.parametrize("kind", NO_PICTURES)
def test_what_is_no_picture_is_refused_alike_by_the_check_and_by_the_reader(
    tmp_path: Path, kind: str
) -> None:
    (content, told), path = NO_PICTURES[kind], tmp_path / "a.jpg"
    if content is not None:
        path.write_bytes(content)
    for read in (read_image, image_size):
        with pytest.raises(DataError, match=re.escape(f"{path}: {told}")):
            read(path)


def test_a_picture_of_nearly_that_size_is_read_without_a_warning(tmp_path: Path) -> None:
    assert Image.MAX_IMAGE_PIXELS == MAX_PIXELS // 2  # above, Pillow warns
    Image.new("1", (10_000, 9_500)).save(tmp_path / "large.png")
    code = "from pathlib import Path; from wsss.data.pictures.image import image_size; "
    code += "image_size(Path('large.png'))"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, check=True)
    assert done.stderr == b""


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.ESTALE])
def test_a_drive_that_fails_says_nothing_of_the_picture_and_is_passed_on(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A DataError would fail its trial for good."""
    path = written(tmp_path / "a.jpg", encoded(smooth(), "JPEG"))

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(builtins, "open", refuse)
        patched.setattr(io, "open", refuse)
        for read in (read_image, image_size, lambda path: read_bytes(path, 9, DataError)):
            with pytest.raises(OSError, match=os.strerror(number)) as caught:
                read(path)
            assert not isinstance(caught.value, DataError)
            assert caught.value.filename == str(path)
        number = errno.EACCES  # the user can have that changed
        with pytest.raises(DataError, match=r"a\.jpg: Permission denied; have it made readable"):
            read_image(path)
    assert image_size(path) == (WIDTH, HEIGHT)


# One reader for all


class Seeing(torch.nn.Module):
    """Stands for a network: keeps the pixels it is given, and gives zeros [B, K, H, W]."""

    num_labels = 2

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> Any:
        mean, std = (
            torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD)
        )
        self.seen += (x * std + mean) * 255
        return SimpleNamespace(cams=torch.zeros(len(x), 2, *x.shape[2:]))


class SeeingDeepLab(Seeing):
    """As `Seeing`, in the place of a segmentation or an affinity network."""

    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(x).cams


def test_all_stages_see_the_same_upright_pixels_and_masks_fit_them(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jpg", encoded(smooth(), "JPEG", exif=exif(6)))
    sample, upright = Sample("a", path, (0,)), read_image(path)
    assert upright.shape == (3, WIDTH, HEIGHT)  # the long side is upright
    mask = np.zeros((WIDTH, HEIGHT), np.uint8)
    write_label_png(tmp_path / "a.png", mask)

    train = TrainConfig(
        crop_size=WIDTH, min_long_side=WIDTH, max_long_side=WIDTH, horizontal_flip=False
    )
    deeplab = DeepLabConfig(crop_size=WIDTH, scale_jitter=(1, 1), test_scales=(1,), test_flip=False)
    for crops in (
        CropDataset([sample], 2, train, rng_seed=0),
        AffinityCrops([sample], lambda _: mask, train, rng_seed=0),
        LabelledCrops([sample], [tmp_path / "a.png"], 2, deeplab),
    ):
        pixels, box, _ = crops[0, 0]
        top, left, bottom, right = box.tolist()
        content = pixels[:, top:bottom, left:right]
        assert torch.equal(content, upright) or torch.equal(content, upright.flip(2))

    cam, other = Seeing(), SeeingDeepLab()
    labels = LabelsConfig(scales=(1,), flip=False)
    (cams,) = infer_cams(cam, [sample], labels, device=CPU)  # type: ignore[arg-type]
    other.eval()
    image_features(other, cams, device=CPU)  # type: ignore[arg-type]
    (found,) = predict_images(other, [path], tmp_path / "out", deeplab, ["cat"])  # type: ignore[arg-type]
    assert len(cam.seen) == 1
    assert len(other.seen) == 2
    for seen in (*cam.seen, *other.seen):
        assert torch.equal(seen.round(), upright)
    assert torch.equal(read_image(found.overlay), upright)  # nothing found: nothing tinted

    gallery, config = Seeing(), apply_overrides(TINY, {"views.reading": "literal_unclipped"})
    dataset: Any = SimpleNamespace(classes=["cat"], mask=lambda _: mask)
    draw_gallery(tmp_path / "g.png", gallery, dataset, [sample], config, device=CPU)  # type: ignore[arg-type]
    readings = ((1, 0), (1.5, 300), (0.8, 150))  # as a training shows them
    for seen, (alpha, beta) in zip(gallery.seen[-3:], readings, strict=True):
        torch.testing.assert_close(seen, alpha * upright.float() + beta, atol=0.01, rtol=0)
