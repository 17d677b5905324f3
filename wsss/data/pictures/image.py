"""Photographs as upright RGB tensors; only this file decodes them.

Pillow reads every header: it refuses decompression bombs and other formats, and finds how an image
is turned. torchvision decodes JPEGs, to the same pixels in half the time. Other formats are left to
Pillow, as torchvision's PNG decoder crashes on some damaged files. Legend: H W size, upright.
"""

import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import error as struct_error
from typing import TYPE_CHECKING
from zlib import error as zlib_error

from PIL import ExifTags, Image, ImageFile

from wsss.basics.errors import OF_A_PATH, let_through
from wsss.basics.files import refuse_pipe, what_is_there
from wsss.data.errors import DataError

if TYPE_CHECKING:  # imported where pixels are read: a check of headers starts fast
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
"""Not EPS, for which Pillow would start another program."""
IMAGE_MODES = ("RGB", "RGBA", "L", "LA", "P", "CMYK", "YCbCr", "1")
"""Those of 8 bits or fewer: made RGB, 16-bit pixels would be cut off at 255."""
BROKEN_IMAGE = (
    *(OSError, SyntaxError, ValueError, EOFError, struct_error, zlib_error),
    Image.DecompressionBombError,
)
"""What Pillow raises for damaged files."""
MAX_PIXELS = 178_956_970
"""What Pillow opens, to be safe from small files that unpack to gigabytes."""
warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # of half as many

FLIPPED_AXES = {2: (2,), 3: (1, 2), 4: (1,), 5: (), 6: (2,), 7: (1, 2), 8: (1,)}
"""By EXIF orientation. From 5 on, rows and columns are exchanged first."""
ORIENTATION_IN = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}
"""Where Pillow looks for it. Without these it would decode a PNG to find one after the pixels."""


def read_image(path: Path) -> "Tensor":
    """Decode an image: uint8 RGB [3, H, W], a view of [H, W, 3].

    It is turned as its EXIF tag says; alpha is dropped. Raises DataError for a file that is
    missing, broken, too large for Pillow, or has more than 8 bits per channel.
    """
    with opened(path, IMAGE_FORMATS) as image:
        _require_8_bits(path, image)
        return _upright(_decoded(path, image), orientation(image))


def decoded_words(path: Path) -> str:
    """Decode a picture; return what libjpeg says of a damaged one that it decodes, in one line.

    It writes such words to standard error, without the file's name, and tells its caller nothing.
    "" for a whole picture, whatever Pillow warns of, such as its size or a transparent palette.
    Raises DataError for one that cannot be decoded.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with tempfile.TemporaryFile() as heard, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            os.dup2(heard.fileno(), 2)
            try:
                read_image(path)
            finally:
                os.dup2(kept, 2)
            heard.seek(0)
            words = heard.read().decode(errors="replace").split()
    finally:
        os.close(kept)
    return " ".join(words)


def image_size(path: Path) -> tuple[int, int]:
    """Return (width, height) of the image as `read_image` returns it, from the file's header.

    Raises DataError as `read_image` does, except for damage after the header.
    """
    with opened(path, IMAGE_FORMATS) as image:
        _require_8_bits(path, image)
        width, height = image.size
        return (height, width) if orientation(image) >= 5 else (width, height)


@contextmanager
def opened(
    path: Path, formats: tuple[str, ...], *, remedy: str = "replace the file"
) -> Iterator[ImageFile.ImageFile]:
    """Open a picture or mask; what Pillow raises within the context becomes a DataError.

    remedy: for a damaged file.
    """
    refuse_pipe(path, DataError)
    try:
        with Image.open(path, formats=formats) as image:
            yield image
    except DataError:
        raise
    except FileNotFoundError:
        found = what_is_there(path)
        there = "" if found == "no file" else f" ({found})"
        raise DataError(
            f"{path}: missing{there}; add the file or remove the image from its splits"
        ) from None
    except Image.DecompressionBombError:
        raise DataError(
            f"{path}: over {MAX_PIXELS:,} pixels; scale it down, or cut it into several"
        ) from None
    except PermissionError as error:
        raise DataError(f"{path}: {error.strerror}; have it made readable for you") from None
    except BROKEN_IMAGE as error:
        let_through(error, path, but=OF_A_PATH)
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise DataError(
            f"{path}: cannot be decoded as {' or '.join(formats)} ({reason}); {remedy}"
        ) from None


def as_array(image: "Tensor") -> "NDArray[np.uint8]":
    """[3, H, W] -> [H, W, 3], as Pillow and the CRF need it, without a copy."""
    return image.permute(1, 2, 0).numpy()


def _require_8_bits(path: Path, image: ImageFile.ImageFile) -> None:
    # Pillow drops the lower 8 of 16 bits of a PNG in colour, whose mode does not show them.
    deep = image.format == "PNG" and any(str(tile.args).endswith(";16B") for tile in image.tile)
    if deep or image.mode not in IMAGE_MODES:
        mode = "16 bits per channel" if deep else f"mode {image.mode}"
        raise DataError(f"{path}: {mode}; save the image with 8 bits per channel")


def _decoded(path: Path, image: Image.Image) -> "Tensor":
    import numpy as np
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    if image.format in ("JPEG", "MPO"):
        try:
            data = torch.from_numpy(np.fromfile(path, np.uint8))
            return decode_jpeg(data, mode=ImageReadMode.RGB)
        except RuntimeError:
            pass  # Pillow reads some of these, and explains what is wrong with the others
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1..8; 1 for a damaged tag, as in image viewers."""
    if not ORIENTATION_IN & image.info.keys():
        return 1
    try:
        found = image.getexif().get(ExifTags.Base.Orientation)
    except BROKEN_IMAGE:
        return 1
    return found if found in FLIPPED_AXES else 1


def _upright(pixels: "Tensor", turn: int) -> "Tensor":
    if turn == 1:
        return pixels
    if turn >= 5:
        pixels = pixels.transpose(1, 2)
    upright = pixels.flip(FLIPPED_AXES[turn])
    return upright.permute(1, 2, 0).contiguous().permute(2, 0, 1)
