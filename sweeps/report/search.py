"""The report of a search: its trials, and figures of the effect of its settings."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sweeps.plan.run_command import comparison_command
from sweeps.plan.search import (
    WORTHLESS,
    History,
    Search,
    SearchTrial,
    best_trials,
    comparison,
    comparison_file,
    ranking,
)
from sweeps.report.document import (
    DASH,
    HTML,
    Column,
    Document,
    Grid,
    Picture,
    Records,
    Row,
    RowGroup,
    Section,
    Strip,
    Text,
)
from sweeps.report.formats.write import write_document
from sweeps.report.words import number, signed
from sweeps.store.store import Store, write_json
from sweeps.tables.own import definition
from wsss.basics.printable import counted
from wsss.identity import cam_id

MIN_TRIALS = 5
"""Fewer finished trials show no effect of a setting."""

CAVEAT = (
    "This is a search, not a table: one training seed per setting, settings chosen with the pixel "
    "masks of the search half, poor trials stopped early, CAMs inferred more cheaply than for a "
    "table. The held-out half was not used for the choice, but it scores the very training that "
    "was chosen, whose luck with its seed shows on both halves: of 20 draws without any effect, "
    "the best gains there in nine of ten searches. Differences as small as the seed noise mean "
    "nothing. Base is the full method with the settings of the preset and of --set."
)

SEEDS_TO_COMPARE = 3
MARKS = {"finished": "", "running": "interrupted", "error": "failed"}
"""Status -> what is said of it beside a trial's epochs, if it is another word."""

Closings = Mapping[str, Mapping[str, float]]
"""Id of a training -> its closing scores."""


def write_search(search: Search, store: Store) -> Path:
    """Write the report, and a table of the base and the best trial; return the page's path."""
    history = History(search, store)
    for best in best_trials(history.trials(), 1):
        write_json(comparison_file(search, store), definition(comparison(search, best)))
    document = replace(search_document(search, store), sections=_sections(search, history))
    return write_document(document, history.folder / "report", "report")[0]


def _sections(search: Search, history: History) -> tuple[Section, ...]:
    """Return a figure of the finished trials if there are enough of them."""
    trials = [trial for trial in history.trials() if trial.status == "finished"]
    scores = [trial.objective or 0.0 for trial in trials]
    if len(trials) < MIN_TRIALS:
        return ()
    from sweeps.report.figures.rows import bars  # loads matplotlib, which the driver does without

    correlations = []
    for key in (each.key for each in search.space):
        values = [trial.settings[key] for trial in trials]
        correlations.append((key.split(".")[-1], 100 * _rank_correlation(values, scores)))
    title = "What goes with a high score"
    picture = Picture(
        title,
        f"Spearman's rank correlation over {counted(len(scores), 'finished trial')}. The search "
        "draws more settings near high scores, so this is a hint, not a test.",
        bars(correlations, axis="rank correlation with mIoU (%)"),
    )
    return (Section(title, title, "figures", (picture,), formats=HTML),)


def _rank_correlation(values: Sequence[float], scores: Sequence[float]) -> float:
    """Return Spearman's rank correlation in [-1, 1]; 0 where either does not vary."""
    from scipy.stats import spearmanr  # half a second to import

    if len(set(values)) == 1 or len(set(scores)) == 1:
        return 0.0
    return float(spearmanr(values, scores).statistic)


def search_document(search: Search, store: Store) -> Document:
    """Return the answer and description, the base and the trials, and what their numbers mean."""
    history = History(search, store)
    trials, closings = history.trials(), history.held_out()
    head = (
        _answer(search, trials, closings, store),
        Text(search.describe()),
        _grid(search, trials, closings),
        Text(CAVEAT),
    )
    return Document(f"Search {search.name}", head, (), _records(search, trials, closings))


def _answer(search: Search, trials: list[SearchTrial], closings: Closings, store: Store) -> Strip:
    """Compare the best trial with the base, and name the command that compares them on seeds.

    With one training each, the answer is always "cannot tell".
    """
    question = "Is a drawn setting better than the base?"
    best = next(iter(best_trials(trials, 1)), None)
    if best is None:
        return Strip(question, "Cannot tell: no trial is finished yet.", "open")
    found, base = closings.get(best.cam_id), closings.get(cam_id(search.base))
    leads = f"{best.name} is the best on the search half with {number(best.objective)}"
    if found is None or base is None:
        waits = f"Cannot tell: {leads}, which chose it; the held-out half is not scored yet."
        return Strip(question, waits, "open")
    gain = signed(found["held_out"] - base["held_out"])
    return Strip(
        question,
        f"Cannot tell, with one seed each: {leads}. On the held-out half it has "
        f"{number(found['held_out'])}, {gain} from the base's {number(base['held_out'])}. "
        f"{counted(SEEDS_TO_COMPARE, 'seed')} of both show more.",
        "open",
        comparison_command(search, store, SEEDS_TO_COMPARE),
    )


def _grid(search: Search, trials: list[SearchTrial], closings: Closings) -> Grid:
    """Return the base and the trials, best first; only finished ones have a rank."""
    flat, base = search.base.flat(), closings.get(cam_id(search.base), {})
    entries = (
        "base",
        _settings({r.key: flat[r.key] for r in search.space}),
        number(base.get("objective")),
        number(base.get("held_out")),
        f"{search.base.train.epochs}" if base else DASH,
    )
    rows = []
    for rank, trial in enumerate(ranking(trials), 1):  # finished ones are first
        finished = trial.status == "finished"
        closing = closings.get(trial.cam_id, {}) if finished else {}
        marks = MARKS.get(trial.status, trial.status), "at the prior" if trial.warning else ""
        drawn = (
            f"{rank}" if finished else DASH,
            _settings(trial.settings),
            number(trial.objective if trial.status not in WORTHLESS else None),
            number(closing.get("held_out")),
            " ".join(filter(None, (f"{trial.last_epoch}", *marks))),
        )
        rows.append(Row((), drawn))
    names = "search half mIoU", "held-out mIoU", "epochs"
    settings = Column("settings", align="left", wraps=True)
    columns = (Column("rank"), settings, *map(Column, names))
    groups = RowGroup("", (Row((), entries),)), RowGroup("", tuple(rows))
    return Grid("trials", (), columns, groups)


def _settings(values: Mapping[str, float | None]) -> str:
    """Return settings as `lambda_s=0.5, lambda_bs=none`."""
    shown = (
        (key.split(".")[-1], "none" if value is None else f"{value:g}")
        for key, value in values.items()
    )
    return ", ".join(f"{name}={value}" for name, value in shown)


def _records(search: Search, trials: list[SearchTrial], closings: Closings) -> Records:
    """Return a row for the base, and one per trial."""
    keys, flat = [r.key for r in search.space], search.base.flat()
    found = closings.get(cam_id(search.base), {})
    base = (
        "base",
        "finished" if found else "missing",
        search.base.train.epochs if found else None,
        found.get("objective"),
        found.get("held_out"),
        *map(flat.get, keys),
    )
    rows = (
        (
            trial.number,
            trial.status,
            trial.last_epoch,
            trial.objective,
            closings.get(trial.cam_id, {}).get("held_out"),
            *map(trial.settings.get, keys),
        )
        for trial in trials
    )
    columns = ("trial", "status", "epochs", "search_half_miou", "held_out_miou", *keys)
    return Records(columns, (base, *rows))
