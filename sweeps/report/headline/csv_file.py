"""The headline as CSV: one line per number, measured ones unrounded, for scripts and spreadsheets.

`origin` parts what the paper printed from what was measured here.
"""

import csv
from collections.abc import Iterator
from io import StringIO

from sweeps.report.headline.model import MEASURED, PRINTED, HeadlineReport
from sweeps.tables.segmentation import TABLE_I, TABLE_II

COLUMNS = (
    "table", "origin", "method", "publication", "backbone", "supervision", "split", "quantity",
    "percent", "pixel_masks", "images", "cell", "preset", "data", "train_images", "iterations",
    "rng_seed", "prediction_id", "small_scale",
)  # fmt: skip
IMAGE_LABELS, SALIENCY = "image labels", "image labels, saliency"

_FORMULA = ("=", "+", "-", "@", "\t", "\r")

Line = dict[str, object]


def csv_text(report: HeadlineReport) -> str:
    """Return a header and a line per number."""
    buffer = StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for line in (*_printed(report), *_measured(report), *_labels(report)):
        writer.writerow({key: _safe(value) for key, value in line.items()})
    return buffer.getvalue()


def _printed(report: HeadlineReport) -> Iterator[Line]:
    for row in TABLE_I:
        supervision = SALIENCY if row.saliency else IMAGE_LABELS
        for split, value in (("val", row.val), ("test", row.test)):
            yield {
                "table": "I", "origin": PRINTED, "method": row.method,
                "publication": row.publication, "backbone": row.backbone,
                "supervision": supervision, "split": split, "quantity": "mIoU", "percent": value,
            }  # fmt: skip
    if not report.same_classes:
        return
    for classes in TABLE_II:
        named = [
            *zip(report.class_names, classes.ious, strict=True),
            ("mIoU", classes.printed_mean),
        ]
        for name, value in named:
            yield {
                "table": "II", "origin": PRINTED, "method": classes.method, "split": "val",
                "quantity": name, "percent": value,
            }  # fmt: skip


def _measured(report: HeadlineReport) -> Iterator[Line]:
    for row in report.networks:
        line = _common(report) | {
            "origin": MEASURED, "method": row.name, "backbone": row.backbone,
            "supervision": row.supervision, "split": report.split, "pixel_masks": row.saw,
            "images": row.num_images, "prediction_id": dict(row.ids)["prediction"],
        }  # fmt: skip
        yield line | {"table": "I", "quantity": "mIoU", "percent": row.miou}
        for name in report.class_names:
            yield line | {"table": "II", "quantity": name, "percent": row.ious.get(name)}


def _labels(report: HeadlineReport) -> Iterator[Line]:
    for row in report.labels:
        yield _common(report) | {
            "table": "labels", "origin": MEASURED, "method": row.name, "quantity": "mIoU",
            "split": report.headline.sweep.base.data.eval_split, "percent": row.miou,
            "supervision": IMAGE_LABELS, "pixel_masks": row.saw, "images": row.num_images,
        }  # fmt: skip


def _common(report: HeadlineReport) -> Line:
    sweep, segmentation = report.headline.sweep, report.headline.chains[0].segmentation
    return {
        "cell": report.headline.cell, "preset": sweep.preset,
        "data": f"{sweep.base.data.name} {sweep.base.data.fingerprint}",
        "train_images": sweep.num_train_images, "iterations": segmentation.iterations,
        "rng_seed": segmentation.rng_seed, "small_scale": "yes" if report.warning else "no",
    }  # fmt: skip


def _safe(value: object) -> object:
    """Keep a spreadsheet from running text as a formula."""
    text = isinstance(value, str) and value.startswith(_FORMULA)
    return f"'{value}" if text else "" if value is None else value
