"""Two runs or cells side by side: what was set otherwise, and what came of it. mIoU in percent."""

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from sweeps.evidence.seeds import seed_differences
from sweeps.plan.sweep import Sweep
from sweeps.plan.trials import Trial
from sweeps.report.document import Block, Column, Grid, Row, Text, in_one_group
from sweeps.report.tables.results import Measure, Results
from sweeps.report.words import interval, number, signed
from sweeps.store.errors import StoreError
from sweeps.store.store import Store, read_config
from wsss.basics.printable import as_word, counted, printable
from wsss.identity import cam_id, canonical

PAIRED = "95 % over seeds, paired", "95 % over images, paired"


@dataclass(frozen=True)
class Figure:
    """One figure of both sides, in percent; None where a side lacks it."""

    a: float | None
    b: float | None
    low: float | None = None
    high: float | None = None
    """95 % bootstrap interval of b - a over images, the same ones for both; None without counts."""
    seed_low: float | None = None
    seed_high: float | None = None
    """95 % t interval of b - a over the seeds that both have; None for fewer than two."""


@dataclass(frozen=True)
class Difference:
    """What parts two runs or cells; means over the seeds that are compared."""

    a: str
    b: str
    runs_a: tuple[str, ...]
    runs_b: tuple[str, ...]
    paired_by_seed: bool
    """Whether both sides have the same seeds."""
    settings: tuple[tuple[str, object, object], ...]
    """(setting, value of a, value of b) of those with an effect."""
    measures: Mapping[str, Figure]
    classes: Mapping[str, Figure]
    """IoU per class at the fixed score."""
    same_images: bool
    """Whether both are scored on the same images; if not, no interval is given."""


def find_trials(store: Store, sweep: Sweep | None, name: str) -> tuple[Trial, ...]:
    """Return the trials of a cell of a sweep, or the one of a run id. Raises StoreError."""
    cells = sweep.plan.cell_trials if sweep else {}
    if name in cells:
        return cells[name]
    # Any other name is looked for among the folders alone, so that it cannot lead out of them.
    folders = (store.root / "runs").glob("*/config.json")
    paths = {path.parent.name: path for path in folders}
    if name in paths:
        config = read_config(paths[name])
        return (Trial(config, name, cam_id(config), (name,)),)
    near = difflib.get_close_matches(name, [*cells, *paths], n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"cells: {', '.join(cells) or 'none'}"
    where = f"sweep {sweep.name} has no cell" if sweep else "there is no sweep"
    raise StoreError(
        f"{printable(name)}: {where}, and {store.address} no run of this name; {printable(hint)}"
    )


def compare(
    store: Store, a: tuple[str, Sequence[Trial]], b: tuple[str, Sequence[Trial]]
) -> Difference:
    """Compare two sides, each a name and its trials, on the finished seeds that they share.

    Without a shared seed, on all finished ones. Raises StoreError if a side has none.
    """
    results = {measure: Results(store, [*a[1], *b[1]], measure) for measure in Measure}
    fixed = results[Measure.fixed]
    runs_a, runs_b = (_finished(fixed, *side) for side in (a, b))
    common = sorted(runs_a.keys() & runs_b.keys())
    if common:
        runs_a, runs_b = ({seed: of[seed] for seed in common} for of in (runs_a, runs_b))
    ids_a, ids_b = tuple(runs_a.values()), tuple(runs_b.values())
    flat_a, flat_b = (canonical(fixed.trials[ids[0]].config).flat() for ids in (ids_a, ids_b))
    classes_a, classes_b = (_classes(fixed, ids) for ids in (ids_a, ids_b))
    return Difference(
        a[0],
        b[0],
        ids_a,
        ids_b,
        bool(common),
        tuple((key, v, flat_b[key]) for key, v in flat_a.items() if flat_b[key] != v),
        {measure.value: _figure(of, runs_a, runs_b) for measure, of in results.items()},
        {n: Figure(classes_a.get(n), classes_b.get(n)) for n in classes_a | classes_b},
        fixed.resampled([*ids_a, *ids_b]) is not None,
    )


def _figure(results: Results, runs_a: Mapping[int, str], runs_b: Mapping[int, str]) -> Figure:
    """Compare two sides by one measure. runs_a, runs_b: seed -> run id."""
    a, b = (results.values(runs, results.measure) for runs in (runs_a, runs_b))
    over_images = results.against(list(runs_b.values()), list(runs_a.values()))
    nothing = None, None
    return Figure(
        fmean(a.values()) if a.keys() == runs_a.keys() else None,
        fmean(b.values()) if b.keys() == runs_b.keys() else None,
        *(over_images[0] if over_images else nothing),
        *(seed_differences(b, a).interval or nothing),
    )


def difference_blocks(found: Difference) -> Iterator[Block]:
    """Yield the compared runs, then settings, mIoU and classes, a table each."""
    for letter, name, runs in (("A", found.a, found.runs_a), ("B", found.b, found.runs_b)):
        yield Text(f"{letter}: {name} ({counted(len(runs), 'run')}: {' '.join(runs)})")
    fixed = found.measures[Measure.fixed.value]
    if not found.paired_by_seed:
        yield Text("no seed in common: a difference may be one of seeds alone", "mark")
    elif len(found.runs_a) == 1:
        yield Text("one seed: seed noise is unknown, and any difference may be chance", "mark")
    elif (low := fixed.seed_low) is not None and low <= 0 <= (fixed.seed_high or 0):
        yield Text(
            "no difference is shown at the fixed score: its interval over seeds contains 0; that "
            "over images is of these networks alone",
            "mark",
        )
    if found.settings:
        rows = [Row((key,), (as_word(a), as_word(b))) for key, a, b in found.settings]
        columns = tuple(Column(name, align="left", wraps=True) for name in "AB")
        yield Grid("settings", ("setting",), columns, in_one_group(rows))
    else:
        yield Text("no setting with an effect differs")
    yield _figures("mIoU", found.measures)
    if not found.same_images:
        yield Text("no interval over images: they are not scored on the same two images or more")
    met = {name: f for name, f in found.classes.items() if f.a is not None or f.b is not None}
    yield _figures("IoU at the fixed score", met)
    if absent := [name for name in found.classes if name not in met]:
        yield Text(f"in no scored image: {', '.join(absent)}", "soft")


def _finished(results: Results, name: str, trials: Sequence[Trial]) -> dict[int, str]:
    """Return seed -> run id of a side's finished trials."""
    seeds = sorted(
        (t.config.rng_seed, t.run_id) for t in trials if results.states[t.run_id].metrics
    )
    if not seeds:
        raise StoreError(f"{printable(name)}: no seed of it is finished; run its table first")
    return dict(seeds)


def _classes(results: Results, run_ids: Sequence[str]) -> dict[str, float | None]:
    """Return a side's mean IoU by class; None for one that it never meets."""
    metrics = [found for run in run_ids if (found := results.states[run].metrics)]
    names = ("background", *metrics[0]["classes"])
    ious = zip(*(found["iou_fixed"] for found in metrics), strict=True)
    return dict(zip(names, map(_mean, ious), strict=True))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None and not math.isnan(value)]
    return fmean(known) if len(known) == len(values) else None


def _figures(name: str, figures: Mapping[str, Figure]) -> Grid:
    rows = []
    for key, figure in figures.items():
        gain = None if figure.a is None or figure.b is None else figure.b - figure.a
        ends = (figure.seed_low, figure.seed_high), (figure.low, figure.high)
        intervals = (
            interval(None if low is None or high is None else (low, high), sign=True)
            for low, high in ends
        )
        rows.append(Row((key,), (number(figure.a), number(figure.b), signed(gain), *intervals)))
    columns = tuple(map(Column, ("A", "B", "B - A", *PAIRED)))
    return Grid(name, (name,), columns, in_one_group(rows))
