"""The closing table of a search, and the words that keep it apart from the paper's tables."""

import io
from collections.abc import Mapping

from rich.console import Console, Group
from rich.table import Table as RichTable
from rich.text import Text

from sweeps.plan.search import Search
from sweeps.plan.search_history import WORTHLESS, History, SearchTrial, ranking
from wsss.identity import cam_id

CAVEAT = (
    "This is a search, not a table: a single training seed per setting, settings chosen with pixel "
    "masks of the search half, poor trials stopped early, CAMs inferred more cheaply than a "
    "table's. The held-out half had no part in the choice; differences of the size of the seed "
    "noise mean nothing. To compare a setting with the paper's, train both with several seeds."
)

MARKS = {
    "finished": "", "stopped": "stopped", "diverged": "diverged", "not learning": "not learning",
    "error": "failed",
}  # fmt: skip


def print_search(console: Console, search: Search, history: History) -> None:
    """Print the trials, best first, under the paper's setting."""
    console.print(search_view(search, history))


def render_search(search: Search, history: History) -> str:
    """Return the same as plain text."""
    buffer = io.StringIO()
    Console(file=buffer, width=200, force_terminal=False).print(search_view(search, history))
    return buffer.getvalue()


def search_view(search: Search, history: History) -> Group:
    """Return the search's description, its table and what the numbers mean."""
    grid = RichTable(title=f"Search {search.name}")
    grid.add_column("rank", justify="right", no_wrap=True)
    grid.add_column("settings")
    for name in ("search half\nmIoU", "held-out\nmIoU", "epochs"):
        grid.add_column(name, justify="right", no_wrap=True)
    held_out, flat = history.held_out(), search.base.flat()
    reference = held_out.get(cam_id(search.base), {})
    grid.add_row(
        "paper",
        _settings({r.key: flat[r.key] for r in search.space.ranges}),
        _figure(reference.get("objective")),
        _figure(reference.get("held_out")),
        f"{search.base.train.epochs}" if reference else "-",
        end_section=True,
    )
    rank = 0
    for trial in ranking(history.trials()):
        finished = trial.status == "finished"
        rank += finished
        grid.add_row(
            f"{rank}" if finished else "-",
            _settings(trial.settings),
            _figure(trial.objective if trial.status not in WORTHLESS else None),
            _figure(held_out.get(trial.cam_id, {}).get("held_out") if finished else None),
            _epochs(trial),
        )
    return Group(Text(search.describe()), grid, Text(CAVEAT))


def _epochs(trial: SearchTrial) -> str:
    """Return how many epochs were judged, and what became of the trial."""
    marks = [MARKS.get(trial.status, "interrupted"), "at the prior" if trial.warning else ""]
    return " ".join([f"{trial.last_epoch}", *filter(None, marks)])


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _settings(values: Mapping[str, float | None]) -> str:
    """Return settings as `lambda_s=0.5, lambda_bs=0.5`; one that is switched off is none."""
    shown = (
        (key.split(".")[-1], "none" if value is None else f"{value:g}")
        for key, value in values.items()
    )
    return ", ".join(f"{name}={value}" for name, value in shown)
