"""Made-up sweeps of any number of trials, and the files of a trial without any training.

File sizes, and the keys of done.json, are those of a MobileNetV2 on real pictures; the weights have
1 MB instead of 25, and pictures and counts are noise, which nothing here opens.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sweeps.plan.sweep import Sweep
from sweeps.plan.trials import Trial
from sweeps.store.store import Store
from sweeps.tables.studies import F3, TABLES
from sweeps.tables.table import Cell, Row, Table
from wsss.data.classes import VOC_CLASSES
from wsss.overrides import apply_overrides
from wsss.presets import TINY
from wsss.training.checkpoint_names import checkpoint_name

NUM_EPOCHS, NUM_COLUMNS, NUM_SEEDS = 8, 10, 10
SIZES = {
    "counts.npz": 162_000,
    "threshold_curve.png": 33_000,
    "cam_gallery.png": 662_000,
    "checkpoint": 1_000_000,
}


def made_up_sweep(num_trials: int) -> Sweep:
    """Return a sweep over a grid of lambda_s x lambda_bs with NUM_SEEDS seeds.

    num_trials: a multiple of 100, or of 10 below 100. The table is added to TABLES.
    """
    num_columns = min(NUM_COLUMNS, num_trials // NUM_SEEDS)
    num_rows = num_trials // (num_columns * NUM_SEEDS)
    columns = [step / num_columns for step in range(1, num_columns + 1)]
    rows = [step / num_rows for step in range(1, num_rows + 1)]
    table = Table(
        f"grid-{num_trials}",
        "a grid",
        ("lambda_s",),
        tuple(
            Row((f"{s:.6g}",), tuple(Cell(F3 | _lambdas(s, bs), None) for bs in columns))
            for s in rows
        ),
        "lambda_bs",
        tuple(f"{value:g}" for value in columns),
    )
    TABLES[table.name] = table
    settings = {
        "data.name": "made-up",
        "data.fingerprint": "0123456789abcdef",
        "train.epochs": NUM_EPOCHS,
    }
    base = apply_overrides(TINY, settings)
    return Sweep((table.name,), "tiny", base, NUM_SEEDS, Path("/nowhere"), None, 411, 311)


def _lambdas(lambda_s: float, lambda_bs: float) -> dict[str, float]:
    return {"transfer.lambda_s": lambda_s, "transfer.lambda_bs": lambda_bs}


def made_up_epoch(epoch: int) -> dict[str, Any]:
    """Return the record of an epoch: ten numbers and the losses of 25 steps."""
    names = ("loss", "loss_cls", "loss_s", "loss_bs", "grad_norm", "lr", "prior_gap", "seconds")
    record: dict[str, Any] = {"epoch": epoch} | {
        name: (1 + place) / (epoch + 0.37) for place, name in enumerate(names)
    }
    steps = [round(1 / (epoch + step / 25), 6) for step in range(25)]
    return record | {"images_per_second": 9.83403720751246, "step_losses": steps}


def made_up_metrics() -> dict[str, Any]:
    """Return the figures of a finished trial, as long as real ones."""
    ious = [round(10 + 2.3337 * label, 4) for label in range(21)]
    return {
        "miou_fixed": 21.677070975246338,
        "miou_best": 21.73053454977416,
        "best_threshold": 0.21,
        "fixed_threshold": 0.15,
        "precision_fixed": 42.277162604857836,
        "recall_fixed": 62.82666078304955,
        "iou_fixed": ious,
        "iou_best": ious,
        "curve": [[step / 100, 21.2471] for step in range(100)],
        "classes": list(VOC_CLASSES),
        "data": {"train_images": 411, "eval_images": 311},
        "train_seconds": 60.0,
        "inference_seconds": 12.0,
        "score_seconds": 3.0,
        "environment": {
            "code_version": "0.1.0",
            "python": "3.11.7",
            "device": "cpu",
            "processes": 1,
            **dict.fromkeys(("torch", "torchvision", "numpy", "pillow", "ray", "mlflow"), "1.2.3"),
        },
    }


def write_template(folder: Path) -> Path:
    """Write the files of a finished run but config.json, and the checkpoint; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, size in SIZES.items():
        (folder / name).write_bytes(os.urandom(size))
    (folder / "done.json").write_bytes(_METRICS)
    return folder


def write_small_run(store: Store, trial: Trial) -> None:
    """Write only what listings, tables and estimates read of a finished trial, without fsync."""
    run, cam = store.run(trial.run_id).path, store.cam(trial.cam_id).path
    run.mkdir(parents=True, exist_ok=True)
    cam.mkdir(parents=True, exist_ok=True)
    (run / "config.json").write_text(trial.config.model_dump_json(indent=1))
    (run / "done.json").write_bytes(_METRICS)
    (cam / "epochs").mkdir()
    for epoch, record in enumerate(_EPOCHS, start=1):
        (cam / "epochs" / f"{epoch:04d}.json").write_text(record)


_METRICS = json.dumps(made_up_metrics(), indent=1).encode()
_EPOCHS = [json.dumps(made_up_epoch(epoch), indent=1) for epoch in range(1, NUM_EPOCHS + 1)]


def trial_writer(root: Path, folder: Path) -> Callable[[str, str, int], None]:
    """Return a function (run id, CAM id, epoch) that writes an epoch's files into a store.

    After the last epoch also those of scoring, done.json last, copied from a template's folder. It
    uses only the standard library, and is a closure so that Ray can send it to other processes.
    """
    lines = list(_EPOCHS)
    names = ("threshold_curve.png", "cam_gallery.png", "done.json")
    checkpoint = checkpoint_name(NUM_EPOCHS)

    def write(run_id: str, cam_id: str, epoch: int) -> None:
        cam, run = root / "cams" / cam_id, root / "runs" / run_id
        if epoch == 1:
            for name in ("checkpoints", "epochs"):
                (cam / name).mkdir(parents=True, exist_ok=True)
        (cam / "epochs" / f"{epoch:04d}.json").write_text(lines[epoch - 1])
        if epoch < len(lines):
            return
        shutil.copyfile(folder / "checkpoint", cam / "checkpoints" / checkpoint)
        run.mkdir(parents=True, exist_ok=True)
        (run / "config.json").write_text("{}")
        for name in names:
            shutil.copyfile(folder / name, run / name)

    return write
