"""What the statistics say about a table as a whole, in sentences."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sweeps.evidence.images import argmax_stability, argmax_stability_over_images
from sweeps.evidence.level import CHANGE_WORDS, Change
from sweeps.evidence.power import minimum_detectable, range_of_noise, seeds_needed
from sweeps.evidence.seeds import ALPHA, Effect, holm, seed_differences, two_way_anova
from sweeps.evidence.verdict import p_words
from sweeps.report.tables.model import CellReport
from sweeps.report.tables.results import Results
from sweeps.report.words import interval, listed, number, signed
from sweeps.tables.paper import NO, YES
from sweeps.tables.table import Table
from wsss.basics.printable import counted

TARGET = 0.05
"""Percentage points; the report says how many seeds it takes to resolve this difference."""
MAX_NAMED = 8
"""A sentence names no more cells than this."""

Cells = Mapping[str, CellReport]


def findings(table: Table, cells: Cells, results: Results) -> tuple[str, ...]:
    """Summarise a table in one sentence, then describe level, noise, ranks and factors.

    Factors are left out with one seed per cell, which cannot tell them from chance, and where cells
    share their trials.
    """
    values, pooled, once = complete_grid(table, cells), pooled_sd(cells), distinct(cells)
    over = "" if values is None else _only(values, once)
    summary = []
    if values is not None and len(once) > 1:
        differing = [ref for ref, cell in cells.items() if cell.evidence and cell.evidence.differs]
        summary = [table_summary(table, values, pooled, differing, over)]
    return (
        *summary,
        *_levels(cells),
        *(_noise(cells, pooled) if pooled or not summary else ()),
        *_resolution(once),
        *_together(table, cells),
        *_repeats(table, cells),
        *(_paper_span(cells, values) if values is not None and len(once) > 1 < len(values) else ()),
        *(_factors(table, values, over) if values is not None and min(values.shape) > 1 else ()),
        *(_winner(once, values, results, over) if values is not None and len(once) > 2 else ()),
        *_dead_maps(cells),
    )


def table_summary(
    table: Table,
    values: NDArray[np.float64],
    pooled: tuple[float, int] | None,
    differing: Sequence[str],
    over: str = "",
) -> str:
    """Say in one sentence whether the cells of a table differ by more than seeds do.

    values: as `complete_grid` returns them. pooled: SD of one training over seeds and its degrees
    of freedom; None if no cell has two seeds. differing: cells shown to differ from the baseline.
    over: as `_only` returns it. In a grid with two seeds or more, factors are tested by analysis of
    variance with Holm's correction. Otherwise, or if no factor is significant, the span is compared
    with the range of noise (studentised range).
    """
    means = values.mean(0).ravel()  # [cells]
    span = float(np.ptp(means))
    num_cells = len(table.rows) * len(table.columns)
    what = f"{means.size} {'cells' if means.size == num_cells else 'different cells'}"
    if pooled is None:
        return (
            f"Seed noise is unknown, as no cell has two seeds: that the {what} span "
            f"{number(span)} mIoU may be chance."
        )
    in_sds = f", {span / pooled[0]:.1f} SD of one training" if pooled[0] > 0 else ""
    sd, df = residual(values) if len(values) > 1 else pooled
    noise = range_of_noise(sd / np.sqrt(len(values)), means.size, df=df)
    start = (
        f"The {what} span {number(span)} mIoU over "
        f"{over or counted(len(values), 'seed')}"
        f"{in_sds}; without any effect they would span {number(noise.expected)} on average and up "
        f"to {number(noise.upper)} (95 %)"
    )
    is_grid = min(values.shape) > 1
    if is_grid and (effects := _effects(table, values)):
        return f"{start}: {listed(effects)}."
    if span > noise.upper:
        but = "" if differing else ", though no single one is shown to differ from the baseline"
        return f"{start}: the cells differ by more than seeds do{but}."
    if differing:
        names = listed(differing, MAX_NAMED)
        return f"{start}: within noise as a whole, but {names} differs from the baseline."
    kinds = (*table.row_names, table.column_name) if is_grid else ("cell",)
    return f"{start}: no {' or '.join(kinds)} can be told from another here."


def _only(values: NDArray[np.float64], cells: Cells) -> str:
    """Return which seeds the values are of if some cells have more, whose means then differ."""
    more = any(len(cell.values) > len(values) for cell in cells.values())
    return f"the {counted(len(values), 'seed')} that all cells have" if more else ""


def _effects(table: Table, values: NDArray[np.float64]) -> list[str]:
    """Return `name matters (Holm p ...)` for each significant factor or interaction."""
    found = factors(table, values)
    adjusted = holm([effect.p for effect in found.values()])
    return [
        f"{name} matters (Holm {p_words(p)})"
        for name, p in zip(found, adjusted, strict=True)
        if p is not None and p < ALPHA
    ]


def residual(values: NDArray[np.float64]) -> tuple[float, int]:
    """Return the SD of one training among those of its seed, and its degrees of freedom.

    values: [S, ...] percent, S >= 2, of two cells or more. What a seed adds to all cells alike does
    not change their differences, and is left out.
    """
    grid = values.reshape(len(values), -1)  # [S, cells]
    left = grid - grid.mean(0) - grid.mean(1, keepdims=True) + grid.mean()
    df = (grid.shape[0] - 1) * (grid.shape[1] - 1)
    return float(np.sqrt((left**2).sum() / df)), df


def with_own_seed(values: NDArray[np.float64]) -> tuple[float, int]:
    """Return the SD of one training with a seed of its own, and its degrees of freedom.

    values: as of `residual`. What a seed adds to all cells alike is known from S values only, so
    that there are fewer degrees of freedom than values. (Satterthwaite)
    """
    num_seeds, num_cells = len(values), values[0].size
    (sd, df), common = residual(values), values.reshape(num_seeds, -1).mean(1).var(ddof=1)
    parts = np.array([common, (1 - 1 / num_cells) * sd**2])
    variance, spread = parts.sum(), (parts**2 / [num_seeds - 1, df]).sum()
    return float(np.sqrt(variance)), max(1, int(variance**2 / spread)) if spread else df


def _levels(cells: Cells) -> list[str]:
    """Say which differences to the baseline are of level and which of shape."""
    judged = {name: cell.level for name, cell in cells.items() if cell.level}
    if not judged:
        return []
    found = [
        f"{'All' if len(names) == len(judged) > 1 else listed(names, MAX_NAMED)} "
        f"{'are' if len(names) > 1 else 'is'} {CHANGE_WORDS[kind]}."
        for kind in Change
        if (names := [name for name, level in judged.items() if level.kind is kind])
    ]
    if not found:
        reasons = [level.reason.partition(": ")[0] for level in judged.values()]
        return [f"Level or shape: {'; '.join(dict.fromkeys(reasons))}."]
    return [f"Level or shape, of {counted(len(judged), 'difference')}. {' '.join(found)}"]


def pooled_sd(cells: Cells) -> tuple[float, int] | None:
    """Return (SD over seeds, its degrees of freedom) pooled over cells with two seeds or more.

    A trial that several cells share counts once.
    """
    repeated = _repeated(cells)
    if not repeated:
        return None
    squares = sum((len(v) - 1) * float(np.var(v, ddof=1)) for v in repeated)
    df = sum(len(v) - 1 for v in repeated)
    return float(np.sqrt(squares / df)), df


def _repeated(cells: Cells) -> list[list[float]]:
    """Return the mIoU values of each distinct set of trials with two seeds or more."""
    return [[*c.values.values()] for c in distinct(cells).values() if len(c.values) > 1]


def distinct(cells: Cells) -> Cells:
    """Return the cells without those that share their trials with an earlier one."""
    first = dict[tuple[str, ...], str]()
    for reference, cell in cells.items():
        first.setdefault(tuple(cell.run_ids.values()), reference)
    return {reference: cells[reference] for reference in first.values()}


def _noise(cells: Cells, pooled: tuple[float, int] | None) -> list[str]:
    if pooled is None:
        return ["Seed noise is unknown, as no cell has two seeds: any difference may be chance."]
    spreads = [float(np.std(values, ddof=1)) for values in _repeated(cells)]
    among = ""
    if len(spreads) > 1:
        among = (
            f", pooled over {len(spreads)} configurations, whose own SDs are {number(min(spreads))}"
            f" to {number(max(spreads))}"
        )
    return [f"Seed noise: mIoU has an SD of {number(pooled[0])} over seeds{among}."]


def _resolution(cells: Cells) -> list[str]:
    """Say what these seeds can resolve, and how many seeds a small difference takes."""
    found = [c.evidence.differences for c in cells.values() if c.evidence]
    paired = [(d.sd, d.n) for d in found if d.sd is not None]
    if not paired:
        return []
    spread = float(np.sqrt(np.mean(np.square([sd for sd, _ in paired]))))
    n = min(n for _, n in paired)
    smallest, needed = minimum_detectable(spread, n), seeds_needed(TARGET, spread)
    price = f"; to resolve {TARGET:g}: {needed:,} seeds" if needed else ""
    return [
        f"Differences between two configurations on the same seed have an SD of {number(spread)}: "
        f"tested alone, as the table's are not, {n} seeds resolve {number(smallest)} at 80 % power "
        f"and 5 % error{price}."
    ]


def _together(table: Table, cells: Cells) -> list[str]:
    """Compare what two parts gain together with the sum of what each gains alone, by seed."""
    of = {cell.labels: cell for cell in cells.values()}
    if of.keys() != {(NO, NO), (YES, NO), (NO, YES), (YES, YES)}:
        return []

    def summed(one: CellReport, two: CellReport) -> dict[int, float]:
        return {
            seed: one.values[seed] + two.values[seed] for seed in one.values.keys() & two.values
        }

    pairs = (of[YES, YES], of[NO, NO]), (of[YES, NO], of[NO, YES])
    found = seed_differences(*(summed(*pair) for pair in pairs))
    if found.interval is None:
        return []
    printed = [cell.printed for pair in pairs for cell in pair if cell.printed is not None]
    paper = sum(printed[:2]) - sum(printed[2:])
    return [
        f"{listed(table.row_names)} together gain {signed(found.mean)} beyond the sum of what each "
        f"gains alone, 95 % over {counted(found.n, 'seed')} {interval(found.interval, sign=True)}"
        f"{f'; the paper {signed(paper)}' if len(printed) == 4 else ''}."
    ]


def _repeats(table: Table, cells: Cells) -> list[str]:
    """Say how much mIoU changes when the same seed is trained again, for rows with a repeat."""
    sentences = []
    for row in table.rows:
        once = cells[table.reference(row, table.columns[0])]
        for column, cell in zip(table.columns, row.cells, strict=True):
            again = cells[table.reference(row, column)]
            common = sorted(once.values.keys() & again.values.keys())
            if "repeat" not in cell.overrides or not common:
                continue
            moved = [again.values[seed] - once.values[seed] for seed in common]
            largest = max(moved, key=abs)
            result = (
                "gives the same mIoU, so its noise comes only from the seed"
                if largest == 0
                else f"moves mIoU by {largest:+z.2f}, so not all noise comes from the seed"
            )
            label = ", ".join(row.labels)
            sentences.append(f"{label}: training seed {common[0]} again {result}.")
    return sentences


def _paper_span(cells: Cells, values: NDArray[np.float64]) -> list[str]:
    """Compare the span of the printed numbers with that of cells that differ only by noise.

    values: as `complete_grid` returns them. The paper does not say whether its trainings share a
    seed.
    """
    printed = [c.printed for c in cells.values() if c.printed is not None]
    if len(printed) < 3:
        return []
    span = max(printed) - min(printed)
    own, shared = (
        range_of_noise(sd, len(printed), df=df)
        for sd, df in (with_own_seed(values), residual(values))
    )
    verdict = {
        (True, True): "is within",
        (True, False): "is, only if each had its own seed, within",
        (False, True): "is, only if all had the same seed, within",
        (False, False): "exceeds",
    }[span <= own.upper, span <= shared.upper]
    return [
        f"The paper's {len(printed)} numbers span {number(span)}. At the seed noise measured here, "
        f"the same number of equal cells would span {number(own.expected)} on average and up to "
        f"{number(own.upper)} (95 %) if each had a seed of its own, {number(shared.expected)} and "
        f"up to {number(shared.upper)} if all had the same one: if the paper's trainings are as "
        f"noisy, its span {verdict} what noise alone explains."
    ]


def complete_grid(table: Table, cells: Cells) -> NDArray[np.float64] | None:
    """Return mIoU as [S, rows, columns] over the seeds that all cells have; None if there is none.

    [S, cells, 1] of the distinct cells where some share their trials. Also None for a table that
    gives some cells fewer seeds by design.
    """
    if any(cell.seeds is not None for _, cell in table.cells()):
        return None
    seeds = sorted(set.intersection(*(set(cell.values) for cell in cells.values())))
    if not seeds:
        return None
    once = distinct(cells)
    values = [[cell.values[seed] for cell in once.values()] for seed in seeds]
    shape = (len(table.rows), len(table.columns)) if len(once) == len(cells) else (len(once), 1)
    return np.array(values).reshape(len(seeds), *shape)


def _factors(table: Table, values: NDArray[np.float64], over: str) -> list[str]:
    """Say how much of a grid's variance each factor explains; `_effects` tests them."""
    found = factors(table, values)
    parts = [f"{name} explains {100 * e.eta_squared:.0f} %" for name, e in found.items()]
    return [f"Of the variance over {over or counted(len(values), 'seed')}, {listed(parts)}."]


def factors(table: Table, values: NDArray[np.float64]) -> dict[str, Effect]:
    """Return the effects of rows, columns and their interaction, by name.

    values: [S, rows, columns], at least two of each.
    """
    names = " with ".join(table.row_names), table.column_name, "their interaction"
    return dict(zip(names, two_way_anova(values), strict=True))


def _winner(cells: Cells, values: NDArray[np.float64], results: Results, over: str) -> list[str]:
    """Say in what share of resamples the highest cell is highest.

    cells: distinct ones; values: of these, as `complete_grid` returns them; over: as `_only` does.
    """
    means = values.mean(0).reshape(-1)
    names = list(cells)
    best = int(means.argmax())
    where = f"Highest here over {over}" if over else "Highest here"
    start = f"{where}: {names[best]}, {number(float(means[best]))}."
    over_images = _over_images(cells, results)
    again = []
    if len(values) > 1:
        share = argmax_stability(values.reshape(len(values), -1))[best]
        few = {
            2: " (2 seeds have only 3 different ones)",
            3: " (3 seeds have only 10 different ones)",
        }
        again.append(f"{100 * share:.0f} % of resamples of seeds{few.get(len(values), '')}")
    if over_images is not None:
        again.append(f"{100 * over_images[best]:.0f} % of resamples of images")
    if not again:
        return [start]
    caveat = "" if len(values) > 1 else ", which say nothing about another training"
    return [f"{start} It is the highest in {listed(again)}{caveat}."]


def _over_images(cells: Cells, results: Results) -> NDArray[np.float64] | None:
    seeds = sorted(set.intersection(*(set(cell.values) for cell in cells.values())))
    rows = [results.resampled([cell.run_ids[s] for s in seeds]) for cell in cells.values()]
    if any(row is None for row in rows):
        return None
    return argmax_stability_over_images(np.array(rows))


def _dead_maps(cells: Cells) -> list[str]:
    """Name the cells whose trainings ended with dead maps, and the worst training."""
    found = [cell for cell in cells.values() if cell.dead]
    if not found:
        return []
    parts = [f"{c.reference} in {len(c.dead)} of {counted(c.num_planned, 'seed')}" for c in found]
    cell = max(found, key=lambda one: max(dead.share for dead in one.dead.values()))
    seed = max(cell.dead, key=lambda at: cell.dead[at].share)
    worst = f"{cell.reference} seed {seed}: {cell.dead[seed]}"
    return [f"Maps died: {listed(parts, MAX_NAMED)}; the most in {worst}."]
