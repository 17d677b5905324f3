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
MARKS = {
    "finished": "",
    "stopped": "stopped",
    "diverged": "diverged",
    "not learning": "not learning",
    "error": "failed",
}


def write_search(search: Search, store: Store) -> Path:
    """Write the report, and a table of the base and the best trial; return the page's path."""
    history = History(search, store)
    for best in best_trials(history.trials(), 1):
        write_json(comparison_file(search, store), definition(comparison(search, best)))
    document = replace(search_document(search, store), sections=_sections(search, history))
    return write_document(document, history.folder / "report", "report")[0]


def _sections(search: Search, history: History) -> tuple[Section, ...]:
    """Return a figure of the finished trials if there are enough of them."""
    trials = [(t, t.objective) for t in history.trials() if t.status == "finished"]
    scores = [score for _, score in trials if score is not None]
    if len(scores) < MIN_TRIALS or len(scores) < len(trials):
        return ()
    from sweeps.report.figures.rows import bars  # loads matplotlib, which the driver does without

    correlations = []
    for key in (each.key for each in search.space):
        values = [trial.settings[key] for trial, _ in trials]
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
    names = ("rank", "search half mIoU", "held-out mIoU", "epochs")
    rank, *numbers = (Column(name) for name in names)
    columns = (rank, Column("settings", align="left", wraps=True), *numbers)
    groups = RowGroup("", (_base_row(search, history),)), RowGroup("", _rows(history))
    grid = Grid("trials", (), columns, groups)
    head = _answer(search, history, store), Text(search.describe()), grid, Text(CAVEAT)
    return Document(f"Search {search.name}", head, (), _records(search, history))


def _answer(search: Search, history: History, store: Store) -> Strip:
    """Compare the best trial with the base, and name the command that compares them on seeds.

    With one training each, the answer is always "cannot tell".
    """
    question = "Is a drawn setting better than the base?"
    best, held_out = best_trials(history.trials(), 1), history.held_out()
    if not best:
        return Strip(question, "Cannot tell: no trial is finished yet.", "open")
    found, base = held_out.get(best[0].cam_id), held_out.get(cam_id(search.base))
    leads = f"{best[0].name} is the best on the search half with {number(best[0].objective)}"
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


def _records(search: Search, history: History) -> Records:
    """Return a row for the base, and one per trial."""
    held_out, keys = history.held_out(), [r.key for r in search.space]
    flat, found = search.base.flat(), held_out.get(cam_id(search.base), {})
    base = (
        "base",
        "finished" if found else "missing",
        search.base.train.epochs if found else None,
        found.get("objective"),
        found.get("held_out"),
        *map(flat.get, keys),
    )
    rows = tuple(
        (
            trial.number,
            trial.status,
            trial.last_epoch,
            trial.objective,
            held_out.get(trial.cam_id, {}).get("held_out"),
            *map(trial.settings.get, keys),
        )
        for trial in history.trials()
    )
    columns = ("trial", "status", "epochs", "search_half_miou", "held_out_miou", *keys)
    return Records(columns, (base, *rows))


def _base_row(search: Search, history: History) -> Row:
    flat = search.base.flat()
    found = history.held_out().get(cam_id(search.base), {})
    entries = (
        "base",
        _settings({r.key: flat[r.key] for r in search.space}),
        number(found.get("objective")),
        number(found.get("held_out")),
        f"{search.base.train.epochs}" if found else DASH,
    )
    return Row((), entries)


def _rows(history: History) -> tuple[Row, ...]:
    """Return the trials, best first; only finished ones have a rank."""
    held_out, rows, rank = history.held_out(), [], 0
    for trial in ranking(history.trials()):
        finished = trial.status == "finished"
        rank += finished
        entries = (
            f"{rank}" if finished else DASH,
            _settings(trial.settings),
            number(trial.objective if trial.status not in WORTHLESS else None),
            number(held_out.get(trial.cam_id, {}).get("held_out") if finished else None),
            _epochs(trial),
        )
        rows.append(Row((), entries))
    return tuple(rows)


def _epochs(trial: SearchTrial) -> str:
    marks = [MARKS.get(trial.status, "interrupted"), "at the prior" if trial.warning else ""]
    return " ".join([f"{trial.last_epoch}", *filter(None, marks)])


def _settings(values: Mapping[str, float | None]) -> str:
    """Return settings as `lambda_s=0.5, lambda_bs=none`."""
    shown = (
        (key.split(".")[-1], "none" if value is None else f"{value:g}")
        for key, value in values.items()
    )
    return ", ".join(f"{name}={value}" for name, value in shown)
