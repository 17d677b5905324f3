"""Whether a GPU computes what the CPU computes: one step of every training, and every inference.

A difference above TOLERANCE is compared with the effect of rounding: the same step on the CPU with
weights changed by one unit in the last place. Some networks are that sensitive.
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor, nn

from wsss.config import Precision, RunConfig
from wsss.gpu_check.page import Options, Section, Table, first_line
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
from wsss.labels.refine.pamr import pamr
from wsss.labels.segment import multi_scale_probs
from wsss.networks.parts.association import associate
from wsss.networks.precision import products
from wsss.overrides import apply_overrides
from wsss.presets import DEEPLAB_PRESETS, LABEL_PRESETS, PRESETS
from wsss.segmentation_config import DeepLabConfig, PamrConfig
from wsss.training.execution import Execution

CPU = torch.device("cpu")
TOLERANCE = 1e-3
"""Relative difference of fp32 results that needs no explanation."""
TIMES_ROUNDING = 10
"""A difference of more than this many times the effect of rounding is a fault."""
SMALLEST_SHARE = 1e-3
"""A tensor's gradient is divided by at least this share of the largest tensor's norm: one that is 0
but for rounding (a bias before a batch norm) would have a relative difference of 1."""
NOT_COMPUTED = ("horizontal_flip", "resize", "precision")
"""Settings of `train` that a step does not use."""
MANY_PIXELS = 384
"""Crop size whose map of 24 x 24 makes context association work by blocks."""


@dataclass(frozen=True)
class Difference:
    """How far the device's results are from the CPU's in one case; all numbers are relative."""

    case: str
    loss: float = math.nan
    gradient: float = math.nan
    """Of the tensor that differs most; nan without a gradient."""
    tensor: str = ""
    """That tensor's name."""
    update: float = math.nan
    """Of the optimiser's change of all weights together."""
    rounding: float = 0.0
    """Effect of rounding on the largest of the three; measured only above TOLERANCE."""
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

    @property
    def said(self) -> str:
        """The difference, where it is, and what it is compared with."""
        place = "result"
        if self.tensor and self.largest != self.loss:
            of_gradient = self.largest == self.gradient
            place = f"gradient of {self.tensor}" if of_gradient else "optimiser's step"
        return self.error or (
            f"differs by {self.largest:.1e} ({place}); allowed: {TOLERANCE:.0e}, rounding alone "
            f"changes it by {self.rounding:.1e}"
        )


class PrecisionDistance(NamedTuple):
    """Relative difference of a precision from fp32 on the device: information, not a fault."""

    case: str
    precision: str
    loss: float
    gradient: float
    """Of all gradients together."""


Answer = tuple[Difference, list[PrecisionDistance]]
Case = tuple[str, Callable[[], Answer]]
Compute = Callable[[torch.device], Tensor]


def check_equality(options: Options, weights: Weights, section: Section) -> list[Difference]:
    """Compare all cases, as far as time allows."""
    differences: list[Difference] = []
    distances: list[PrecisionDistance] = []
    section.numbers |= {"differences": differences, "precisions": distances}
    for name, case in all_cases(options, weights):
        if section.is_late(name):
            continue
        try:
            difference, of_precisions = case()
        except Exception as error:  # a driver may raise anything; the other cases still run
            difference, of_precisions = Difference(name, error=first_line(error)), []
        differences.append(difference)
        distances += of_precisions
    judge(differences, section)
    rows = [(d.case, d.precision, f"{d.loss:.1e}", f"{d.gradient:.1e}") for d in distances]
    note = (
        "Relative difference of tf32 and bf16 from fp32 on this device, in the first step. Not a "
        "fault: both have fewer digits (tf32 11 bits, bf16 8), and the gradients of a random "
        "network change by tenths in bf16. Only trainings show whether it trains as well."
    )
    section.tables.append(Table(("case", "precision", "loss", "gradients"), rows, note))
    return differences


def judge(differences: list[Difference], section: Section) -> None:
    """Add a line for all that pass, and one for each that does not."""
    passed = [one for one in differences if one.verdict == "PASS"]
    if passed:
        worst = max(passed, key=lambda one: one.largest)
        section.say(
            "PASS",
            f"{len(passed)} of {len(differences)} cases",
            f"differ by at most {worst.largest:.1e} ({worst.case}); allowed: {TOLERANCE:.0e}",
            "Losses, gradients and the optimiser's step are as on the CPU, in fp32.",
        )
    for one in sorted(differences, key=lambda one: one.verdict, reverse=True):
        if one.verdict == "LOOK":
            section.say(
                "LOOK",
                one.case,
                one.said,
                "This network is sensitive: the last digit of a weight has as much effect.",
                "nothing, unless every preset has such a case",
            )
        elif one.verdict == "FAIL":
            section.say(
                "FAIL",
                one.case,
                one.said,
                "The device's results differ from the CPU's: they would be wrong.",
                "do not train here; try another version of torch or of the driver, and report it "
                "with gpu_check.json",
            )


def all_cases(options: Options, weights: Weights) -> list[Case]:
    """Return all cases: every network and inference first, then parts, then readings."""
    cases = [*training_cases(options, weights), *inference_cases(options, weights)]
    minor = {f"{preset} {cell}" for preset in PRESETS for cell in cam_cells() if cell not in CELLS}
    return sorted(cases, key=lambda case: 2 if "=" in case[0] else case[0] in minor)


def cam_cells() -> dict[str, dict[str, Any]]:
    """Return settings by cell: B0, each part and each view alone, both views, F0 and F3."""
    alone = {part: {f"network.{part}": True} for part in PARTS}
    alone |= {f"{view} view": FULL_MODULE | {f"views.{view}": True} for view in VIEWS}
    return CELLS | alone | {"both views, no part": {f"views.{view}": True for view in VIEWS}}


def readings(config: RunConfig) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (name, overrides) for every other value of each setting that a step uses."""
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
    number: Iterable[Precision] = ("tf32", "bf16") if options.on_gpu else ("bf16",)

    def case(name: str, subject: Subject, *, precise: bool = False) -> Case:
        return name, partial(
            compare_steps, name, subject, options.device, precisions=number if precise else ()
        )

    def cam(
        base: RunConfig, overrides: dict[str, Any], size: int = crop, batch: int = 2
    ) -> Subject:
        small = {"train.crop_size": size, "train.batch_size": batch}
        return cam_subject(apply_overrides(base, small | overrides), weights)

    for preset, base in PRESETS.items():
        for cell, overrides in cam_cells().items():
            precise = cell in ("B0", "F3") and (preset == "tiny" or not options.small)
            yield case(f"{preset} {cell}", cam(base, overrides), precise=precise)
    tiny = apply_overrides(PRESETS["tiny"], CELLS["F3"])
    yield case(f"tiny F3 of {MANY_PIXELS} px", cam(tiny, {}, MANY_PIXELS, 1))
    for preset, deeplab in distinct(DEEPLAB_PRESETS).items():
        few = deeplab.model_copy(update={"batch_size": 2, "crop_size": crop + 1})
        yield case(f"DeepLab {preset}", deeplab_subject(few, weights), precise=not options.small)
    for preset, labels in distinct(LABEL_PRESETS).items():
        walk = labels.random_walk.model_copy(update={"batch_size": 2, "crop_size": crop})
        subject = affinity_subject(PRESETS[preset].network, walk, weights)
        yield case(f"affinity network {preset}", subject)
    for name, overrides in readings(tiny):
        yield case(f"tiny F3, {name}", cam(tiny, overrides))


def distinct(presets: Any) -> dict[str, Any]:
    """Return the presets that do not equal an earlier one."""
    found: dict[str, Any] = {}
    for name, preset in presets.items():
        if preset not in found.values():
            found[name] = preset
    return found


def compare_steps(
    case: str, subject: Subject, device: torch.device, *, precisions: Iterable[Precision] = ()
) -> Answer:
    """Take one step on the CPU and on the device, and compare the results."""
    model = subject.build()
    expected = one_step(subject, model, CPU, "fp32")
    found = one_step(subject, model, device, "fp32")
    difference = _difference(case, expected, found)
    if not difference.largest <= TOLERANCE:
        moved = copy.deepcopy(model)
        with torch.no_grad():
            for parameter in moved.parameters():
                sign = torch.where(torch.rand_like(parameter) < 0.5, -1.0, 1.0)
                parameter.mul_(1 + sign * torch.finfo(torch.float32).eps)
        other = _difference(case, expected, one_step(subject, moved, CPU, "fp32"))
        difference = replace(difference, rounding=other.largest)
    distances = []
    for precision in precisions:
        rough = one_step(subject, model, device, precision)
        loss = _relative(rough.terms[:1], found.terms[:1])
        gradient = _relative(_flat(rough.gradients), _flat(found.gradients))
        distances.append(PrecisionDistance(case, precision, loss, gradient))
    return difference, distances


class Taken(NamedTuple):
    """The results of one step, on the CPU."""

    terms: Tensor
    """[T], the loss first."""
    gradients: dict[str, Tensor]
    changes: dict[str, Tensor]
    """Of the weights, by the optimiser."""


def one_step(
    subject: Subject, model: nn.Module, device: torch.device, precision: Precision
) -> Taken:
    """Take a step with a copy of a network; `model` is left as it is."""
    own = copy.deepcopy(model)
    whole = Execution(micro_batch=len(subject.batch.pixels))
    values = subject.step(own, device, precision, whole)(subject.batch).cpu()
    before = dict(model.named_parameters())
    learnt = {name: p for name, p in own.named_parameters() if p.grad is not None}
    return Taken(
        values[:-1],
        {name: p.grad.cpu() for name, p in learnt.items() if p.grad is not None},
        {name: p.detach().cpu() - before[name].detach() for name, p in learnt.items()},
    )


def _difference(case: str, expected: Taken, found: Taken) -> Difference:
    norms = {name: float(grad.norm()) for name, grad in expected.gradients.items()}
    floor = SMALLEST_SHARE * max(norms.values())
    by_tensor = {
        name: float((found.gradients[name] - grad).norm()) / max(norms[name], floor, 1e-30)
        for name, grad in expected.gradients.items()
    }
    worst = max(by_tensor, key=lambda name: (math.isnan(by_tensor[name]), by_tensor[name]))
    loss = (found.terms - expected.terms).abs().max() / expected.terms[0].abs()
    update = _relative(_flat(found.changes), _flat(expected.changes))
    return Difference(case, float(loss), by_tensor[worst], worst, update)


def _flat(tensors: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensor.double().flatten() for tensor in tensors.values()])


def _relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm().clamp_min(1e-30))


def inference_cases(options: Options, weights: Weights) -> Iterator[Case]:
    """Yield CAMs and label probabilities of every preset, PAMR and context association."""
    images = [image[:, :90].contiguous() for image in made_up_batch(2, 112).pixels]  # [3, 90, 112]

    def case(name: str, prepare: Callable[[], Compute]) -> Case:
        return name, partial(compare_inference, name, prepare, options.device)

    for preset, config in PRESETS.items():
        yield case(f"CAMs of {preset} F3", partial(_cams, config, weights, images))
    for preset, deeplab in distinct(DEEPLAB_PRESETS).items():
        prepare = partial(_probabilities, deeplab, weights, images[0])
        yield case(f"DeepLab {preset}, probabilities", prepare)
    yield case("PAMR", lambda: _refined(images))
    yield case("context association of 32 x 32, ReLU", lambda: _associated(None))
    yield case("context association of 32 x 32, softmax", lambda: _associated(0.1))


def compare_inference(name: str, prepare: Callable[[], Compute], device: torch.device) -> Answer:
    """Compute the same on the CPU and on the device."""
    compute = prepare()
    with products("fp32"), torch.inference_mode():
        expected, found = compute(CPU), compute(device).cpu()
    return Difference(name, _relative(found.double(), expected.double())), []


def _cams(config: RunConfig, weights: Weights, images: list[Tensor]) -> Compute:
    small = {"train.crop_size": 64, "train.batch_size": 2}
    model = cam_subject(apply_overrides(config, CELLS["F3"] | small), weights).build().eval()
    labels = config.labels.model_copy(update={"precision": "fp32"})
    classes = [tuple(range(NUM_CLASSES))] * len(images)

    def on(device: torch.device) -> Tensor:
        own = copy.deepcopy(model).to(device)
        return torch.cat(multi_scale_cams(own, images, classes, labels, device=device))

    return on


def _probabilities(config: DeepLabConfig, weights: Weights, image: Tensor) -> Compute:
    config = config.model_copy(update={"precision": "fp32"})
    model = deeplab_subject(config, weights).build().eval()

    def on(device: torch.device) -> Tensor:
        return multi_scale_probs(copy.deepcopy(model).to(device), image, config, device=device)

    return on


def _refined(images: list[Tensor]) -> Compute:
    image, masks = images[0].float(), images[1].float() / 255
    return lambda device: pamr(image.to(device), masks.to(device), PamrConfig())


def _associated(temperature: float | None) -> Compute:
    features = torch.randn(1, 1024, 256, generator=torch.Generator().manual_seed(0))
    return lambda device: associate(features.to(device), temperature=temperature)
