"""What memory.py measures: one piece of a trial's work, in its own process.

Usage: python -m benchmarks.sweep.memory_work WORK PRESET BATCH. Prints JSON: `rss`, the process's
largest resident memory in MiB.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from benchmarks.ratios import high_water_mib

if TYPE_CHECKING:
    from wsss.config import RunConfig

NUM_ITERATIONS, NUM_SCORED = 2, 3
VOC_SIZE, DRAWN_SIZE = (500, 375), (117, 107)
"""Width and height in pixels; of a VOC picture, and about those of the drawn ones."""


def made_up_data(root: Path, num_train: int, size: tuple[int, int]) -> Path:
    """Write noise in VOC's layout: `num_train` pictures to train on, three of them scored."""
    rng, (width, height) = np.random.default_rng(0), size
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    names = [f"noise_{index:03d}" for index in range(max(num_train, NUM_SCORED))]
    for name in names:
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "JPEGImages" / f"{name}.jpg")
        mask = np.zeros((height, width), dtype=np.uint8)
        mask[height // 4 : height // 2, width // 4 :] = rng.integers(1, 21)
        mask[height // 2 : -20, : width // 2] = rng.integers(1, 21)
        Image.fromarray(mask).save(root / "SegmentationClass" / f"{name}.png")
    for split, members in {"train_aug": names[:num_train], "train": names[:NUM_SCORED]}.items():
        path = root / "ImageSets" / "Segmentation" / f"{split}.txt"
        path.write_text("".join(f"{name}\n" for name in members))
    return root


def config_of(preset: str, batch_size: int) -> "RunConfig":
    """Return the preset with all parts and both views, random weights and one epoch."""
    from sweeps.tables.studies import F3
    from wsss.overrides import apply_overrides
    from wsss.presets import PRESETS

    few = {"network.weights": "none", "train.epochs": 1, "train.batch_size": batch_size}
    # Random weights with frozen statistics may diverge, which would end the measurement.
    return apply_overrides(PRESETS[preset], F3 | few | {"train.lr": 1e-6, "train.clip_norm": 1.0})


def whole_trial(preset: str, batch_size: int, folder: Path) -> None:
    """Train, infer and score as a sweep's trial does."""
    from sweeps.stages.stage import Place
    from sweeps.stages.trial import run_trial
    from sweeps.store.store import Store

    size = DRAWN_SIZE if preset == "tiny" else VOC_SIZE
    data = made_up_data(folder / "data", NUM_ITERATIONS * batch_size, size)
    place = Place(Store(folder / "store"), data)
    for _ in run_trial(config_of(preset, batch_size), place):
        pass


def training_alone(preset: str, batch_size: int, folder: Path) -> None:
    """Train two batches and end."""
    from wsss.data.voc import VocDataset
    from wsss.training.cam import build_cam_net, train_cam

    config = config_of(preset, batch_size)
    data = made_up_data(folder / "data", NUM_ITERATIONS * batch_size, VOC_SIZE)
    samples = VocDataset(data).samples("train_aug")
    for _ in train_cam(build_cam_net(config, samples, 20), config, samples):
        pass


def inference_alone(preset: str, batch_size: int, folder: Path) -> None:
    """Infer `batch_size` pictures, one at a time, at all scales and mirrored."""
    import torch

    from wsss.data.voc import VocDataset
    from wsss.labels.infer import infer_cams
    from wsss.training.cam import build_cam_net

    config = config_of(preset, 1)
    samples = VocDataset(made_up_data(folder / "data", batch_size, VOC_SIZE)).samples("train_aug")
    model = build_cam_net(config, samples, 20)
    for _ in infer_cams(model, samples, config.labels, device=torch.device("cpu")):
        pass


def segmentation(preset: str, batch_size: int, folder: Path) -> None:
    """Train two batches of DeepLabv2 on the made-up masks."""
    from wsss.data.voc import VocDataset
    from wsss.networks.deeplab import build_deeplab
    from wsss.presets import DEEPLAB_PRESETS
    from wsss.training.segmentation import segmentation_training, train_segmentation

    few = {"weights": "none", "iterations": NUM_ITERATIONS, "batch_size": batch_size, "lr": 1e-6}
    config = DEEPLAB_PRESETS[preset].model_copy(update=few)
    data = made_up_data(folder / "data", NUM_ITERATIONS * batch_size, VOC_SIZE)
    samples, model = VocDataset(data).samples("train_aug"), build_deeplab(config, 20)
    masks = [data / f"SegmentationClass/{sample.image_id}.png" for sample in samples]
    for _ in train_segmentation(segmentation_training(model, config, samples, masks)):
        pass


def in_ray(preset: str, batch_size: int, folder: Path) -> dict[str, float]:
    """Run a trial in a task of an embedded Ray; return its peaks after imports and at the end.

    The task gets this file by value.
    """
    import ray

    @ray.remote(num_cpus=1)  # type: ignore[untyped-decorator]
    def trial() -> dict[str, float]:
        import sweeps.run.ray.train
        import sweeps.stages.trial  # noqa: F401 - what a trial's process has imported

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
