"""Which runs have counted a training's pixels, and how: another score of them needs no inference.

The pixel counts of a run serve every background score on its threshold grid, so of the runs which
share a training and an inference, the first infers and the others read its counts. Each training's
folder lists them in counted.json, so that none is searched for.
"""

import json
from functools import cache
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

from sweeps.store.store import CamFolder, Store, read_json, write_json
from wsss.config import RunConfig

if TYPE_CHECKING:
    from wsss.evaluation.confusion import ThresholdCounts

FILE_NAME = "counted.json"


def note_counts(cam: CamFolder, config: RunConfig, run_id: str) -> None:
    """Write down that a finished run holds counts of this training. Call it under its lock."""
    known = read_json(cam.path / FILE_NAME) or {}
    write_json(cam.path / FILE_NAME, {**known, inference_key(config): run_id})


def find_counts(
    store: Store, cam: CamFolder, config: RunConfig, image_ids: set[str]
) -> "tuple[str, ThresholdCounts] | None":
    """Return a finished run and its counts of these very images, or None: then infer.

    Its training, inference and threshold grid are those of `config`, so that all figures come out
    as if inferred anew. A score off the .01 grid has a grid of its own. Counts that are lost or
    broken do not count.
    """
    import numpy as np

    from wsss.evaluation.confusion import ThresholdCounts, threshold_grid

    run_id = (read_json(cam.path / FILE_NAME) or {}).get(inference_key(config))
    if run_id is None or store.run(run_id).metrics() is None:
        return None
    try:
        counts = ThresholdCounts.load(store.run(run_id).path / "counts.npz")
    except (OSError, EOFError, KeyError, ValueError, BadZipFile):
        return None
    same_grid = np.array_equal(counts.thresholds, threshold_grid(config.labels.background_score))
    return (run_id, counts) if same_grid and set(counts.image_ids) == image_ids else None


def inference_key(config: RunConfig) -> str:
    """Return, as JSON, all that decides a training's counts: inference, images, threshold grid."""
    settings: dict[str, Any] = {
        "eval_split": config.data.eval_split,
        "scales": config.labels.scales,
        "flip": config.labels.flip,
    }
    if not _is_on_grid(config.labels.background_score):
        settings["off_grid"] = config.labels.background_score
    return json.dumps(settings, sort_keys=True)


@cache
def _is_on_grid(background_score: float) -> bool:
    if background_score < 0.995 and background_score == round(background_score, 2):
        return True  # a hundredth: planning needs no NumPy to see that
    from wsss.evaluation.confusion import threshold_grid

    return len(threshold_grid(background_score)) == len(threshold_grid(0.0))
