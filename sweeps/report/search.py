"""The report of a search: its trials, and figures of what its settings do.

Its words keep it apart from the paper's tables.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from sweeps.plan.search import WORTHLESS, History, Search, SearchTrial, ranking
from sweeps.report.document import (
    DASH,
    Column,
    Document,
    Format,
    Grid,
    Picture,
    Pictures,
    Records,
    Row,
    RowGroup,
    Section,
    Text,
)
from sweeps.report.formats.terminal import print_document
from sweeps.report.formats.write import as_text, write_document
from sweeps.report.words import number
from wsss.identity import cam_id
from wsss.printable import counted

MIN_TRIALS = 5
"""Finished ones; fewer show nothing of what a setting does."""

CAVEAT = (
    "This is a search, not a table: a single training seed per setting, settings chosen with pixel "
    "masks of the search half, poor trials stopped early, CAMs inferred more cheaply than a "
    "table's. The held-out half had no part in the choice; differences of the size of the seed "
    "noise mean nothing. To compare a setting with the paper's, train both with several seeds."
)

MARKS = {
    "finished": "",
    "stopped": "stopped",
    "diverged": "diverged",
    "not learning": "not learning",
    "error": "failed",
}


def write_search(search: Search, history: History) -> Path:
    """Write the report into the search's folder; return the page."""
    document = replace(search_document(search, history), sections=_sections(search, history))
    return write_document(document, history.folder / "report", "report")[0]


def _sections(search: Search, history: History) -> tuple[Section, ...]:
    """Return the figures of the finished trials, once there are enough of them."""
    trials = [(t, t.objective) for t in history.trials() if t.status == "finished"]
    scores = [score for _, score in trials if score is not None]
    if len(scores) < MIN_TRIALS or len(scores) < len(trials):
        return ()
    from sweeps.report.figures.parallel import (  # matplotlib: the driver has no need of it
        Setting,
        explained_bars,
        parallel_coordinates,
    )

    settings = [
        Setting(r.key.split(".")[-1], [trial.settings[r.key] for trial, _ in trials], log=r.log)
        for r in search.space.ranges
    ]
    lines = parallel_coordinates(
        settings, scores, score="mIoU (%)", name="parallel", title="Settings and their score"
    )
    correlations = [(s.name, _rank_correlation(s.values, scores)) for s in settings]
    bars = explained_bars(
        correlations,
        axis="rank correlation with mIoU (%)",
        name="importance",
        title="What goes with a high score",
    )
    pictures = (
        Picture(
            "Settings and their score",
            "A line per finished trial, by the search half's mIoU: dark is low, yellow high, the "
            "best is thick.",
            lines,
        ),
        Picture(
            "What goes with a high score",
            f"Spearman's rank correlation over {counted(len(scores), 'finished trial')}. The "
            "search drew where it had found high scores, so this is a hint and no test.",
            bars,
        ),
    )
    title = "What goes with a high score"
    blocks = (Pictures(pictures),)
    return (Section(title, title, "figures", blocks, formats=frozenset({Format.html})),)


def _rank_correlation(values: Sequence[float], scores: Sequence[float]) -> float:
    """Return Spearman's rank correlation in [-1, 1]; 0 where either does not vary."""
    from scipy.stats import spearmanr  # half a second to import

    if len(set(values)) == 1 or len(set(scores)) == 1:
        return 0.0
    return float(spearmanr(values, scores).statistic)


def print_search(console: Console, search: Search, history: History) -> None:
    """Print the trials, best first, under the paper's setting."""
    print_document(console, search_document(search, history))


def render_search(search: Search, history: History) -> str:
    """Return the same as plain text."""
    return as_text(search_document(search, history), width=200)


def search_document(search: Search, history: History) -> Document:
    """Return the search's description, its trials and what their numbers mean."""
    names = ("rank", "search half mIoU", "held-out mIoU", "epochs")
    rank, *numbers = (Column(name) for name in names)
    columns = (rank, Column("settings", align="left", wraps=True), *numbers)
    groups = RowGroup("", (_paper_row(search, history),)), RowGroup("", _rows(history))
    grid = Grid("trials", (), columns, groups)
    head = Text(search.describe()), grid, Text(CAVEAT)
    return Document(f"Search {search.name}", head, (), _records(search, history))


def _records(search: Search, history: History) -> Records:
    """Return a line per trial."""
    held_out, keys = history.held_out(), [r.key for r in search.space.ranges]
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
    return Records(columns, rows)


def _paper_row(search: Search, history: History) -> Row:
    """Return the paper's setting with what it came to, if it was trained."""
    flat = search.base.flat()
    found = history.held_out().get(cam_id(search.base), {})
    entries = (
        "paper",
        _settings({r.key: flat[r.key] for r in search.space.ranges}),
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
    """Return how many epochs were judged, and what became of the trial."""
    marks = [MARKS.get(trial.status, "interrupted"), "at the prior" if trial.warning else ""]
    return " ".join([f"{trial.last_epoch}", *filter(None, marks)])


def _settings(values: Mapping[str, float | None]) -> str:
    """Return settings as `lambda_s=0.5, lambda_bs=0.5`; one that is switched off is none."""
    shown = (
        (key.split(".")[-1], "none" if value is None else f"{value:g}")
        for key, value in values.items()
    )
    return ", ".join(f"{name}={value}" for name, value in shown)
