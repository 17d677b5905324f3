"""What a probe has shown, in words, and whether the sweep should be run."""

import math
from collections.abc import Iterable
from dataclasses import replace

from rich.console import Console
from rich.text import Text

from sweeps.plan.sweep import Sweep
from sweeps.report.live.cost_lines import format_bytes, format_seconds
from sweeps.run.probe import Probed, ProbeTarget, probe_targets, run_probes
from sweeps.run.resources import Resources
from sweeps.store.store import Store
from wsss.training.probe import ProbeOptions, ProbeResult

FINE, BAD, INTERRUPTED = 0, 1, 130
NUM_NAMED = 3
"""Cells that a line names; more are counted."""


def probe_sweep(sweep: Sweep, store: Store, resources: Resources, options: ProbeOptions) -> int:
    """Probe every distinct training of a sweep, and print what came of each and what all cost.

    Returns 0 if all train as far as this tells (`is_bad`), 1 if not, 130 after Ctrl-C.
    """
    console, found = Console(), list[Probed]()
    targets = probe_targets(sweep.plan, store)
    _print(console, sweep.describe())
    _print(
        console,
        f"probe: the first {options.num_steps} steps of {_counted(len(targets), 'training')}; "
        "nothing of them is kept",
    )
    try:
        for probed in run_probes(sweep, targets, resources, options):
            found.append(probed)
            _print(console, f"{len(found)}/{len(targets)}  {describe(probed)}")
    except KeyboardInterrupt:
        _print(console, "interrupted; nothing was kept")
        return INTERRUPTED
    found.sort(key=lambda probed: targets.index(probed.target))
    for line in (*verdict(found), *cost(found, resources)):
        _print(console, line)
    return BAD if any(map(is_bad, found)) else FINE


def is_bad(probed: Probed) -> bool:
    """Whether to change something before the sweep is run.

    That is if the probe failed, the training would end (not finite, or not clearly below the label
    prior after --prior-fails-after iterations, or at its own end), or L_cls does not fall. Before
    that, not to be below the label prior is no fault.
    """
    result = probed.result
    if result is None or result.failure or not result.is_falling:
        return True
    return result.is_whole and result.at_prior


def describe(probed: Probed) -> str:
    """Return the lines on one training."""
    name, result = short_name(probed.target), probed.result
    if result is None:
        return f"{name}: the probe itself failed: {probed.error}"
    finite = "not all finite" if result.diverged else "losses and gradients finite"
    memory = "GPU memory" if result.on_gpu else "memory"
    return "\n     ".join(
        (
            f"{name}: {result.num_steps} of {result.total_steps} steps; {judge(result)}",
            f"L_cls {result.loss_first:.4g} -> {result.loss_last:.4g}, label prior "
            f"{result.prior:.4g}; {finite}, largest gradient norm {result.largest_norm:.3g}",
            f"{result.seconds_per_step:.3g} s per step, {result.images_per_second:.3g} images/s, "
            f"{format_bytes(result.peak_bytes / 2**30)} of {memory} at most; the whole training "
            f"about {_time(result.training_seconds)}",
        )
    )


def judge(result: ProbeResult) -> str:
    """Return in words how a training goes."""
    if result.failure:
        return result.failure
    if not result.is_falling:
        return "L_cls does not fall; try another train.lr, or set train.clip_norm"
    if result.at_prior:
        when = "at its end" if result.is_whole else f"after {result.num_steps} steps"
        return f"L_cls falls, and is not clearly below the label prior {when}"
    below = 1 - result.loss_last / result.prior
    return f"looks fine, L_cls is {below:.0%} below the label prior"


def verdict(found: Iterable[Probed]) -> list[str]:
    """Return a line for each way in which trainings go, with those that go it."""
    groups: dict[str, list[str]] = {}
    for probed in found:
        groups.setdefault(_group(probed), []).append(short_name(probed.target))
    return [f"{group}: {'; '.join(groups[group])}" for group in _GROUPS if group in groups]


_GROUPS = (
    "would diverge",
    "would be ended as not learning",
    "L_cls does not fall",
    "could not be probed",
    "ended without learning",
    "not clearly below the label prior yet (normal for a hundred steps; a longer probe tells more)",
    "look fine",
)


def _group(probed: Probed) -> str:
    diverge, not_learning, not_falling, failed, ended, at_prior, fine = _GROUPS
    result = probed.result
    if result is None:
        return failed
    if result.failure:
        return diverge if result.diverged else not_learning
    if not result.is_falling:
        return not_falling
    if not result.at_prior:
        return fine
    return ended if result.is_whole else at_prior


def cost(found: Iterable[Probed], resources: Resources) -> list[str]:
    """Return what the missing trainings of all seeds will take, scoring left out."""
    device, per_rank = ("GPU", resources.gpus) if resources.gpus else ("CPU", resources.cpus)
    seconds, missing, unknown = 0.0, 0.0, 0.0
    for probed in found:
        took = probed.result.training_seconds if probed.result else math.nan
        missing += probed.target.missing
        if math.isfinite(took):
            seconds += took * probed.target.missing
        else:
            unknown += probed.target.missing
    hours = seconds * resources.demand.workers * per_rank / 3600
    text = (
        f"what the plan still needs, {missing:.4g} of its trainings under all seeds: about "
        f"{_time(seconds)} one at a time, {hours:.2g} {device}-hours; scoring comes on top"
    )
    return [text + (f"; {unknown:.4g} of them of unknown time" if unknown else "")]


def short_name(target: ProbeTarget) -> str:
    """Return the first cells that a training stands behind, and how many more there are."""
    named = replace(target, cells=target.cells[:NUM_NAMED]).name
    more = len(target.cells) - NUM_NAMED
    return f"{named} and {more} more" if more > 0 else named


def _time(seconds: float) -> str:
    return format_seconds(seconds) if math.isfinite(seconds) else "unknown"


def _counted(number: int, word: str) -> str:
    return f"{number} distinct {word}{'' if number == 1 else 's'}"


def _print(console: Console, text: str) -> None:
    console.print(Text(text), soft_wrap=True)
