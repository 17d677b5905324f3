"""The report of a search in files, with figures of what its settings do."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sweeps.plan.search import History, Search, best_trials, comparison, comparison_file
from sweeps.report.document import Format, Picture, Pictures, Section
from sweeps.report.figures.parallel import Setting, explained_bars, parallel_coordinates
from sweeps.report.live.search_render import search_document
from sweeps.report.write import write_document
from sweeps.store.store import Store, write_json
from sweeps.tables.own import definition
from wsss.printable import counted

MIN_TRIALS = 5
"""Finished ones; fewer show nothing of what a setting does."""


def write_search(search: Search, store: Store) -> Path:
    """Write the report into the search's folder, and the table of its best; return the page."""
    history = History(search.folder(store))
    for best in best_trials(history.trials(), 1):
        write_json(comparison_file(search, store), definition(comparison(search, best)))
    document = replace(search_document(search, store), sections=_sections(search, history))
    return write_document(document, history.folder / "report", "report")[0]


def _sections(search: Search, history: History) -> tuple[Section, ...]:
    """Return the figures of the finished trials, once there are enough of them."""
    trials = [(t, t.objective) for t in history.trials() if t.status == "finished"]
    scores = [score for _, score in trials if score is not None]
    if len(scores) < MIN_TRIALS or len(scores) < len(trials):
        return ()
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
