"""A sweep's numbers cell by cell, unrounded: the rows of report.csv."""

from collections.abc import Mapping

from sweeps.evidence.seeds import Interval
from sweeps.report.document import DASH
from sweeps.report.tables.model import CellReport
from sweeps.report.words import mean_sd


def record(table: str, cell: CellReport) -> dict[str, object]:
    """Return the figures of a cell by the name of their column."""
    report = cell.table.report
    sweep, base, evidence = report.sweep, report.sweep.base, cell.evidence
    differences = evidence.differences
    image_difference, above_over_images = cell.over_images
    mean, sd = mean_sd(cell.scores)
    found: dict[str, object] = {
        "table": table,
        "cell": cell.reference,
        "labels": ", ".join(cell.labels),
        "measure": report.results.measure.value,
        "paper_miou": cell.paper,
        "mean_miou": mean,
        "sd_over_seeds": sd,
        "seeds": len(cell.values),
        "planned_seeds": len(cell.trials),
        **_ends("seed", cell.seed_interval),
        **_ends("image", cell.image_interval),
        "difference_to_paper": cell.to_paper,
        "baseline": cell.baseline,
        "paper_difference": evidence.paper_difference,
        "difference": differences.mean,
        "difference_sd": differences.sd,
        **_ends("difference_seed", differences.interval),
        **_ends("difference_image", image_difference),
        "p_holm": evidence.holm_p,
        "seeds_to_resolve_paper": evidence.seeds_needed,
        "verdict": verdict_word(cell),
        "reason": cell.verdict.reason if cell.verdict else "",
        "values": _by_seed(cell.values),
        "run_ids": " ".join(run_id for _, run_id in sorted(cell.run_ids.items())),
        "failures": "; ".join(cell.failures),
        "seconds": round(cell.seconds, 1),
        "preset": sweep.preset,
        "data": f"{base.data.name} {base.data.fingerprint}",
        "backbone": base.network.backbone,
        "train_images": sweep.num_train_images,
        "eval_images": sweep.num_eval_images,
        "epochs": base.train.epochs,
        "small_scale": "yes" if report.scale.marks else "no",
    }
    for measure, values in cell.mious.items():
        mean, sd = mean_sd(list(values.values()))
        found |= {f"mean_miou_{measure.name}": mean, f"sd_over_seeds_{measure.name}": sd}
        found[f"values_{measure.name}"] = _by_seed(values)
    return found | {
        "level_or_shape": level_word(cell),
        "level_or_shape_reason": cell.level.reason,
        "above_baseline_seeds": differences.above,
        "above_baseline_images": above_over_images,
    }


def _ends(name: str, interval: Interval | None) -> dict[str, float | None]:
    low, high = interval or (None, None)
    return {f"{name}_low": low, f"{name}_high": high}


def _by_seed(values: Mapping[int, float]) -> str:
    return " ".join(f"{seed}:{value:.4f}" for seed, value in sorted(values.items()))


def level_word(cell: CellReport) -> str:
    """Return `level`, `shape` or `partly`; a dash where none applies."""
    return "baseline" if cell.is_baseline else cell.level.kind or DASH


def verdict_word(cell: CellReport) -> str:
    """Return a cell's verdict in words."""
    if cell.is_baseline:
        return "baseline"
    if cell.verdict:
        return cell.verdict.word
    if not cell.evidence.differences.n:
        return "same as baseline" if cell.same_as_baseline else DASH
    if cell.evidence.differs is None:
        return "not resolvable"
    return "differs from baseline" if cell.evidence.differs else "no difference shown"
