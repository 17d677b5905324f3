"""The report as CSV: one line per cell, numbers unrounded, for spreadsheets and scripts."""

import csv
from io import StringIO

from sweeps.evidence.seeds import mean_sd
from sweeps.report.lines import level_word, seed_bounds, verdict_word
from sweeps.report.model import CellReport, Measure, Report, TableReport
from wsss.printable import printable

COLUMNS = (
    "table", "cell", "labels", "measure", "paper_miou", "mean_miou", "sd_over_seeds", "seeds",
    "planned_seeds", "seed_low", "seed_high", "image_low", "image_high", "difference_to_paper",
    "baseline", "paper_difference", "difference", "difference_sd", "difference_seed_low",
    "difference_seed_high", "difference_image_low", "difference_image_high", "p_holm",
    "seeds_to_resolve_paper", "verdict", "reason", "values", "run_ids", "failures", "seconds",
    "preset", "data", "backbone", "train_images", "eval_images", "epochs", "small_scale",
    *(f"{figure}_{m.name}" for m in Measure for figure in ("mean_miou", "sd_over_seeds", "values")),
    "level_or_shape", "level_or_shape_reason",
)  # fmt: skip

_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""Also in full width, which some spreadsheets read as the sign."""


def csv_text(report: Report) -> str:
    """Return a header and one line per cell of every table."""
    buffer = StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for table in report.tables:
        for cell in table.cells.values():
            writer.writerow([_safe(value) for value in _line(report, table, cell)])
    return buffer.getvalue()


def _safe(value: object) -> object:
    """Keep a spreadsheet from running text as a formula, and text from breaking its line.

    A lone carriage return ends a row for most readers, and the next cell could be a formula.
    """
    if not isinstance(value, str):
        return "" if value is None else value
    text = printable(" ".join(value.split()))
    return f"'{text}" if text.startswith(_FORMULA) else text


def _line(report: Report, table: TableReport, cell: CellReport) -> list[object]:
    sweep, evidence = report.sweep, cell.evidence
    verdict = evidence.verdict if evidence else None
    return [
        table.table.name, cell.reference, ", ".join(cell.labels), report.measure.value, cell.paper,
        cell.mean, cell.sd, len(cell.values), cell.num_planned,
        *(cell.seed_interval or (None, None)), *(cell.image_interval or (None, None)),
        cell.to_paper, table.table.baseline,
        evidence.paper_difference if evidence else None,
        evidence.differences.mean if evidence else None,
        evidence.differences.sd if evidence else None,
        *(seed_bounds(evidence) or (None, None)),
        *(cell.image_difference or (None, None)),
        evidence.holm_p if evidence else None,
        evidence.seeds_needed if evidence else None,
        verdict_word(table, cell), verdict.reason if verdict else "",
        _by_seed(cell.values),
        " ".join(run_id for _, run_id in sorted(cell.run_ids.items())),
        "; ".join(cell.failures), round(cell.seconds, 1), sweep.preset,
        f"{sweep.base.data.name} {sweep.base.data.fingerprint}", sweep.base.network.backbone,
        sweep.num_train_images, sweep.num_eval_images, sweep.base.train.epochs,
        "yes" if report.scale_marks else "no",
        *(figure for measure in Measure for figure in _figures(cell.mious[measure])),
        level_word(table, cell), cell.level.reason if cell.level else "",
    ]  # fmt: skip


def _figures(values: dict[int, float]) -> tuple[float | None, float | None, str]:
    """Return mean, SD over seeds, and the value of each seed, of one measure."""
    mean, sd = mean_sd(list(values.values())) if values else (None, None)
    return mean, sd, _by_seed(values)


def _by_seed(values: dict[int, float]) -> str:
    return " ".join(f"{seed}:{value:.4f}" for seed, value in sorted(values.items()))
