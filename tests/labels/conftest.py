"""Pictures that tests of inference share."""

import numpy as np
import pytest
from PIL import Image

from wsss.data.voc import Sample


@pytest.fixture(scope="session")
def smooth(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Two smooth pictures of odd sizes; the labels of the first leave gaps. To read."""
    folder = tmp_path_factory.mktemp("images")
    found = []
    for index, (size, labels) in enumerate([((53, 38), (1, 4)), ((34, 47), (0, 2, 5))]):
        rng = np.random.default_rng(index)
        coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
        path = folder / f"{index}.png"
        coarse.resize(size, Image.Resampling.BICUBIC).save(path)
        found.append(Sample(str(index), path, labels))
    return found
