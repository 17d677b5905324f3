"""How fast multi-scale CAMs are inferred, and how far tf32 and bf16 move them."""

import statistics
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wsss.config import LabelsConfig
from wsss.data.loading import read_rgb
from wsss.data.transforms import resized, stack_images
from wsss.data.voc import Sample
from wsss.gpu_check.findings import OUT_OF_TIME, Deadline, Line, Options, Skipped, Table, wait
from wsss.gpu_check.pictures import Pictures
from wsss.gpu_check.speed import PRECISIONS
from wsss.gpu_check.subjects import CELLS, Weights, cam_subject
from wsss.labels.infer import infer_cams
from wsss.overrides import apply_overrides
from wsss.presets import PRESETS

LARGEST_CHANGE = {"tf32": 0.02, "bf16": 0.1}
"""Of a normalised CAM against fp32, mean over pixels, before the page says LOOK."""


@dataclass(frozen=True)
class InferenceSpeed:
    """One precision, so many images at once."""

    precision: str
    at_once: int
    images_per_second: float
    largest_change: float
    """Of a normalised CAM at any pixel against fp32, single images."""
    mean_change: float


@dataclass
class Inference:
    """All of it, for F3."""

    preset: str
    source: str
    num_images: int
    host_rate: float = 0.0
    """Images a second that the CPU decodes and scales, the network left out."""
    speeds: list[InferenceSpeed] = field(default_factory=list)
    skipped: Skipped = field(default_factory=Skipped)

    def rate(self, precision: str) -> float:
        """Return the best images a second of a precision; 0 if it was not measured."""
        found = [s.images_per_second for s in self.speeds if s.precision == precision]
        return max(found, default=0.0)

    def lines(self) -> list[Line]:
        """Return whether CAMs stay what they are, and whether the CPU holds the GPU up."""
        found = []
        for precision, limit in LARGEST_CHANGE.items():
            own = [s for s in self.speeds if s.precision == precision]
            if own:
                mean = max(s.mean_change for s in own)
                found.append(
                    Line(
                        "PASS" if mean <= limit else "LOOK", f"CAMs in {precision}",
                        f"mean change {mean:.1e}, largest {max(s.largest_change for s in own):.1e} "
                        "of a CAM in 0..1",
                        "Maps of an untrained network; a threshold that decides pixels moves them "
                        "by about the mean.",
                        "score one training in both (labels.precision) before you use it",
                    )
                )  # fmt: skip
        best = max((s.images_per_second for s in self.speeds), default=0.0)
        if best and self.host_rate:
            slow = best > 0.7 * self.host_rate
            found.append(
                Line(
                    "LOOK" if slow else "PASS", "the CPU's share of inference",
                    f"decoding and scaling alone: {self.host_rate:,.0f} images/s; with the "
                    f"network: {best:,.0f}",
                    "The GPU waits for the CPU." if slow else "The network is what takes the time.",
                    "run several trials a GPU; a faster precision will not help" if slow else "",
                )
            )  # fmt: skip
        return found + self.skipped.lines()

    def tables(self) -> list[Table]:
        """Return the rates."""
        rows = tuple(
            (s.precision, str(s.at_once), f"{s.images_per_second:,.1f}", f"{s.largest_change:.1e}",
             f"{s.mean_change:.1e}")
            for s in self.speeds
        )  # fmt: skip
        note = (
            f"F3 of preset {self.preset}, {self.num_images} {self.source}, all scales and flips, "
            "decoding included. Changes are against fp32, of CAMs in 0..1."
        )
        columns = ("numbers", "at once", "images/s", "largest change", "mean change")
        return [Table(columns, rows, note)] if rows else []


def measure_inference(
    options: Options, weights: Weights, pictures: Pictures, deadline: Deadline
) -> Inference:
    """Infer the same images in every precision, one and eight at once."""
    base = apply_overrides(PRESETS[options.preset], CELLS["F3"])
    samples = pictures.voc_sized(options.out / "enlarged")[: 2 if options.small else 32]
    found = Inference(options.preset, pictures.source, len(samples))
    size = {"train.crop_size": min(128, base.train.crop_size), "train.batch_size": 2}
    model: Any = cam_subject(apply_overrides(base, size), weights).build()
    found.host_rate = host_rate(samples, base.labels)
    expected: list[np.ndarray] = []
    for precision in ("fp32", *(p for p in PRECISIONS if p != "fp32")):
        labels = base.labels.model_copy(update={"precision": precision})
        for at_once in (1, 8):
            name = f"{precision}, {at_once} at once"
            if deadline.passed:
                found.skipped.reasons[name] = OUT_OF_TIME
                continue
            if at_once > 1 and options.small:
                found.skipped.reasons[name] = "not measured with --small"
                continue

            def infer(labels: LabelsConfig = labels, at_once: int = at_once) -> list[np.ndarray]:
                images = infer_cams(
                    model, samples, labels, device=options.device, batch_size=at_once
                )
                return [image.cams for image in images]

            if not options.small:
                infer()  # kernels for each size of image
            started = time.perf_counter()
            cams = infer()
            wait(options.device)
            seconds = time.perf_counter() - started
            expected = expected or cams
            changes = [np.abs(a - b) for a, b in zip(cams, expected, strict=True)]
            found.speeds.append(
                InferenceSpeed(
                    precision, at_once, len(samples) / seconds,
                    max(float(change.max()) for change in changes),
                    statistics.fmean(float(change.mean()) for change in changes),
                )
            )  # fmt: skip
    return found


def host_rate(samples: list[Sample], labels: LabelsConfig) -> float:
    """Return images a second of decoding and scaling, as `multi_scale_cams` does it."""
    started = time.perf_counter()
    for sample in samples:
        image = stack_images([read_rgb(sample)])
        height, width = image.shape[2:]
        for scale in labels.scales:
            resized(image, (round(height * scale), round(width * scale)), labels.resize).float()
    return len(samples) / (time.perf_counter() - started)
