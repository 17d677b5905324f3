"""What memory.py measures: one piece of a trial's work, in its own process.

Usage: python -m benchmarks.sweep.memory_work WORK PRESET BATCH. Prints JSON: `rss`, the process's
largest resident memory in MiB.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.pictures import voc_sized
from benchmarks.ratios import high_water_mib
from sweeps.stages.stage import Place
from sweeps.stages.trial import run_trial
from sweeps.store.store import Store
from sweeps.tables.studies import F3
from wsss.config import RunConfig
from wsss.data.drawn.folder import draw_voc
from wsss.data.voc import VocDataset
from wsss.labels.infer import infer_cams
from wsss.networks.deeplab import build_deeplab
from wsss.overrides import apply_overrides
from wsss.presets import DEEPLAB_PRESETS, PRESETS
from wsss.training.cam import build_cam_net, train_cam
from wsss.training.segmentation import segmentation_training

NUM_ITERATIONS, NUM_SCORED = 2, 3


def config_of(preset: str, batch_size: int) -> RunConfig:
    """Return the preset with all parts and both views, random weights and one epoch."""
    few = {"network.weights": "none", "train.epochs": 1, "train.batch_size": batch_size}
    # Random weights with frozen statistics may diverge, which would end the measurement.
    return apply_overrides(PRESETS[preset], F3 | few | {"train.lr": 1e-6, "train.clip_norm": 1.0})


def data_for(batch_size: int, folder: Path) -> VocDataset:
    """Draw the pictures of two batches; some of them are scored."""
    num_extra = max(0, NUM_ITERATIONS * batch_size - NUM_SCORED)
    return voc_sized(folder / "data", NUM_SCORED, num_extra=num_extra)


def whole_trial(preset: str, batch_size: int, folder: Path) -> None:
    """Train, infer and score as a sweep's trial does."""
    if preset == "tiny":
        count = NUM_ITERATIONS * batch_size - NUM_SCORED
        root = draw_voc(folder / "data", num_train=NUM_SCORED, num_extra=count, num_val=1)
    else:
        root = data_for(batch_size, folder).root
    for _ in run_trial(config_of(preset, batch_size), Place(Store(folder / "store"), root)):
        pass


def training_alone(preset: str, batch_size: int, folder: Path) -> None:
    """Train two batches and end."""
    config, data = config_of(preset, batch_size), data_for(batch_size, folder)
    samples = data.samples("train_aug")[: NUM_ITERATIONS * batch_size]
    for _ in train_cam(build_cam_net(config, samples, len(data.classes)), config, samples):
        pass


def inference_alone(preset: str, batch_size: int, folder: Path) -> None:
    """Infer `batch_size` pictures, one at a time, at all scales and mirrored."""
    config, data = config_of(preset, 1), data_for(batch_size, folder)
    samples = data.samples("train_aug")[:batch_size]
    model = build_cam_net(config, samples, len(data.classes))
    for _ in infer_cams(model, samples, config.labels, device=torch.device("cpu")):
        pass


def segmentation(preset: str, batch_size: int, folder: Path) -> None:
    """Train two batches of DeepLabv2 on masks."""
    few = {"weights": "none", "iterations": NUM_ITERATIONS, "batch_size": batch_size, "lr": 1e-6}
    config = DEEPLAB_PRESETS[preset].model_copy(update=few)
    data = data_for(batch_size, folder)
    samples, model = data.samples("train_aug"), build_deeplab(config, len(data.classes))
    masks = [data.root / f"SegmentationClassAug/{sample.image_id}.png" for sample in samples]
    for _ in segmentation_training(model, config, samples, masks).epochs():
        pass


def in_ray(preset: str, batch_size: int, folder: Path) -> dict[str, float]:
    """Run a trial in a task of an embedded Ray; return its peaks after imports and at the end.

    The task gets this file by value.
    """
    import ray

    @ray.remote(num_cpus=1)  # type: ignore[untyped-decorator]
    def trial() -> dict[str, float]:
        import sweeps.run.ray.train  # noqa: F401 - what a trial's process has imported

        before = high_water_mib()
        whole_trial(preset, batch_size, folder)
        return {"before": before, "rss": high_water_mib()}

    ray.init(
        "local", num_cpus=1, include_dashboard=False, logging_level="ERROR", log_to_driver=False
    )
    try:
        found: dict[str, float] = ray.get(trial.remote())
    finally:
        ray.shutdown()
    return found


WORK: dict[str, Callable[[str, int, Path], dict[str, float] | None]] = {
    "trial": whole_trial,
    "training": training_alone,
    "inference": inference_alone,
    "deeplab": segmentation,
    "ray": in_ray,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", choices=WORK)
    parser.add_argument("preset")
    parser.add_argument("batch", type=int)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = WORK[given.work](given.preset, given.batch, Path(folder))
    print(json.dumps(found or {"rss": high_water_mib()}))


if __name__ == "__main__":
    main()
