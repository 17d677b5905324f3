"""What an image's result was made from: a digest of its picture and labels, kept in its file.

A file of CAMs holds it as the array `source`, a PNG as the text `source`. So a result is recognised
wherever it is copied to, and one made from another picture or other labels is not reused.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from wsss.basics.errors import let_through
from wsss.basics.files import BROKEN_ZIP, open_file
from wsss.basics.progress import shown
from wsss.data.pictures.image import BROKEN_IMAGE
from wsss.data.voc import VocDataset


def sources_of(dataset: VocDataset, image_ids: Iterable[str]) -> dict[str, str]:
    """Return by id a digest, 16 hex digits, of an image's file and the names of its classes.

    Reads every file. Masks count only where labels come from them. Raises DataError for an image
    that is missing or has no labels.
    """
    found = {}
    for image_id in shown(list(image_ids), "reading the pictures"):
        sample = dataset.sample(image_id)
        digest = hashlib.sha256(sample.image_path.read_bytes())
        digest.update("\n".join(dataset.classes[k] for k in sample.labels).encode())
        found[image_id] = digest.hexdigest()[:16]
    return found


def digest_of(sources: Mapping[str, str]) -> str:
    """Return a digest of the sources of several images, in any order; "" of none."""
    text = json.dumps(sources, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16] if sources else ""


def source_in(path: Path) -> str:
    """Return the source that a file of CAMs or a label PNG holds; "" if none or it is broken.

    Raises OSError if it cannot be read.
    """
    try:
        if path.suffix == ".npz":
            with open_file(path) as file, np.load(file, allow_pickle=False) as data:
                return str(data["source"]) if "source" in data else ""
        with open_file(path) as file, Image.open(file, formats=("PNG",)) as image:
            return str(image.info.get("source", ""))
    except (*BROKEN_ZIP, *BROKEN_IMAGE) as error:
        let_through(error, path)
        return ""
