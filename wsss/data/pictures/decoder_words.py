"""What the JPEG decoder says of a damaged picture that it decodes nevertheless.

libjpeg writes such words to the process's standard error, without the file's name, and tells its
caller nothing.
"""

import os
import sys
import tempfile
import warnings
from pathlib import Path

STDERR = 2
"""Its descriptor."""


def decoded_words(path: Path) -> str:
    """Decode a picture; return what was written to standard error meanwhile, in one line.

    "" for a whole picture, whatever Pillow warns of, such as its size or a transparent palette.
    Raises DataError for one that cannot be decoded.
    """
    from wsss.data.pictures.image import read_image

    sys.stderr.flush()
    kept = os.dup(STDERR)
    try:
        with tempfile.TemporaryFile() as heard, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            os.dup2(heard.fileno(), STDERR)
            try:
                read_image(path)
            finally:
                os.dup2(kept, STDERR)
            heard.seek(0)
            words = heard.read().decode(errors="replace").split()
    finally:
        os.close(kept)
    return " ".join(words)
