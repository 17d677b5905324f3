"""Finished trials without training: a store filled with counted pixels of chosen quality."""

import io
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

from sweeps.evidence.image_counts import count_images, save_run_counts
from sweeps.plan.chains.chain import counts_id
from sweeps.plan.sweep import BaseOptions, Sweep, make_sweep, save_sweep
from sweeps.plan.trials import Trial
from sweeps.report.live.status import show_status
from sweeps.store.store import Store, write_config, write_json
from wsss.data.classes import VOC_CLASSES
from wsss.evaluation.confusion import ThresholdCounts, collect, threshold_grid
from wsss.evaluation.score import score_counts
from wsss.overrides import apply_overrides
from wsss.presets import TINY

NUM_LABELS = 21


def finished_sweep(tables: tuple[str, ...], num_seeds: int, num_images: int = 30) -> Sweep:
    """A sweep on a data set that does not exist."""
    base = apply_overrides(TINY, {"data.name": "made-up", "data.fingerprint": "0123456789abcdef"})
    return Sweep(tables, "tiny", base, num_seeds, Path("/nowhere"), None, 160, num_images)


def tiny_sweep(data: Path, *tables: str) -> Sweep:
    """A sweep of the preset tiny on a data set."""
    return make_sweep(tables, BaseOptions("tiny", data))[0]


def cell(sweep: Sweep, name: str, seed: int = 0) -> Trial:
    """The trial of a cell of the sweep's only table, such as "yes,no"."""
    (table,) = sweep.table_names
    return sweep.plan.cell_trials[f"{table}[{name}]"][seed]


def fill(
    store: Store,
    sweep: Sweep,
    quality: Callable[[Trial], float | None],
    *,
    num_images: int = 30,
    gallery: bool = False,
) -> None:
    """Finish each trial whose quality (in [0, 1]: share of right pixels) is not None."""
    save_sweep(store, sweep)
    for trial in sweep.plan.trials:
        share = quality(trial)
        if share is not None:
            finish(store, trial, share, num_images=num_images, gallery=gallery)


def finish(
    store: Store, trial: Trial, share: float, *, num_images: int = 30, gallery: bool = False
) -> None:
    """Write what a finished trial leaves."""
    run, cam = store.run(trial.run_id), store.cam(trial.cam_id)
    write_config(run.path / "config.json", trial.config)
    for epoch in (1, 2, 3):
        cam.add_epoch(epoch_record(epoch, share))
    counts = made_up_counts(num_images, share, trial.config.rng_seed)
    score = score_counts(counts, trial.config.labels)
    counted = store.root / "counts" / counts_id(trial.config)
    counted.mkdir(parents=True, exist_ok=True)
    counts.save(counted / "counts.npz")
    save_run_counts(
        run.path, count_images(counts, fixed=score.fixed_threshold, best=score.best_threshold)
    )
    if gallery:
        Image.new("RGB", (300, 100), (40, 90, 160)).save(run.path / "cam_gallery.png")
    write_json(
        run.path / "done.json",
        asdict(score)
        | {
            "classes": list(VOC_CLASSES),
            "data": {"train_images": 160, "eval_images": num_images},
            "train_seconds": 60.0,
            "inference_seconds": 12.0,
            "score_seconds": 0.0,
            "environment": {"code_version": "1.2.3", "device": "cpu", "processes": 1},
        },
    )


def status_of(
    store: Store,
    sweep: Sweep,
    *,
    width: int = 300,
    by_trial: bool = False,
    every: float | None = None,
) -> str:
    """What `sweeps status` prints."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    show_status(console, store, sweep, by_trial=by_trial, every=every)
    return console.file.getvalue()


def epoch_record(epoch: int, share: float) -> dict[str, object]:
    """Losses of one epoch of five steps."""
    steps = [1 / (epoch + step / 5) + (1 - share) * (-1) ** step / 10 for step in range(5)]
    return {"epoch": epoch, "loss": float(np.mean(steps)), "seconds": 20.0, "step_losses": steps}


def made_up_counts(num_images: int, share: float, rng_seed: int) -> ThresholdCounts:
    """Images of two labels each, of whose pixels about `share` are labelled as they are."""
    rng = np.random.default_rng(rng_seed)
    thresholds = threshold_grid(0.15)
    images = []
    for index in range(num_images):
        label = 1 + index % (NUM_LABELS - 1)
        right = np.clip(share + rng.normal(0, 0.05), 0.02, 0.98)
        high, low = len(thresholds), 3  # buckets above and below any threshold in use
        pixels = {
            (label, label, high): round(4000 * right),
            (label, label, low): 4000 - round(4000 * right),
            (0, label, low): round(6000 * right),
            (0, label, high): 6000 - round(6000 * right),
        }
        codes = [(t * NUM_LABELS + p) * (len(thresholds) + 1) + b for t, p, b in pixels]
        images.append(
            (
                f"image_{index:04}",
                np.array(codes, np.uint32),
                np.array(list(pixels.values()), np.uint32),
            )
        )
    return collect(images, thresholds, NUM_LABELS)
