"""What stands above every report: scale, data and the meaning of its figures."""

from sweeps.plan.scale import SMALL_SCALE
from sweeps.report.model import Report


def scale_warning(report: Report) -> str | None:
    """Return the mark of runs that are not at the paper's scale, or None."""
    if not report.scale_marks:
        return None
    return (
        f"{SMALL_SCALE}: {'; '.join(report.scale_marks)}. These numbers show how the method "
        "behaves here; they neither confirm nor refute the paper's."
    )


def legend(report: Report) -> list[str]:
    """Return how to read the tables."""
    labels = report.sweep.base.labels
    low, high = labels.threshold_range
    return [
        f"Measured: {report.measure.describe(labels)}. "
        "Paper: as printed by Qin et al., TCSVT 2024.",
        "Intervals over seeds say what another training would give on the same images; intervals "
        "over images (bootstrap, 2,000 resamples) what the same networks would score on other "
        "images of this kind. They are never added up.",
        "A verdict compares the measured difference to the table's baseline, paired by seed, with "
        f"the paper's: reproduced if it is the same within ± {report.margin:g} points (two "
        "one-sided t tests at 5 %) and, where the paper claims more than that, of the same sign "
        "after Holm's correction; trend only if just the sign is; not reproduced if it is shown to "
        "be another; not resolvable if the seeds cannot tell.",
        f"Level or shape: fixed is the mIoU at the background score {labels.background_score:g}; "
        "held-out, at a threshold chosen on the other half of the images; best, at each training's "
        f"best threshold; AUC, the mean over all thresholds from {low:g} to {high:g}, with none "
        "chosen. A difference that is significant (Holm) at the fixed score and, with the same "
        "sign, in the three others is one of shape; in none of them, of level, which another "
        "threshold would undo; else partly.",
    ]
