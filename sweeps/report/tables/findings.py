"""What the statistics say about a table as a whole, in sentences."""

from collections.abc import Iterator, Sequence

import numpy as np

from sweeps.evidence.common_seeds import CommonSeeds, Noise
from sweeps.evidence.level import CHANGE_WORDS, Change
from sweeps.evidence.power import minimum_detectable, range_of_noise, seeds_needed
from sweeps.evidence.seeds import ALPHA, holm, seed_differences
from sweeps.evidence.verdict import p_words
from sweeps.report.tables.model import Cells, TableReport
from sweeps.report.words import interval, listed, number, signed
from sweeps.tables.paper import NO, YES
from sweeps.tables.table import Table
from wsss.basics.printable import counted

TARGET = 0.05
"""Percentage points; the report says how many seeds it takes to resolve this difference."""
MAX_NAMED = 8
"""A sentence names no more cells than this."""
UNKNOWN = "Seed noise is unknown, as no cell has two seeds"


def findings(found: TableReport) -> tuple[str, ...]:
    """Summarise a table in one sentence, then describe level, noise and ranks."""
    common, noise = found.common, pooled_noise(found.distinct)
    several = common is not None and common.means.size > 1
    sentences: list[str] = []
    if common and several:
        differing = [name for name, cell in found.cells.items() if cell.evidence.differs]
        sentences.append(table_summary(common, noise, differing))
    sentences += _levels(found.cells)
    if noise or not several:
        sentences.append(_noise(found.distinct, noise))
    sentences += _resolution(found.distinct)
    sentences += _together(found)
    sentences += _repeats(found.table, found.cells)
    if common and several:
        sentences += _paper_span(found.cells, common, noise)
        if common.means.size > 2:
            sentences.append(_highest(found, common, noise))
    sentences += _dead_maps(found.cells)
    return tuple(sentences)


def table_summary(common: CommonSeeds, noise: Noise | None, differing: Sequence[str]) -> str:
    """Say in one sentence whether the cells of a table differ by more than seeds do.

    noise: as `pooled_noise` returns it. differing: cells shown to differ from the baseline. In a
    grid with two seeds or more, factors are tested by analysis of variance with Holm's correction.
    Otherwise, or if no factor is significant, the span is compared with the range of noise
    (studentised range).
    """
    table, num_seeds, size = common.table, common.num_seeds, common.means.size
    span = float(np.ptp(common.means))
    num_cells = len(table.rows) * len(table.columns)
    what = f"{size} {'cells' if size == num_cells else 'different cells'}"
    if noise is None:
        return f"{UNKNOWN}: that the {what} span {number(span)} mIoU may be chance."
    in_sds = f", {span / noise.sd:.1f} SD of one training" if noise.sd > 0 else ""
    by_chance = common.span_by_chance(noise if num_seeds == 1 else None)
    start = (
        f"The {what} span {number(span)} mIoU over {common.name}{in_sds}; without any effect they "
        f"would span {number(by_chance.expected)} on average and up to {number(by_chance.upper)} "
        "(95 %)"
    )
    if matters := _significant(common):
        return f"{start}: {listed(matters)}."
    if span > by_chance.upper:
        but = "" if differing else ", though no single one is shown to differ from the baseline"
        return f"{start}: the cells differ by more than seeds do{but}."
    if differing:
        names = listed(differing, MAX_NAMED)
        return f"{start}: within noise as a whole, but {names} differs from the baseline."
    kinds = (*table.row_names, table.column_name) if common.effects else ("cell",)
    return f"{start}: no {' or '.join(kinds)} can be told from another here."


def _significant(common: CommonSeeds) -> list[str]:
    """Return `name matters (Holm p ...)` for each significant factor or interaction."""
    adjusted = holm([*common.effects.values()])
    return [
        f"{name} matters (Holm {p_words(p)})"
        for name, p in zip(common.effects, adjusted, strict=True)
        if p is not None and p < ALPHA
    ]


def _levels(cells: Cells) -> Iterator[str]:
    """Say which differences to the baseline are of level and which of shape."""
    judged = {name: cell.level for name, cell in cells.items() if cell.level.reason}
    found = [
        f"{'All' if len(names) == len(judged) > 1 else listed(names, MAX_NAMED)} "
        f"{'are' if len(names) > 1 else 'is'} {CHANGE_WORDS[kind]}."
        for kind in Change
        if (names := [name for name, level in judged.items() if level.kind is kind])
    ]
    if found:
        yield f"Level or shape, of {counted(len(judged), 'difference')}. {' '.join(found)}"


def pooled_noise(distinct: Cells) -> Noise | None:
    """Return the seed noise pooled over distinct cells; None if none has two seeds."""
    repeated = [cell.scores for cell in distinct.values() if len(cell.scores) > 1]
    if not repeated:
        return None
    dfs = [len(scores) - 1 for scores in repeated]
    variance = np.average([np.var(scores, ddof=1) for scores in repeated], weights=dfs)
    return Noise(float(np.sqrt(variance)), sum(dfs))


def _noise(distinct: Cells, noise: Noise | None) -> str:
    if noise is None:
        return f"{UNKNOWN}: any difference may be chance."
    own = [float(np.std(cell.scores, ddof=1)) for cell in distinct.values() if len(cell.scores) > 1]
    among = ""
    if len(own) > 1:
        among = (
            f", pooled over {len(own)} configurations, whose own SDs are {number(min(own))} to "
            f"{number(max(own))}"
        )
    return f"Seed noise: mIoU has an SD of {number(noise.sd)} over seeds{among}."


def _resolution(distinct: Cells) -> Iterator[str]:
    """Say what these seeds can resolve, and how many seeds a small difference takes."""
    found = (cell.evidence.differences for cell in distinct.values())
    paired = [(d.sd, d.n) for d in found if d.sd is not None]
    if not paired:
        return
    spread = float(np.sqrt(np.mean(np.square([sd for sd, _ in paired]))))
    n = min(n for _, n in paired)
    smallest, needed = minimum_detectable(spread, n), seeds_needed(TARGET, spread)
    price = f"; to resolve {TARGET:g}: {needed:,} seeds" if needed else ""
    yield (
        f"Differences between two configurations on the same seed have an SD of {number(spread)}: "
        f"tested alone, as the table's are not, {n} seeds resolve {number(smallest)} at 80 % power "
        f"and 5 % error{price}."
    )


def _together(found: TableReport) -> Iterator[str]:
    """Compare what two parts gain together with the sum of what each gains alone, by seed."""
    of = {cell.labels: cell for cell in found.cells.values()}
    four = [(YES, YES), (NO, NO), (YES, NO), (NO, YES)]
    if of.keys() != set(four):
        return
    both, none, first, second = (of[labels] for labels in four)
    seeds = set.intersection(*(set(cell.values) for cell in of.values()))
    together, alone = (
        {seed: one.values[seed] + two.values[seed] for seed in seeds}
        for one, two in ((both, none), (first, second))
    )
    gain = seed_differences(together, alone)
    if gain.interval is None:
        return
    printed = [p for cell in (both, none, first, second) if (p := cell.printed) is not None]
    paper = f"; the paper {signed(sum(printed[:2]) - sum(printed[2:]))}" if printed[3:] else ""
    yield (
        f"{listed(found.table.row_names)} together gain {signed(gain.mean)} beyond the sum of what "
        f"each gains alone, 95 % over {counted(gain.n, 'seed')} "
        f"{interval(gain.interval, sign=True)}{paper}."
    )


def _repeats(table: Table, cells: Cells) -> Iterator[str]:
    """Say how much mIoU changes when the same seed is trained again, for rows with a repeat."""
    for row in table.rows:
        once = cells[table.reference(row, table.columns[0])].values
        for column, cell in zip(table.columns, row.cells, strict=True):
            again = cells[table.reference(row, column)].values
            common = sorted(once.keys() & again.keys())
            if "repeat" not in cell.overrides or not common:
                continue
            largest = max((again[seed] - once[seed] for seed in common), key=abs)
            result = (
                "gives the same mIoU, so its noise comes only from the seed"
                if largest == 0
                else f"moves mIoU by {signed(largest)}, so not all noise comes from the seed"
            )
            yield f"{', '.join(row.labels)}: training seed {common[0]} again {result}."


def _paper_span(cells: Cells, common: CommonSeeds, noise: Noise | None) -> Iterator[str]:
    """Compare the span of the printed numbers with that of cells that differ only by noise.

    noise: as `pooled_noise` returns it. What a seed adds to all cells alike is known from as many
    values as there are seeds, so that the noise of cells with seeds of their own has no more
    degrees of freedom. The paper does not say whether its trainings share a seed.
    """
    printed = [cell.printed for cell in cells.values() if cell.printed is not None]
    if noise is None or len(printed) < 3 or common.num_seeds < 2:
        return
    span, (sd, df) = max(printed) - min(printed), common.residual()
    own = range_of_noise(noise.sd, len(printed), df=common.num_seeds - 1)
    shared = range_of_noise(sd, len(printed), df=df)
    verdict = {
        (True, True): "is within what noise alone explains",
        (True, False): "is, only if each had its own seed, within what noise alone explains",
        (False, True): "is, only if all had the same seed, within what noise alone explains",
        (False, False): "exceeds what noise alone explains",
    }[span <= own.upper, span <= shared.upper]
    if span < min(own.lower, shared.lower):
        verdict = "would be larger by noise alone (95 %), so they vary less than those here"
    yield (
        f"The paper's {len(printed)} numbers span {number(span)}. At the seed noise measured here, "
        f"the same number of equal cells would span {number(own.expected)} on average and up to "
        f"{number(own.upper)} (95 %) if each had a seed of its own, {number(shared.expected)} and "
        f"up to {number(shared.upper)} if all had the same one: if the paper's trainings are as "
        f"noisy, its span {verdict}."
    )


def _highest(found: TableReport, common: CommonSeeds, noise: Noise | None) -> str:
    """Name the highest cell, and how many others equal cells could be as far below.

    No share of resamples in which it is the highest: of 16 equal cells over three seeds that is 55
    % on average, while 6 % of new seeds have the same one.
    """
    means = common.means
    where = f" over {common.name}" if common.some_have_more else ""
    start = (
        f"Highest here{where}: {list(found.distinct)[int(means.argmax())]}, {number(means.max())}"
    )
    if noise is None:
        return f"{start}."
    band = common.span_by_chance(noise if common.num_seeds == 1 else None).upper
    near = int((means >= means.max() - band).sum()) - 1
    return (
        f"{start}. Within {number(band)} of it, as far as equal cells span by chance (95 %): "
        f"{near} of the other {means.size - 1}."
    )


def _dead_maps(cells: Cells) -> Iterator[str]:
    """Name the cells whose trainings ended with dead maps, and the worst training."""
    found = [
        (dead.share, f"{cell.reference} seed {seed}: {dead}")
        for cell in cells.values()
        for seed, dead in cell.dead.items()
    ]
    if found:
        parts = [
            f"{cell.reference} in {len(cell.dead)} of {counted(len(cell.trials), 'seed')}"
            for cell in cells.values()
            if cell.dead
        ]
        worst = max(found, key=lambda each: each[0])[1]
        yield f"Maps died: {listed(parts, MAX_NAMED)}; the most in {worst}."
