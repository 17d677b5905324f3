"""A small data set in VOC's layout, drawn by code, for first runs, tests and demonstrations."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from wsss.basics.files import BrokenFileError, read_json
from wsss.data.errors import DataError

DRAWN = {"drawn": "parts", "drawn-glare": "glare", "drawn-dim": "dim"}
"""Name of a drawn data set, as `--data` takes it -> its kind of pictures.

parts: objects with a distinctive part; glare, dim: positive and negative control of the enhanced
view (pictures.py).
"""
RECORD = "drawn.json"
"""In a drawn data set: how it was drawn."""
DRAWING_VERSION = 1  # raise it when the pictures change, so that older ones are not reused


def draw_voc(
    root: Path,
    *,
    kind: str = "parts",
    num_train: int = 60,
    num_extra: int = 100,
    num_val: int = 48,
    rng_seed: int = 0,
) -> Path:
    """Write a drawn data set in VOC's layout to `root`; return `root`. Same seed, same bytes.

    kind: one of `DRAWN`'s values. `root` appears in one rename; a killed process can only leave a
    hidden `.part` folder beside it. The same set, if it is there already, is left as it is. Raises
    DataError if `root` is anything but this set.
    """
    counts = {"train": num_train, "extra": num_extra, "val": num_val}
    record: dict[str, Any] = {"version": DRAWING_VERSION, **counts, "rng_seed": rng_seed}
    record |= {"kind": kind} if kind != "parts" else {}
    if _already_drawn(root, record):
        return root
    # NumPy, Pillow and filelock are only for drawing; usually the set is there already.
    from wsss.data.building import temporary
    from wsss.data.drawn.files import write_tree

    root.parent.mkdir(parents=True, exist_ok=True)
    with temporary(root.with_name(f".{root.name}.{uuid4().hex}.part")) as building:
        write_tree(building, kind, counts, rng_seed)
        (building / RECORD).write_text(json.dumps(record, indent=2) + "\n")
        try:
            building.rename(root)
        except OSError:  # another process may have put the same set there meanwhile
            if not _already_drawn(root, record):
                raise
    return root


def _already_drawn(root: Path, record: dict[str, Any]) -> bool:
    if not root.exists():
        return False
    found: Any = None
    with suppress(NotADirectoryError, BrokenFileError):
        found = read_json(root / RECORD)
    if found == record:
        return True
    asked = ", ".join(f"{key} {value}" for key, value in record.items())
    raise DataError(
        f"{root}: holds something else than pictures drawn with {asked} (see its {RECORD}); remove "
        "it or name another folder"
    )
