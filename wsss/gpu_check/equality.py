"""Whether a GPU computes what the CPU computes: one step of every training, and every inference.

A difference beyond TOLERANCE is held against what rounding alone does to the same step on the CPU,
whose weights are moved by one unit in the last place: a network may be that sensitive.
"""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor, nn

from wsss.config import LabelsConfig, Precision, RunConfig
from wsss.gpu_check.findings import (
    OUT_OF_TIME,
    Deadline,
    Line,
    Options,
    Skipped,
    Table,
    first_line,
)
from wsss.gpu_check.subjects import (
    CELLS,
    FULL_MODULE,
    NUM_CLASSES,
    PARTS,
    VIEWS,
    Subject,
    Weights,
    affinity_subject,
    cam_subject,
    deeplab_subject,
    made_up_batch,
)
from wsss.labels.infer import multi_scale_cams
from wsss.labels.pamr import pamr
from wsss.labels.segment import multi_scale_probs
from wsss.networks.association import associate
from wsss.networks.precision import products
from wsss.overrides import apply_overrides
from wsss.presets import PRESETS
from wsss.segmentation_config import PamrConfig
from wsss.segmentation_presets import DEEPLAB_PRESETS, LABEL_PRESETS
from wsss.training.execution import Execution

CPU = torch.device("cpu")
TOLERANCE = 1e-3
"""Relative difference of fp32 results which needs no explanation."""
TIMES_ROUNDING = 10
"""A difference of so many times what rounding alone does is a fault."""
SMALLEST_SHARE = 1e-3
"""A tensor's gradient is measured against at least this share of the largest tensor's norm: one
that is 0 but for rounding (a bias before a batch norm) would differ by all of itself."""
NOT_COMPUTED = ("horizontal_flip", "resize", "precision")
"""Settings of `train` that no step computes with."""
MANY_PIXELS = 384
"""Pixels of a crop whose map of 24 x 24 makes context association go by blocks."""


@dataclass(frozen=True)
class Difference:
    """How far the device is from the CPU in one case; all numbers are relative."""

    case: str
    loss: float
    gradient: float
    """Of the tensor that differs most; nan where there is no gradient."""
    tensor: str = ""
    """That tensor's name."""
    update: float = math.nan
    """Of all weights' change by the optimiser together."""
    rounding: float = 0.0
    """What rounding alone does to the largest of the three; measured above TOLERANCE only."""
    error: str = ""

    @property
    def largest(self) -> float:
        """Return the largest of the three; nan if any number was not finite."""
        numbers = [self.loss, *(x for x in (self.gradient, self.update) if self.tensor)]
        return math.nan if any(map(math.isnan, numbers)) else max(numbers)

    @property
    def verdict(self) -> str:
        """PASS, LOOK or FAIL."""
        if self.largest <= TOLERANCE:
            return "PASS"
        return "LOOK" if self.largest <= TIMES_ROUNDING * self.rounding else "FAIL"


class PrecisionDistance(NamedTuple):
    """How far a precision is from fp32 on the device, relative: information, no fault."""

    case: str
    precision: str
    loss: float
    gradient: float
    """Of all gradients together."""


@dataclass
class Equality:
    """All differences."""

    on_gpu: bool
    differences: list[Difference] = field(default_factory=list)
    precisions: list[PrecisionDistance] = field(default_factory=list)
    skipped: Skipped = field(default_factory=Skipped)

    def lines(self) -> list[Line]:
        """Return a line for all that pass, and one for each that does not."""
        by = {verdict: [d for d in self.differences if d.verdict == verdict]
              for verdict in ("PASS", "LOOK", "FAIL")}  # fmt: skip
        found = []
        if by["PASS"]:
            worst = max(by["PASS"], key=lambda d: d.largest)
            found.append(
                Line(
                    "PASS", f"{len(by['PASS'])} of {len(self.differences)} cases",
                    f"differ by at most {worst.largest:.1e} ({worst.case}); allowed: "
                    f"{TOLERANCE:.0e}",
                    "Losses, gradients and the optimiser's step come out as on the CPU, in fp32.",
                )
            )  # fmt: skip
        for one in by["LOOK"]:
            found.append(
                Line(
                    "LOOK", one.case,
                    f"differs by {one.largest:.1e} ({_where(one)}); rounding alone moves it by "
                    f"{one.rounding:.1e}",
                    "This network is sensitive: the last digit of a weight does as much.",
                    "nothing, unless a case of every preset is here",
                )
            )  # fmt: skip
        for one in by["FAIL"]:
            found.append(
                Line(
                    "FAIL", one.case,
                    one.error or f"differs by {one.largest:.1e} ({_where(one)}); allowed: "
                    f"{TOLERANCE:.0e}, rounding alone: {one.rounding:.1e}",
                    "The device computes something else than the CPU: its results would be wrong.",
                    "do not train here; try another version of torch or of the driver, and report "
                    "it with gpu_check.json",
                )
            )  # fmt: skip
        return found + self.skipped.lines()

    def tables(self) -> list[Table]:
        """Return how far tf32 and bf16 are from fp32."""
        if not self.precisions:
            return []
        rows = tuple(
            (p.case, p.precision, f"{p.loss:.1e}", f"{p.gradient:.1e}") for p in self.precisions
        )
        note = (
            "How far tf32 and bf16 are from fp32 on this device, relative, of the first step. No "
            "fault: both have fewer digits (tf32 11 bits, bf16 8), and the gradients of a random "
            "network move by tenths in bf16. Whether it trains as well, only trainings tell."
        )
        return [Table(("case", "numbers", "loss", "gradients"), rows, note)]


def _where(one: Difference) -> str:
    if one.largest == one.loss or not one.tensor:
        return "result"
    return f"gradient of {one.tensor}" if one.largest == one.gradient else "optimiser's step"


def check_equality(options: Options, weights: Weights, deadline: Deadline) -> Equality:
    """Compare all cases, as far as time allows."""
    found = Equality(options.on_gpu)
    for name, case in all_cases(options, weights):
        if deadline.passed:
            found.skipped.reasons[name] = OUT_OF_TIME
            continue
        try:
            difference, precisions = case()
        except Exception as error:  # whatever a driver may do, the other cases go on
            difference, precisions = (
                Difference(name, math.nan, math.nan, error=first_line(error)),
                [],
            )
        found.differences.append(difference)
        found.precisions += precisions
    return found


Answer = tuple[Difference, list[PrecisionDistance]]
Case = tuple[str, Callable[[], Answer]]


def all_cases(options: Options, weights: Weights) -> list[Case]:
    """Return all cases: every network and inference first, then parts, then readings."""
    cases = [*training_cases(options, weights), *inference_cases(options, weights)]
    minor = {f"{preset} {cell}" for preset in PRESETS for cell in cam_cells() if cell not in CELLS}
    return sorted(cases, key=lambda case: 2 if "=" in case[0] else case[0] in minor)


def cam_cells() -> dict[str, dict[str, Any]]:
    """Return B0, each part and each view alone, both views, F0 and F3, as settings."""
    alone = {part: {f"network.{part}": True} for part in PARTS}
    alone |= {f"{view} view": FULL_MODULE | {f"views.{view}": True} for view in VIEWS}
    return CELLS | alone | {"both views, no part": {f"views.{view}": True for view in VIEWS}}


def readings(config: RunConfig) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every other value of every setting by name that a step computes with, one at a time."""
    for section in ("network", "views", "transfer", "train"):
        settings = getattr(config, section)
        for name, info in type(settings).model_fields.items():
            values = (True, False) if info.annotation is bool else get_args(info.annotation)
            for value in values:
                usable = isinstance(value, str | int) and name not in NOT_COMPUTED
                if usable and value != getattr(settings, name):
                    yield f"{section}.{name}={value}", {f"{section}.{name}": value}


def training_cases(options: Options, weights: Weights) -> Iterator[Case]:
    """Yield the trainings: CAM networks of every preset, DeepLab, the affinity network."""
    crop = 64 if options.small else 128

    def comparison(name: str, subject: Callable[[], Subject], *, precise: bool = False) -> Case:
        wanted: tuple[Precision, ...] = ("tf32", "bf16") if options.on_gpu else ("bf16",)
        return name, lambda: compare_steps(
            name, subject(), options.device, precisions=wanted if precise else ()
        )

    def cam(name: str, base: RunConfig, overrides: dict[str, Any], *, precise: bool = False,
            crop: int = crop, batch: int = 2) -> Case:  # fmt: skip
        size = {"train.crop_size": crop, "train.batch_size": batch}
        return comparison(
            name, lambda: cam_subject(apply_overrides(base, size | overrides), weights),
            precise=precise,
        )  # fmt: skip

    for preset, base in PRESETS.items():
        for cell, overrides in cam_cells().items():
            precise = cell in ("B0", "F3") and (preset == "tiny" or not options.small)
            yield cam(f"{preset} {cell}", base, overrides, precise=precise)
    tiny = apply_overrides(PRESETS["tiny"], CELLS["F3"])
    yield cam(f"tiny F3 of {MANY_PIXELS} px", tiny, {}, crop=MANY_PIXELS, batch=1)
    for preset, deeplab in distinct(DEEPLAB_PRESETS).items():
        few = {"batch_size": 2, "crop_size": crop + 1}
        yield comparison(
            f"DeepLab {preset}",
            lambda deeplab=deeplab, few=few: deeplab_subject(  # type: ignore[misc]
                deeplab.model_copy(update=few), weights
            ),
            precise=not options.small,
        )  # fmt: skip
    for preset, labels in distinct(LABEL_PRESETS).items():
        walk = labels.random_walk.model_copy(update={"batch_size": 2, "crop_size": crop})
        yield comparison(
            f"affinity network {preset}",
            lambda preset=preset, walk=walk: affinity_subject(  # type: ignore[misc]
                PRESETS[preset].network, walk, weights
            ),
        )
    for name, overrides in readings(tiny):
        yield cam(f"tiny F3, {name}", tiny, overrides)


def distinct(presets: Any) -> dict[str, Any]:
    """Return presets without those that repeat an earlier one under another name."""
    found: dict[str, Any] = {}
    for name, preset in presets.items():
        if preset not in found.values():
            found[name] = preset
    return found


def compare_steps(
    case: str, subject: Subject, device: torch.device, *, precisions: tuple[Precision, ...] = ()
) -> Answer:
    """Take one step on the CPU and on the device, and compare what comes of it."""
    model = subject.build()
    expected = one_step(subject, model, CPU, "fp32")
    found = one_step(subject, model, device, "fp32")
    difference = _difference(case, expected, found)
    if not difference.largest <= TOLERANCE:
        with torch.no_grad():
            for parameter in model.parameters():
                sign = torch.where(torch.rand_like(parameter) < 0.5, -1.0, 1.0)
                parameter.mul_(1 + sign * torch.finfo(torch.float32).eps)
        moved = _difference(case, expected, one_step(subject, model, CPU, "fp32"))
        difference = Difference(
            **{**difference.__dict__, "rounding": moved.largest}
        )  # the same network, a rounding away
        model = subject.build()
    distances = []
    for precision in precisions:
        other = one_step(subject, model, device, precision)
        distances.append(
            PrecisionDistance(
                case, precision, _relative(other.terms[:1], found.terms[:1]),
                _relative(_flat(other.gradients), _flat(found.gradients)),
            )
        )  # fmt: skip
    return difference, distances


class Taken(NamedTuple):
    """What one step came to, on the CPU."""

    terms: Tensor
    """[T], the loss first."""
    gradients: dict[str, Tensor]
    changes: dict[str, Tensor]
    """Of the weights, by the optimiser."""


def one_step(
    subject: Subject, model: nn.Module, device: torch.device, precision: Precision
) -> Taken:
    """Take a step on a copy of a network; both stay where they are."""
    own = copy.deepcopy(model)
    whole = Execution(micro_batch=len(subject.batch.pixels))
    step = subject.step(own, device, precision, whole)
    values = step(subject.batch).cpu()
    gradients, changes = {}, {}
    before = dict(model.named_parameters())
    for name, parameter in own.named_parameters():
        if parameter.grad is not None:
            gradients[name] = parameter.grad.cpu()
            changes[name] = parameter.detach().cpu() - before[name].detach()
    return Taken(values[:-1], gradients, changes)


def _difference(case: str, expected: Taken, found: Taken) -> Difference:
    norms = {name: float(grad.norm()) for name, grad in expected.gradients.items()}
    floor = SMALLEST_SHARE * max(norms.values())
    by_tensor = {
        name: float((found.gradients[name] - grad).norm()) / max(norms[name], floor, 1e-30)
        for name, grad in expected.gradients.items()
    }
    worst = max(by_tensor, key=lambda name: (math.isnan(by_tensor[name]), by_tensor[name]))
    loss = (found.terms - expected.terms).abs().max() / expected.terms[0].abs()
    return Difference(
        case, float(loss), by_tensor[worst], worst,
        _relative(_flat(found.changes), _flat(expected.changes)),
    )  # fmt: skip


def _flat(tensors: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensor.double().flatten() for tensor in tensors.values()])


def _relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm().clamp_min(1e-30))


def inference_cases(options: Options, weights: Weights) -> Iterator[Case]:
    """Yield multi-scale CAMs and label probabilities of every preset, PAMR, context association."""
    device = options.device
    images = [image[:, :90].contiguous() for image in made_up_batch(2, 112).pixels]  # [3, 90, 112]
    classes = [tuple(range(NUM_CLASSES))] * 2
    for preset, base in PRESETS.items():
        labels = base.labels.model_copy(update={"precision": "fp32"})
        config = apply_overrides(base, CELLS["F3"])

        def cams(
            config: RunConfig = config, labels: LabelsConfig = labels
        ) -> Callable[[torch.device], Tensor]:
            model = cam_subject(
                apply_overrides(config, {"train.crop_size": 64, "train.batch_size": 2}), weights
            ).build().eval()  # fmt: skip

            def on(device: torch.device) -> Tensor:
                own: Any = copy.deepcopy(model).to(device)
                with torch.inference_mode():
                    return torch.cat(multi_scale_cams(own, images, classes, labels, device=device))

            return on

        yield _inference(f"CAMs of {preset} F3", cams, device)
    for preset, deeplab in distinct(DEEPLAB_PRESETS).items():

        def probs(deeplab: Any = deeplab) -> Callable[[torch.device], Tensor]:
            own = deeplab.model_copy(update={"precision": "fp32"})
            model = deeplab_subject(own, weights).build().eval()

            def on(device: torch.device) -> Tensor:
                other: Any = copy.deepcopy(model).to(device)
                with torch.inference_mode():
                    return multi_scale_probs(other, images[0], own, device=device)

            return on

        yield _inference(f"DeepLab {preset}, probabilities", probs, device)

    def refined() -> Callable[[torch.device], Tensor]:
        image, masks = images[0].float(), images[1].float() / 255
        return lambda device: pamr(image.to(device), masks.to(device), PamrConfig())

    yield _inference("PAMR", refined, device)
    for temperature in (None, 0.1):

        def associated(temperature: float | None = temperature) -> Callable[[torch.device], Tensor]:
            generator = torch.Generator().manual_seed(0)
            features = torch.randn(1, 1024, 256, generator=generator)
            return lambda device: associate(features.to(device), temperature=temperature)

        name = "softmax" if temperature else "ReLU"
        yield _inference(f"context association of 32 x 32, {name}", associated, device)


def _inference(
    name: str, prepare: Callable[[], Callable[[torch.device], Tensor]], device: torch.device
) -> Case:
    def compare() -> Answer:
        compute = prepare()
        with products("fp32"):
            expected, found = compute(CPU), compute(device).cpu()
        return Difference(name, _relative(found.double(), expected.double()), math.nan), []

    return name, compare
