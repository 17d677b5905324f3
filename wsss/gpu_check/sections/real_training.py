"""A short real training: does the loss fall, does a resumed one end equally, what is the score?

At this size the score reproduces nothing; it shows that all stages work together on this device.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from wsss.config import RunConfig
from wsss.data.errors import DataError
from wsss.data.voc import Sample
from wsss.evaluation.counting import collected, count_each
from wsss.evaluation.score import score_counts
from wsss.gpu_check.bench import DRAWN, Bench, split_of
from wsss.gpu_check.page import MORE_TIME, Section, first_line
from wsss.gpu_check.trainings import CELLS, RANDOM
from wsss.labels.infer import infer_cams
from wsss.overrides import apply_overrides
from wsss.presets import PRESETS
from wsss.training.cam import build_cam_net, cam_training, label_prior
from wsss.training.checkpoint import CheckpointFolder
from wsss.training.diagnosis.learning import COLLAPSE_MARGIN, prior_gap
from wsss.training.execution import Execution
from wsss.training.loop import Training
from wsss.training.process import Process

STEPS_IN_ALL = 8
"""Of the resumed training, which is interrupted half-way through its only epoch."""
EVERY_STEP = Execution(checkpoint_minutes=1e-9)
"""Writes a checkpoint after each step."""
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
FAILED = ("The training failed.", "if section 2 passes, try --device cpu: does it fail there, too?")
"""Meaning and remedy of a FAIL."""


@dataclass(frozen=True)
class Trained:
    """One training."""

    cell: str
    epochs: int
    seconds: float
    loss_first: float
    """L_cls, mean of the first epoch."""
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


Start = Callable[..., Training]
"""(configuration, samples, checkpoints=None) -> the training at its start, or its checkpoint."""


def train_for_real(bench: Bench, section: Section) -> None:
    """From files to a score, with few pictures and few steps.

    B0 and F3 are trained and scored, and F3 is resumed within an epoch.
    """
    preset = "tiny" if bench.source == DRAWN else "short"
    samples = bench.training[: 32 if bench.small else MOST_IMAGES]
    name, file = bench.weights.get(PRESETS[preset].network.backbone, RANDOM)
    settings = {"network.weights": name} | (SMALLER if bench.small else {})
    base = apply_overrides(PRESETS[preset], settings)
    base = apply_overrides(base, {"train.batch_size": min(base.train.batch_size, len(samples))})
    process = Process(device=bench.device, execution=EVERY_STEP)

    def start(
        config: RunConfig, samples: list[Sample], checkpoints: CheckpointFolder | None = None
    ) -> Training:
        model = build_cam_net(config, samples, len(bench.dataset.classes), weights_file=file)
        return cam_training(model, config, samples, process=process, checkpoints=checkpoints)

    trained: list[Trained] = []
    section.show(
        "trainings",
        trained,
        f"Preset {preset} on {bench.source}, "
        f"{'random weights' if name == 'none' else f'weights of {file}'}, shortened"
        f"{' and made smaller' if bench.small else ''}; loading included. The "
        "mIoU of the CAMs shows that training, inference and scoring work together. It is not a "
        "result, and cannot be compared with published numbers.",
    )
    if not section.is_late("resumed within an epoch"):
        config = apply_overrides(base, CELLS["F3"] | {"train.epochs": 1})
        few = (STEPS_IN_ALL * samples)[: STEPS_IN_ALL * config.train.batch_size]
        resumed = section.numbers["resumed"] = resume(partial(start, config, few))
        judge_resumed(resumed, section)
    for cell in ("B0", "F3"):
        config = apply_overrides(base, CELLS[cell])
        train = partial(train_and_score, bench, section, cell, start, config, samples)
        if found := section.part(f"training of {cell}", train, FAILED):
            trained.append(found)
            judge_training(found, section, small=bench.small)


def train_and_score(
    bench: Bench,
    section: Section,
    cell: str,
    start: Start,
    config: RunConfig,
    samples: list[Sample],
) -> Trained:
    """Train to the end, or as long as time allows, and score the CAMs if there are masks."""
    training, losses, started = start(config, samples), list[float](), time.perf_counter()
    for epoch in training.epochs():
        losses.append(epoch.means["loss_cls"])
        if section.is_over:
            break
    if training.iteration < training.num_iterations:
        section.is_late(f"the last epochs of {cell}")
    seconds = time.perf_counter() - started
    dataset, labels = bench.dataset, config.labels
    prior = label_prior(config, samples, len(dataset.classes))
    own = Trained(cell, len(losses), seconds, losses[0], losses[-1], prior)
    model: Any = training.model
    try:
        scored = dataset.samples(split_of(dataset, "train", "val"))[: 8 if bench.small else 64]
        inferred = infer_cams(model, scored, labels, device=bench.device)
        counts = collected(count_each(inferred, dataset, labels), dataset, labels)
    except DataError as error:
        section.skipped[f"score of {cell}"] = f"no masks: {first_line(error)}"
        return own
    return replace(own, miou=score_counts(counts, labels).miou_fixed, num_scored=len(scored))


def judge_training(one: Trained, section: Section, *, small: bool) -> None:
    """Report whether a training's loss falls, and below that of the label frequencies."""
    what = f"{one.cell} learns"
    told = (
        f"L_cls {one.loss_first:.3f} -> {one.loss_last:.3f} in {one.epochs} epochs; the label "
        f"frequencies alone give {one.prior:.3f}"
    )
    falls = one.loss_last < one.loss_first
    if one.epochs < 2:
        section.say("SKIP", what, "a single epoch is too little", remedy=MORE_TIME)
    elif falls and prior_gap(one.loss_last, one.prior) >= COLLAPSE_MARGIN:
        section.say("PASS", what, told)
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


def resume(start: Callable[..., Training]) -> Resumed:
    """Train an epoch twice without an interruption, and once with one.

    start: returns a training at its start, or at the last checkpoint of the folder given.
    """

    def to_the_end(training: Training) -> torch.Tensor:
        deque(training.steps(), maxlen=0)
        parameters = training.model.parameters()
        return torch.cat([p.detach().cpu().double().flatten() for p in parameters])

    whole, again = (to_the_end(start()) for _ in range(2))
    with TemporaryDirectory() as folder:
        checkpoints = CheckpointFolder(Path(folder))
        interrupted = start(checkpoints)
        deque(islice(interrupted.steps(), interrupted.num_iterations // 2 + 1), maxlen=0)
        resumed = start(checkpoints)
        after, parts = resumed.iteration, to_the_end(resumed)
    change, repeat = (float((x - whole).norm() / whole.norm()) for x in (parts, again))
    return Resumed(after, change, repeat)


def judge_resumed(own: Resumed, section: Section) -> None:
    """Report whether an interrupted training ends as an uninterrupted one does."""
    good = own.after and own.change <= TIMES_REPEAT * own.repeat
    section.say(
        "PASS" if good else "FAIL",
        "resumed within an epoch",
        f"after {own.after} steps; weights differ by {own.change:.1e}, those of two equal "
        f"trainings by {own.repeat:.1e}",
        "An interrupted training ends differently: a checkpoint does not hold all of its state.",
        "do not interrupt sweeps here, and report it with gpu_check.json",
    )
