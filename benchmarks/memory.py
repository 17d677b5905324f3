"""Peak resident memory of a trial's process, by preset, and what two of them share.

Each figure is of a process of its own, which trains two batches on made-up pictures with all parts
and both views, on the CPU, from random weights (which take as much room as trained ones). RSS is
the kernel's own high-water mark; PSS, which counts a page that n processes map as 1/n, is sampled.
Nothing is compared with a peer. Usage: python benchmarks/memory.py. Linux; 8 GiB free.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from wsss.config import RunConfig

NUM_ITERATIONS, NUM_SCORED = 2, 3
VOC_SIZE, DRAWN_SIZE = (500, 375), (117, 107)
"""Width and height in pixels; of a VOC picture, and about those of the drawn ones."""
SAMPLE_SECONDS = 0.2
KINDS = ("Rss", "Pss", "Shared", "Private")


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
    from sweeps.tables import F3
    from wsss.overrides import apply_overrides
    from wsss.presets import PRESETS

    few = {"network.weights": "none", "train.epochs": 1, "train.batch_size": batch_size}
    # Random weights under frozen statistics are apt to diverge, which would end the measurement.
    return apply_overrides(PRESETS[preset], F3 | few | {"train.lr": 1e-6, "train.clip_norm": 1.0})


def whole_trial(preset: str, batch_size: int, folder: Path) -> None:
    """Train, infer and score as a sweep's trial does."""
    from sweeps.trial import TrialTask, run_trial
    from wsss.training.process import Process

    size = DRAWN_SIZE if preset == "tiny" else VOC_SIZE
    data = made_up_data(folder / "data", NUM_ITERATIONS * batch_size, size)
    config = config_of(preset, batch_size).model_dump(mode="json")
    for _ in run_trial(TrialTask(config, str(folder / "store"), str(data), None), Process()):
        pass


def training_alone(preset: str, batch_size: int, folder: Path) -> None:
    """Train two batches and end."""
    from wsss.data.voc import VocDataset
    from wsss.training.cam import build_cam_net, train_cam

    config = config_of(preset, batch_size)
    data = made_up_data(folder / "data", NUM_ITERATIONS * batch_size, VOC_SIZE)
    samples = VocDataset(data).samples("train_aug")
    for _ in train_cam(build_cam_net(config, samples, 20), config, samples, 20):
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
    from wsss.segmentation_presets import DEEPLAB_PRESETS
    from wsss.training.segmentation import train_segmentation

    few = {"weights": "none", "iterations": NUM_ITERATIONS, "batch_size": batch_size, "lr": 1e-6}
    config = DEEPLAB_PRESETS[preset].model_copy(update=few)
    data = made_up_data(folder / "data", NUM_ITERATIONS * batch_size, VOC_SIZE)
    samples, model = VocDataset(data).samples("train_aug"), build_deeplab(config, 20)
    for _ in train_segmentation(model, config, samples, data / "SegmentationClass", 20):
        pass


def imports_alone(preset: str, batch_size: int, folder: Path) -> None:
    """Import what Ray's process of a trial imports; all other work does so first, too."""
    import sweeps.trainable  # noqa: F401


def in_ray(preset: str, batch_size: int, folder: Path) -> dict[str, float]:
    """Run a trial in an actor of an embedded Ray; return its marks before training and at the end.

    An actor is what Tune makes of a trial. It gets this file by value.
    """
    import ray

    @ray.remote(num_cpus=1)  # type: ignore[untyped-decorator]
    def trial() -> dict[str, float]:
        imports_alone(preset, batch_size, folder)
        before = high_water()
        whole_trial(preset, batch_size, folder)
        return {"before": before, "rss": high_water()}

    ray.init(
        "local", num_cpus=1, include_dashboard=False, logging_level="ERROR", log_to_driver=False
    )
    try:
        found: dict[str, float] = ray.get(trial.remote())
    finally:
        ray.shutdown()
    return found


def high_water() -> float:
    """Return the most that this process has had resident, in MiB.

    Unlike ru_maxrss, it forgets the process which started this one.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


WORK: dict[str, Callable[[str, int, Path], dict[str, float] | None]] = {
    "trial": whole_trial,
    "training": training_alone,
    "inference": inference_alone,
    "deeplab": segmentation,
    "imports": imports_alone,
    "ray": in_ray,
}


def be_measured(work: str, preset: str, batch_size: int) -> None:
    """Do one piece of work in this process, and print its marks as JSON."""
    if work != "ray":
        imports_alone(preset, batch_size, Path())
    with tempfile.TemporaryDirectory() as folder:
        found = WORK[work](preset, batch_size, Path(folder))
    print(json.dumps(found or {"rss": high_water()}))


class Measured(NamedTuple):
    """What one or more processes at once came to, in MiB."""

    marks: list[dict[str, float]]
    """What each printed: `rss`, its high-water mark."""
    sampled: dict[str, float]
    """Rss, Pss, Shared and Private, summed over them, at the sample with the largest Rss."""
    seconds: float


def measure(
    work: str, preset: str = "tiny", batch_size: int = 8, *, copies: int = 1, threads: int = 1
) -> Measured:
    """Do a piece of work in `copies` processes at once, and sample them meanwhile."""
    words = [sys.executable, __file__, "--child", work, preset, str(batch_size)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    begun, largest = time.perf_counter(), dict.fromkeys(KINDS, 0.0)
    processes = [
        subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(copies)
    ]
    while any(process.poll() is None for process in processes):
        found = [sample(process.pid) for process in processes]
        summed = {kind: sum(one[kind] for one in found) for kind in KINDS}
        largest = max(largest, summed, key=lambda one: one["Rss"])
        time.sleep(SAMPLE_SECONDS)
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise RuntimeError(f"{' '.join(words)}: exit {[p.returncode for p in processes]}")
    marks = [json.loads(output.splitlines()[-1]) for output in outputs]
    return Measured(marks, largest, time.perf_counter() - begun)


def sample(pid: int) -> dict[str, float]:
    """Return a process's Rss, Pss, Shared and Private now, in MiB; zeros once it has ended."""
    found = dict.fromkeys(KINDS, 0.0)
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return found
    for line in lines:
        name, value = line.split(":")
        kind, _, state = name.partition("_")
        if kind in found and (not state or kind in ("Shared", "Private")):  # not Pss_Dirty
            found[kind] += int(value.split()[0]) / 1024
    return found


def row(name: str, peak: float, measured: Measured | None = None, note: str = "") -> None:
    """Print a row: what, peak RSS, and the sampled PSS."""
    pss = f"PSS {measured.sampled['Pss']:7.0f}  {measured.seconds:5.1f} s" if measured else note
    print(f"{name:58} {peak:8.0f} MiB  {pss}", flush=True)


def trials() -> None:
    """Print what whole trials take, of the presets that a CPU can run at their own batch size."""
    found = measure("imports")
    row("before training: imports alone", found.marks[0]["rss"], found)
    (inside,) = measure("ray").marks
    row("before training: Ray's process of a trial", inside["before"])
    row("trial, tiny, in Ray's process", inside["rss"])
    for preset, batch_size in (("tiny", 8), ("short", 16)):
        found = measure("trial", preset, batch_size)
        row(f"trial, {preset}, batch {batch_size}", found.marks[0]["rss"], found)


def large_trainings() -> None:
    """Print what the paper's preset takes, extrapolated, and how well that does for short."""
    for preset, threads in (("short", 1), ("paper", os.cpu_count() or 1)):
        peaks = []
        for batch_size in (1, 2):
            found = measure("training", preset, batch_size, threads=threads)
            peaks.append(found.marks[0]["rss"])
            row(f"training alone, {preset}, batch {batch_size}", peaks[-1], found)
        row(
            f"training alone, {preset}, batch 16, EXTRAPOLATED",
            peaks[0] + 15 * (peaks[1] - peaks[0]),
            note="linearly, from batches of 1 and 2; for short it is too high",
        )
        if preset == "short":
            found = measure("training", preset, 16)
            row("training alone, short, batch 16, measured", found.marks[0]["rss"], found)
    found = measure("inference", "paper", NUM_SCORED, threads=os.cpu_count() or 1)
    row("inference alone, paper, one picture at a time", found.marks[0]["rss"], found)
    found = measure("deeplab", "short", 8)
    row("DeepLabv2 training alone, short, batch 8", found.marks[0]["rss"], found)


def shared() -> None:
    """Print what two trials at once share: they are started apart, as Ray starts them."""
    for copies in (1, 2):
        found = measure("trial", copies=copies).sampled
        parts = "  ".join(f"{kind} {found[kind]:6.0f}" for kind in KINDS)
        print(f"{f'trials at once, tiny: {copies}; MiB in all at the peak':58} {parts}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(",")[0])
    parser.add_argument("--child", nargs=3, metavar=("WORK", "PRESET", "BATCH"))
    child = parser.parse_args().child
    if child:
        be_measured(child[0], child[1], int(child[2]))
        return
    print("peak resident memory of one process on the CPU; PSS as sampled at the largest RSS")
    trials()
    large_trainings()
    shared()


if __name__ == "__main__":
    main()
