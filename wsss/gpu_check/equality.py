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

from wsss.config import LabelsConfig, Precision, RunConfig
from wsss.gpu_check.page import Section, Verdict
from wsss.gpu_check.speeds import Bench
from wsss.gpu_check.subjects import (
    CELLS,
    FULL_MODULE,
    NUM_CLASSES,
    PARTS,
    VIEWS,
    Options,
    Subject,
    cam_subject,
    made_up_batch,
    other_subjects,
)
from wsss.labels.infer import multi_scale_cams
from wsss.labels.refine.pamr import pamr
from wsss.labels.segment import multi_scale_probs
from wsss.networks.parts.association import associate
from wsss.networks.precision import products
from wsss.overrides import apply_overrides
from wsss.presets import DEEPLAB_PRESETS, PRESETS
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
GRADIENT = "gradient of "
"""How the name of a tensor's gradient begins."""
WRONG = (
    "The device's results differ from the CPU's: they would be wrong.",
    "do not train here; try another version of torch or of the driver, and report it with "
    "gpu_check.json",
)
"""Meaning and remedy of a FAIL."""
SENSITIVE = (
    "This network is sensitive: the last digit of a weight has as much effect.",
    "nothing, unless every preset has such a case",
)
"""Meaning and remedy of a LOOK."""
DISTINCT = ("tiny", "short", "paper")
"""Presets that differ in their DeepLab and affinity network; irn has the paper's."""
MANY_PIXELS = 384
"""Crop size whose map of 24 x 24 makes context association work by blocks."""


class Result(NamedTuple):
    """A tensor in which CPU and device should agree."""

    values: Tensor
    """On the CPU."""
    scale: float
    """What the norm of a difference is divided by."""


Results = dict[str, Result]
"""What the page calls a result -> the result, a step's loss first."""
Compute = Callable[[nn.Module, torch.device, Precision], Results]
"""Computes with a network that it may change."""


class Case(NamedTuple):
    """Something that is computed on the CPU and on the device."""

    name: str
    build: Callable[[], nn.Module]
    compute: Compute
    is_step: bool = True
    """Of a training, whose gradients rounding may change a lot."""
    precisions: tuple[Precision, ...] = ()
    """To be compared with fp32, for information."""


@dataclass(frozen=True)
class Difference:
    """How far the device's results are from the CPU's in one case; all numbers are relative."""

    case: str
    largest: float
    """nan if any number was not finite."""
    result: str
    """That differs most."""
    rounding: float = 0.0
    """Effect of rounding on the result that it changes most; measured only above TOLERANCE."""

    @property
    def verdict(self) -> Verdict:
        """PASS, LOOK or FAIL."""
        if self.largest <= TOLERANCE:
            return "PASS"
        return "LOOK" if self.largest <= TIMES_ROUNDING * self.rounding else "FAIL"

    @property
    def said(self) -> str:
        """The difference, where it is, and what it is compared with."""
        return (
            f"differs by {self.largest:.1e} ({self.result}); allowed: {TOLERANCE:.0e}, rounding "
            f"alone changes it by {self.rounding:.1e}"
        )


@dataclass(frozen=True)
class PrecisionDistance:
    """Relative difference of a precision from fp32 on the device: information, not a fault."""

    case: str
    precision: str
    loss: float
    gradients: float
    """Of all together."""


def check_equality(bench: Bench, section: Section, cases: Iterable[Case] | None = None) -> None:
    """Compare all cases, as far as time allows. cases: `all_cases` by default."""
    differences: list[Difference] = []
    distances: list[PrecisionDistance] = []
    section.numbers["differences"] = differences
    section.show(
        "precisions",
        distances,
        "Relative difference of tf32 and bf16 from fp32 on this device, in the first step. Not a "
        "fault: both have fewer digits (tf32 11 bits, bf16 8), and the gradients of a random "
        "network change by tenths in bf16. Only trainings show whether it trains as well.",
    )
    for case in all_cases(bench.options) if cases is None else cases:
        if section.is_late(case.name):
            continue
        found = section.attempt(case.name, partial(compare, case, bench.options.device), *WRONG)
        if found:
            differences.append(found[0])
            distances += found[1]
    judge(differences, section)


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
        if one.verdict != "PASS":
            meaning = SENSITIVE if one.verdict == "LOOK" else WRONG
            section.say(one.verdict, one.case, one.said, *meaning)


def compare(case: Case, device: torch.device) -> tuple[Difference, list[PrecisionDistance]]:
    """Compute a case on the CPU and on the device, and compare the results."""
    model = case.build()
    expected = case.compute(copy.deepcopy(model), CPU, "fp32")
    found = case.compute(copy.deepcopy(model), device, "fp32")
    difference = Difference(case.name, *furthest(found, expected))
    if case.is_step and not difference.largest <= TOLERANCE:
        moved = copy.deepcopy(model)
        with torch.no_grad():
            for parameter in moved.parameters():
                sign = torch.where(torch.rand_like(parameter) < 0.5, -1.0, 1.0)
                parameter.mul_(1 + sign * torch.finfo(torch.float32).eps)
        rounding, _ = furthest(case.compute(moved, CPU, "fp32"), expected)
        difference = replace(difference, rounding=rounding)
    distances = []
    for precision in case.precisions:
        rough = case.compute(copy.deepcopy(model), device, precision)
        first = next(iter(found))  # the loss
        loss, _ = furthest(rough, {first: found[first]})
        gradient, _ = furthest(_all_gradients(rough), _all_gradients(found))
        distances.append(PrecisionDistance(case.name, precision, loss, gradient))
    return difference, distances


def furthest(found: Results, expected: Results) -> tuple[float, str]:
    """Return the largest relative difference, and of which result; nan counts as the largest."""
    apart = {
        name: float((found[name].values.double() - one.values.double()).norm()) / one.scale
        for name, one in expected.items()
    }
    worst = max(apart, key=lambda name: (math.isnan(apart[name]), apart[name]))
    return apart[worst], worst


def _result(values: Tensor, smallest_scale: float = 0.0) -> Result:
    return Result(values, max(float(values.norm()), smallest_scale, 1e-30))


def _flat(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([tensor.double().flatten() for tensor in tensors])


def _all_gradients(results: Results) -> Results:
    names = [name for name in results if name.startswith(GRADIENT)]
    return {"gradients": _result(_flat(results[name].values for name in names))}


def all_cases(options: Options) -> list[Case]:
    """Return all cases: every network and inference first, then parts, then readings."""
    cases = [*training_cases(options), *inference_cases(options)]
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


def training_cases(options: Options) -> Iterator[Case]:
    """Yield the trainings: CAM networks of every preset, DeepLab, the affinity network."""
    crop = 64 if options.small else 128
    precisions: tuple[Precision, ...] = ("tf32", "bf16") if options.on_gpu else ("bf16",)

    def case(name: str, subject: Subject, *, precise: bool = False) -> Case:
        taken = partial(one_step, subject)
        return Case(name, subject.build, taken, precisions=precisions if precise else ())

    def cam(base: RunConfig, overrides: dict[str, Any]) -> Subject:
        small = {"train.crop_size": crop, "train.batch_size": 2}
        return cam_subject(apply_overrides(base, small | overrides), options.weights)

    for preset, base in PRESETS.items():
        for cell, overrides in cam_cells().items():
            precise = cell in ("B0", "F3") and (preset == "tiny" or not options.small)
            yield case(f"{preset} {cell}", cam(base, overrides), precise=precise)
    tiny = apply_overrides(PRESETS["tiny"], CELLS["F3"])
    many = {"train.crop_size": MANY_PIXELS, "train.batch_size": 1}
    yield case(f"tiny F3 of {MANY_PIXELS} px", cam(tiny, many))
    for preset in DISTINCT:
        for name, subject in other_subjects(preset, crop, options.weights).items():
            precise = name == "DeepLab" and not options.small
            yield case(f"{name} {preset}", subject, precise=precise)
    for name, overrides in readings(tiny):
        yield case(f"tiny F3, {name}", cam(tiny, overrides))


def one_step(
    subject: Subject, model: nn.Module, device: torch.device, precision: Precision
) -> Results:
    """Take a step with a network on the CPU, which it moves and changes."""
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    whole = Execution(micro_batch=len(subject.batch.pixels))
    step = subject.step(model, device, precision, whole)
    *terms, _ = step(subject.batch).cpu()
    learnt = {name: p for name, p in model.named_parameters() if p.grad is not None}
    gradients = {name: p.grad.cpu() for name, p in learnt.items() if p.grad is not None}
    floor = SMALLEST_SHARE * max(float(gradient.norm()) for gradient in gradients.values())
    loss = max(abs(float(terms[0])), 1e-30)
    return {
        **{n: Result(term, loss) for n, term in zip(step.objective.names, terms, strict=True)},
        **{GRADIENT + n: _result(gradient, floor) for n, gradient in gradients.items()},
        "optimiser's step": _result(_flat(p.detach().cpu() - before[n] for n, p in learnt.items())),
    }


def inference_cases(options: Options) -> Iterator[Case]:
    """Yield CAMs and label probabilities of every preset, PAMR and context association."""
    images = [image[:, :90].contiguous() for image in made_up_batch(2, 112).pixels]  # [3, 90, 112]

    image, masks = images[0].float(), images[1].float() / 255
    features = torch.randn(1, 1024, 256, generator=torch.Generator().manual_seed(0))

    def cams(labels: LabelsConfig, model: Any, device: torch.device) -> Tensor:
        labels = labels.model_copy(update={"precision": "fp32"})
        classes = [tuple(range(NUM_CLASSES))] * len(images)
        return torch.cat(multi_scale_cams(model, images, classes, labels, device=device))

    def probabilities(config: DeepLabConfig, model: Any, device: torch.device) -> Tensor:
        config = config.model_copy(update={"precision": "fp32"})
        return multi_scale_probs(model, images[0], config, device=device)

    def refined(_: nn.Module, device: torch.device) -> Tensor:
        return pamr(image.to(device), masks.to(device), PamrConfig())

    def associated(temperature: float | None, _: nn.Module, device: torch.device) -> Tensor:
        return associate(features.to(device), temperature=temperature)

    small = {"train.crop_size": 64, "train.batch_size": 2}
    for preset, config in PRESETS.items():
        subject = cam_subject(apply_overrides(config, CELLS["F3"] | small), options.weights)
        yield of_maps(f"CAMs of {preset} F3", subject.build, partial(cams, config.labels))
    for preset in DISTINCT:
        subject = other_subjects(preset, 64, options.weights)["DeepLab"]
        infer = partial(probabilities, DEEPLAB_PRESETS[preset])
        yield of_maps(f"DeepLab {preset}, probabilities", subject.build, infer)
    yield of_maps("PAMR", nn.Identity, refined)
    for name, temperature in (("ReLU", None), ("softmax", 0.1)):
        infer = partial(associated, temperature)
        yield of_maps(f"context association of 32 x 32, {name}", nn.Identity, infer)


def of_maps(
    name: str, build: Callable[[], nn.Module], infer: Callable[[nn.Module, torch.device], Tensor]
) -> Case:
    """Return the case of maps that are inferred with a network."""

    def compute(model: nn.Module, device: torch.device, precision: Precision) -> Results:
        with products(precision), torch.inference_mode():
            return {"result": _result(infer(model.to(device).eval(), device).cpu().double())}

    return Case(name, build, compute, is_step=False)
