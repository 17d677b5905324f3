"""Whether a GPU computes what the CPU computes: one step of every training, and every inference.

A difference above TOLERANCE is compared with the effect of rounding: the same step on the CPU with
weights changed by one unit in the last place. Some networks are that sensitive.
"""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor, nn

from wsss.config import LabelsConfig, NetworkConfig, RunConfig
from wsss.gpu_check.bench import Bench
from wsss.gpu_check.page import Section, Verdict
from wsss.gpu_check.trainings import (
    CELLS,
    NUM_CLASSES,
    TrainingCase,
    cam_case,
    made_up_batch,
    other_cases,
)
from wsss.labels.infer import multi_scale_cams
from wsss.labels.refine.pamr import pamr
from wsss.labels.segment import multi_scale_probs
from wsss.networks.cam_net import CamNet
from wsss.networks.deeplab import DeepLab
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
"""How the name of a parameter's gradient begins."""
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

Results = dict[str, Tensor]
"""What the page calls a result -> a tensor on the CPU: the loss, gradients, maps."""


class Case(NamedTuple):
    """Something that is computed on the CPU and on the device."""

    name: str
    build: Callable[[], nn.Module]
    compute: Callable[[nn.Module, torch.device], Results]
    """Computes in fp32, with a network that it may change."""
    is_step: bool = True
    """Of a training, whose gradients rounding may change a lot."""


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


def check_equality(bench: Bench, section: Section) -> None:
    """One step of every training, and every inference, on the CPU and on the device in full fp32:
    the same losses, gradients and maps? This decides whether results can be trusted.
    """
    differences: list[Difference] = []
    section.numbers["differences"] = differences
    for case in all_cases(bench):
        if found := section.part(case.name, partial(compare, case, bench.device), WRONG):
            differences.append(found)
    passed = [one for one in differences if one.verdict == "PASS"]
    if passed:
        worst = max(passed, key=lambda one: one.largest)
        section.say(
            "PASS",
            f"{len(passed)} of {len(differences)} cases",
            f"differ by at most {worst.largest:.1e} ({worst.case}); allowed: {TOLERANCE:.0e}",
        )
    for one in sorted(differences, key=lambda one: one.verdict, reverse=True):
        if one.verdict != "PASS":
            section.say(
                one.verdict,
                one.case,
                f"differs by {one.largest:.1e} ({one.result}); allowed: {TOLERANCE:.0e}, rounding "
                f"alone changes it by {one.rounding:.1e}",
                *(SENSITIVE if one.verdict == "LOOK" else WRONG),
            )


def compare(case: Case, device: torch.device) -> Difference:
    """Compute a case on the CPU and on the device, and compare the results."""
    model = case.build()
    expected = case.compute(copy.deepcopy(model), CPU)
    largest, result = furthest(case.compute(copy.deepcopy(model), device), expected)
    if not case.is_step or largest <= TOLERANCE:
        return Difference(case.name, largest, result)
    with torch.no_grad():
        for parameter in model.parameters():
            sign = torch.where(torch.rand_like(parameter) < 0.5, -1.0, 1.0)
            parameter.mul_(1 + sign * torch.finfo(torch.float32).eps)
    rounding, _ = furthest(case.compute(model, CPU), expected)
    return Difference(case.name, largest, result, rounding)


def furthest(found: Results, expected: Results) -> tuple[float, str]:
    """Return the largest relative difference, and of which result; nan counts as the largest.

    Of tensors of equal shapes: the norm of their difference, divided by the expected one's norm; a
    gradient's norm counts as SMALLEST_SHARE of the largest gradient's at least.
    """
    norms = {name: float(one.norm()) for name, one in expected.items()}
    gradients = {name: norm for name, norm in norms.items() if name.startswith(GRADIENT)}
    floor = max(gradients.values(), default=0) * SMALLEST_SHARE
    norms |= {name: max(norm, floor) for name, norm in gradients.items()}
    apart = {
        name: float((found[name].double() - one.double()).norm()) / max(norms[name], 1e-30)
        for name, one in expected.items()
    }
    worst = max(apart, key=lambda name: (math.isnan(apart[name]), apart[name]))
    return apart[worst], worst


def all_cases(bench: Bench) -> Iterator[Case]:
    """Yield all cases: every network and inference first, then parts and readings."""
    crop = 64 if bench.small else 128
    small = {"train.crop_size": crop, "train.batch_size": 2}

    def cam(name: str, config: RunConfig, overrides: dict[str, Any]) -> Case:
        config = apply_overrides(config, small | overrides)
        return step_case(name, cam_case(config, bench.weights))

    for preset, config in PRESETS.items():
        for cell, overrides in CELLS.items():
            yield cam(f"{preset} {cell}", config, overrides)
    many = CELLS["F3"] | {"train.crop_size": MANY_PIXELS, "train.batch_size": 1}
    for kind in get_args(NetworkConfig.model_fields["affinity"].annotation):
        name = f"tiny F3 of {MANY_PIXELS} px, affinity {kind}"
        yield cam(name, PRESETS["tiny"], many | {"network.affinity": kind})
    for preset in DISTINCT:
        for name, training in other_cases(preset, crop, bench.weights).items():
            yield step_case(f"{name} {preset}", training)
    yield from inference_cases(bench)
    tiny = apply_overrides(PRESETS["tiny"], CELLS["F3"])
    for name, overrides in readings(tiny):
        yield cam(f"tiny F3, {name}", tiny, overrides)


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


def step_case(name: str, training: TrainingCase) -> Case:
    """Return a step of a training as a case."""
    return Case(name, training.build, partial(one_step, training))


def one_step(training: TrainingCase, model: nn.Module, device: torch.device) -> Results:
    """Take a step with a network on the CPU, which it moves and changes."""
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    whole = Execution(micro_batch=len(training.batch.pixels))
    loss = training.step(model, device, "fp32", whole)(training.batch)[0].cpu()
    results, moves = {"loss": loss}, list[Tensor]()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            results[GRADIENT + name] = parameter.grad.cpu()
            moves.append((parameter.detach().cpu() - before[name]).flatten())
    return results | {"optimiser's step": torch.cat(moves)}


def inference_cases(bench: Bench) -> Iterator[Case]:
    """Yield the CAMs and the label probabilities of every preset, and PAMR, as cases."""
    images = [image[:, :90].contiguous() for image in made_up_batch(2, 112).pixels]  # [3, 90, 112]
    classes = [tuple(range(NUM_CLASSES))] * len(images)
    image, masks = images[0].float(), images[1].float() / 255

    @torch.inference_mode()
    def cams(labels: LabelsConfig, model: CamNet, device: torch.device) -> Results:
        found = multi_scale_cams(model.to(device).eval(), images, classes, labels, device=device)
        return {"maps": torch.cat(found).cpu()}

    @torch.inference_mode()
    def probs(config: DeepLabConfig, model: DeepLab, device: torch.device) -> Results:
        found = multi_scale_probs(model.to(device).eval(), images[0], config, device=device)
        return {"maps": found.cpu()}

    def refined(_: nn.Module, device: torch.device) -> Results:
        return {"maps": pamr(image.to(device), masks.to(device), PamrConfig()).cpu()}

    small = {"train.crop_size": 64, "train.batch_size": 2, "labels.precision": "fp32"}
    for preset in PRESETS:
        config = apply_overrides(PRESETS[preset], CELLS["F3"] | small)
        build, compute = cam_case(config, bench.weights).build, partial(cams, config.labels)
        yield Case(f"CAMs of {preset} F3", build, compute, is_step=False)
    for preset in DISTINCT:
        deeplab = DEEPLAB_PRESETS[preset].model_copy(update={"precision": "fp32"})
        build = other_cases(preset, 64, bench.weights)["DeepLab"].build
        name = f"DeepLab {preset}, probabilities"
        yield Case(name, build, partial(probs, deeplab), is_step=False)
    yield Case("PAMR", nn.Identity, refined, is_step=False)
