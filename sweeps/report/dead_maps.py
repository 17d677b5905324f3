"""Dead maps in the report: by epoch as a figure, and in words where trainings ended with them."""

from collections.abc import Mapping, Sequence

from sweeps.plan.trials import Plan
from sweeps.report.figures.figures import DeadCurve, dead_curves
from sweeps.report.model import CellReport, Picture
from sweeps.report.results import Results
from sweeps.report.words import counted


def dead_picture(
    done: Sequence[CellReport], plan: Plan, results: Results, *, name: str, title: str
) -> list[Picture]:
    """Draw the share of dead maps by epoch, in the view with most of them.

    None of cells whose records are of a time before `dead`.
    """
    cams = {trial.run_id: trial.cam_id for trial in plan.trials}
    curves = []
    for cell in done:
        seeds = [results.store.cam(cams[cell.run_ids[seed]]).epochs() for seed in cell.values]
        shares = [
            [max(epoch["dead"].values()) for epoch in epochs]
            for epochs in seeds
            if epochs and all(epoch.get("dead") for epoch in epochs)
        ]
        if shares:
            curves.append(DeadCurve(cell.reference, shares))
    if not curves:
        return []
    caption = (
        "Share of the maps of present classes without a positive value, mean over an epoch, in the "
        "view with most of them. Early in a training most are empty; later they should not be: an "
        "empty map labels nothing, and two empty maps agree, so that L_s falls for nothing."
    )
    return [Picture("Empty maps", caption, dead_curves(curves, name=name, title=title))]


def dead_sentences(cells: Mapping[str, CellReport], results: Results) -> tuple[str, ...]:
    """Name the cells whose trainings ended with dead maps, with the seed that has most of them."""
    sentences = []
    for cell in cells.values():
        found = [(s, d) for s, run in cell.run_ids.items() if (d := results.by_id[run].dead)]
        if found:
            seed, worst = max(found, key=lambda pair: pair[1].share)
            of = f"{len(found)} of {counted(cell.num_planned, 'seed')}"
            sentences.append(f"{cell.reference}: maps died in {of}; seed {seed}: {worst}.")
    return tuple(sentences)
