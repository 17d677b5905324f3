"""The best measured cell of a table that is no baseline against its own, class by class.

Legend: L labels that occur, R resamples of images.
"""

from collections.abc import Mapping

import numpy as np

from sweeps.evidence.seeds import LEVEL
from sweeps.report.tables.model import CellReport, ClassComparison
from sweeps.report.tables.results import Results


def best_rival(cells: Mapping[str, CellReport]) -> CellReport | None:
    """Return the best measured cell with other trials than its baseline; None without one."""
    rivals = [c for c in cells.values() if c.values and c.run_ids != cells[c.baseline].run_ids]
    return max(rivals, key=lambda cell: cell.mean or 0.0, default=None)


def compare_classes(cells: Mapping[str, CellReport], results: Results) -> ClassComparison | None:
    """Compare the best cell with its baseline; None without common seeds or the same images."""
    best = best_rival(cells)
    if best is None:
        return None
    base = cells[best.baseline]
    seeds = sorted(best.values.keys() & base.values.keys())
    if not seeds:
        return None
    best_ids, base_ids = [best.run_ids[s] for s in seeds], [base.run_ids[s] for s in seeds]
    if results.resampled([*best_ids, *base_ids]) is None:
        return None
    ours, theirs = results.class_ious(best_ids), results.class_ious(base_ids)  # [1 + R, L] each
    metrics = results.by_id[best.run_ids[seeds[0]]].metrics or {}
    differences = ours - theirs
    occurs = np.isfinite(differences[0])
    low, high = np.nanpercentile(
        differences[1:, occurs], [50 * (1 - LEVEL), 50 * (1 + LEVEL)], axis=0
    )
    names = np.array(["background", *metrics["classes"]])
    return ClassComparison(
        best=best.reference,
        baseline=base.reference,
        num_seeds=len(seeds),
        names=tuple(names[occurs].tolist()),
        absent=tuple(names[~occurs].tolist()),
        ours=ours[0, occurs],
        theirs=theirs[0, occurs],
        low=low,
        high=high,
    )
