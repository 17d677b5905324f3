"""Which numbers of a finished trial are logged, and under which names. No tracking library here."""

from typing import Any

from sweeps.plan.trials import Trial
from sweeps.tables.studies import TABLES
from wsss.evaluation.auc import area_under_curve

MIOU, AUC = "miou/fixed", "miou/auc"
"""A trial whose run has the first is logged in full, by an older version maybe without the second.

MLflow's UI shows a section per prefix, in alphabetical order: miou, per_class_..., score, train;
and compares by the metric that was logged first.
"""


def result_values(trial: Trial, metrics: dict[str, Any]) -> dict[str, float | None]:
    """Return the figures of a trial by metric name; None where there is none.

    mIoU and per-class IoU in percent. Runs scored by an older version lack some.
    """
    values = {
        MIOU: metrics["miou_fixed"],
        "miou/best_saw_gt": metrics["miou_best"],
        "miou/held_out": metrics.get("miou_held_out"),
        AUC: area_under_curve(metrics["curve"], trial.config.labels),
        "miou/paper_as_printed": paper_miou(trial),
        "score/threshold_best_saw_gt": metrics["best_threshold"],
        "score/precision_fixed": metrics["precision_fixed"],
        "score/recall_fixed": metrics["recall_fixed"],
        "score/seconds_training": metrics["train_seconds"],
        "score/seconds_inference": metrics.get("inference_seconds"),
    }
    names = ("background", *metrics["classes"])
    ious = zip(names, metrics["iou_fixed"], strict=True)
    return values | {f"per_class_iou_fixed/{name}": iou for name, iou in ious}


def paper_miou(trial: Trial) -> float | None:
    """Return the mIoU which the paper printed for a trial's configuration, if it did."""
    for table in TABLES.values():
        for reference, cell in table.cells():
            if reference in trial.cells and cell.paper is not None:
                return cell.paper
    return None
