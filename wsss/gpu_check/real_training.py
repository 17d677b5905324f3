"""A short real training: does the loss fall, does a resumed one end equally, what is the score?

At this size the score reproduces nothing; it shows that all stages work together on this device.
"""

import time
from collections import deque
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import torch

from wsss.config import LabelsConfig, RunConfig
from wsss.data.errors import DataError
from wsss.data.voc import Sample
from wsss.evaluation.confusion import CountedImage
from wsss.evaluation.counting import collected, count_each
from wsss.evaluation.score import score_counts
from wsss.gpu_check.page import MORE_TIME, Section, first_line
from wsss.gpu_check.speeds import Bench
from wsss.gpu_check.subjects import CELLS, split_of
from wsss.labels.infer import infer_cams
from wsss.overrides import apply_overrides
from wsss.presets import PRESETS
from wsss.training.cam import build_cam_net, cam_training
from wsss.training.checkpoint import CheckpointFolder
from wsss.training.diagnosis.learning import COLLAPSE_MARGIN, configured_prior, prior_gap
from wsss.training.execution import Execution
from wsss.training.loop import Reading, Training
from wsss.training.process import Process

NUM_FIRST = 5
"""Steps over which L_cls is averaged at the start; at the end, it is a quarter of all."""
STEPS_IN_ALL = 8
"""Of the resumed training, which is interrupted half-way through its only epoch."""
EVERY_STEP = 1e-9
"""Minutes between checkpoints within an epoch."""
TIMES_REPEAT = 10
"""A resumed training may differ by this many times the difference of two equal trainings."""
MOST_IMAGES = 480
SMALLER: dict[str, Any] = {
    "train.epochs": 2,
    "train.warmup_iterations": 5,
    "train.crop_size": 64,
    "train.batch_size": 4,
    "labels.scales": (1.0,),
}


@dataclass(frozen=True)
class Data:
    """What all trainings have in common."""

    device: torch.device
    samples: list[Sample]
    num_classes: int
    weights_file: Path | None = None

    def training(self, config: RunConfig, checkpoints: CheckpointFolder | None = None) -> Training:
        """Return a training at its start, or at its last checkpoint."""
        file = self.weights_file
        model = build_cam_net(config, self.samples, self.num_classes, weights_file=file)
        return cam_training(
            model,
            config,
            self.samples,
            process=Process(device=self.device),
            checkpoints=checkpoints,
            execution=Execution(checkpoint_minutes=EVERY_STEP),
        )


@dataclass(frozen=True)
class Trained:
    """One training."""

    cell: str
    num_steps: int
    seconds: float
    loss_first: float
    """L_cls, mean of the first steps."""
    loss_last: float
    prior: float
    """L_cls of the label frequencies."""
    miou: float | None = None
    """Percent, at the fixed background score; None without masks or without time."""
    num_scored: int = 0


@dataclass(frozen=True)
class Resumed:
    """A training interrupted within an epoch, compared with an uninterrupted one."""

    after: int
    """Steps done at the checkpoint."""
    change: float
    """Relative difference of all weights."""
    repeat: float
    """The same for two uninterrupted trainings, which need not be equal on a GPU."""


def train_for_real(bench: Bench, section: Section) -> None:
    """Train B0 and F3, score them, and resume F3 within an epoch."""
    options, pictures = bench.options, bench.pictures
    preset = "tiny" if pictures.are_drawn else "short"
    name, file = options.weights.of(PRESETS[preset].network.backbone)
    changes = {"network.weights": name} | (SMALLER if options.small else {})
    base = apply_overrides(PRESETS[preset], changes)
    samples = pictures.training[: 32 if options.small else MOST_IMAGES]
    base = apply_overrides(base, {"train.batch_size": min(base.train.batch_size, len(samples))})
    data = Data(options.device, samples, len(pictures.dataset.classes), file)
    trained: list[Trained] = []
    section.show(
        "trainings",
        trained,
        f"Preset {preset} on {pictures.source}, "
        f"{'random weights' if name == 'none' else f'weights of {file}'}, shortened"
        f"{' and made smaller' if options.small else ''}; loading included.",
    )
    if not section.is_late("resumed within an epoch"):
        resumed = resume(data, apply_overrides(base, CELLS["F3"]))
        section.numbers["resumed"] = resumed
        judge_resumed(resumed, section)
    for cell in ("B0", "F3"):
        if section.is_late(f"training of {cell}"):
            continue
        found = section.attempt(
            cell,
            partial(
                train_and_score, bench, data, cell, apply_overrides(base, CELLS[cell]), section
            ),
            "The training failed.",
            "if section 2 passes, try --device cpu: does it fail there, too?",
        )
        if found:
            trained.append(found)
            judge_training(found, section, small=options.small, source=pictures.source)


def judge_training(one: Trained, section: Section, *, small: bool, source: str) -> None:
    """Report whether a training's loss falls, and below that of the label frequencies."""
    what = f"{one.cell} learns"
    told = (
        f"L_cls {one.loss_first:.3f} -> {one.loss_last:.3f} in {one.num_steps} steps; the label "
        f"frequencies alone give {one.prior:.3f}"
    )
    falls = one.loss_last < one.loss_first
    if one.num_steps < 2 * NUM_FIRST:
        section.say("SKIP", what, f"{one.num_steps} step(s) are too few", remedy=MORE_TIME)
    elif falls and prior_gap(one.loss_last, one.prior) >= COLLAPSE_MARGIN:
        section.say("PASS", what, told, "It has learnt from the pictures.")
    elif falls and small:
        section.say("INFO", what, told, "The loss falls; more is not expected in so few steps.")
    else:
        section.say(
            "LOOK",
            what,
            told,
            "A network that answers with the label frequencies has not learnt from the pictures. "
            "From random weights, learning may take longer; from ImageNet's it should not.",
            "give --weights, --data and more --minutes; else compare with --device cpu",
        )
    if one.miou is not None:
        section.say(
            "INFO",
            f"{one.cell}, small-scale score",
            f"{one.miou:.1f} mIoU of CAMs on {one.num_scored} {source} after {one.num_steps} steps",
            "It shows that training, inference and scoring work together. It is not a result, and "
            "cannot be compared with published numbers.",
        )


def judge_resumed(own: Resumed, section: Section) -> None:
    """Report whether an interrupted training ends as an uninterrupted one does."""
    good = own.after and own.change <= TIMES_REPEAT * own.repeat
    section.say(
        "PASS" if good else "FAIL",
        "resumed within an epoch",
        f"after {own.after} steps; weights differ by {own.change:.1e}, those of two equal "
        f"trainings by {own.repeat:.1e}",
        "An interrupted training ends as an uninterrupted one does, as far as a GPU repeats "
        "itself: it adds numbers in no fixed order."
        if good
        else "An interrupted training ends differently: a checkpoint does not hold all of its "
        "state.",
        "do not interrupt sweeps here, and report it with gpu_check.json",
    )


def train_and_score(
    bench: Bench, data: Data, cell: str, config: RunConfig, section: Section
) -> Trained:
    """Train to the end, or as long as time allows, and score the CAMs if there are masks."""
    training, started = data.training(config), time.perf_counter()
    losses: list[float] = []
    for found in training.run():
        if isinstance(found, Reading):
            losses.append(float(found.values[1]))
        if section.is_over:
            break
    if len(losses) < training.num_iterations:
        section.is_late(f"the last steps of {cell}")
    trained = Trained(
        cell,
        len(losses),
        time.perf_counter() - started,
        fmean(losses[:NUM_FIRST]),
        fmean(losses[-max(1, len(losses) // 4) :]),
        configured_prior(config, data.samples, data.num_classes),
    )
    try:
        miou, num_scored = score(bench, training.model, config.labels, section)
    except DataError as error:
        section.skipped[f"score of {cell}"] = f"no masks: {first_line(error)}"
        return trained
    return replace(trained, miou=miou, num_scored=num_scored)


def resume(data: Data, config: RunConfig) -> Resumed:
    """Train one epoch twice without an interruption, and once with one."""
    config = apply_overrides(config, {"train.epochs": 1})
    data = replace(data, samples=data.samples[: STEPS_IN_ALL * config.train.batch_size])

    def to_the_end(training: Training) -> torch.Tensor:
        deque(training.steps(), maxlen=0)
        parameters = training.model.parameters()
        return torch.cat([p.detach().cpu().double().flatten() for p in parameters])

    whole, again = (to_the_end(data.training(config)) for _ in range(2))
    with TemporaryDirectory() as folder:
        checkpoints = CheckpointFolder(Path(folder))
        interrupted = data.training(config, checkpoints)
        deque(islice(interrupted.steps(), interrupted.num_iterations // 2 + 1), maxlen=0)
        resumed = data.training(config, checkpoints)
        after, parts = resumed.iteration, to_the_end(resumed)
    change, repeat = (float((x - whole).norm() / whole.norm()) for x in (parts, again))
    return Resumed(after, change, repeat)


def score(bench: Bench, model: Any, labels: LabelsConfig, section: Section) -> tuple[float, int]:
    """Return the mIoU (percent) of a network's CAMs, and how many images were scored.

    Raises DataError if there are no masks.
    """
    dataset, options, images = bench.pictures.dataset, bench.options, list[CountedImage]()
    samples = dataset.samples(split_of(dataset, "train", "val"))[: 8 if options.small else 64]
    inferred = infer_cams(model, samples, labels, device=options.device)
    for image in count_each(inferred, dataset, labels):
        images.append(image)
        if section.is_over:
            break
    return score_counts(collected(images, dataset, labels), labels).miou_fixed, len(images)
