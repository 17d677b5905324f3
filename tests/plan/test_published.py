"""Tables I and II as printed."""

import pytest

from sweeps.tables.segmentation import TABLE_I, TABLE_II, TABLE_II_CLASSES, ClassRow
from wsss.data.classes import VOC_CLASSES


def class_row(method: str) -> ClassRow:
    (row,) = (row for row in TABLE_II if row.method == method)
    return row


def test_table_i_has_20_published_methods_and_the_papers_own() -> None:
    assert len(TABLE_I) == 21
    assert [row.method for row in TABLE_I if not row.publication] == ["Ours"]
    assert len({(row.method, row.publication) for row in TABLE_I}) == 21


def test_five_rows_of_table_i_are_printed_with_saliency() -> None:
    assert [(row.method, row.publication) for row in TABLE_I if row.saliency] == [
        ("DSRG", "CVPR18"),
        ("SeeNet", "NeurIPS18"),
        ("CIAN", "AAAI20"),
        ("Zhang et al.", "ECCV20"),
        ("Sun et al.", "ECCV20"),
    ]


@pytest.mark.parametrize(
    ("method", "publication", "backbone", "val", "test"),
    [
        ("AffinityNet", "CVPR18", "ResNet38", 61.7, 63.7),
        ("SeeNet", "NeurIPS18", "ResNet38", 63.1, 62.8),
        ("IRNet", "CVPR19", "ResNet50", 63.5, 64.8),
        ("SEAM", "CVPR20", "ResNet38", 64.5, 65.7),
        ("OAA+++", "TPAMI21", "VGGNet", 63.7, 63.2),
        ("Zhang et al.", "ACMMM21", "ResNet38", 63.9, 64.8),
        ("Ru et al.", "CVPR22", "MiT-B1", 66.0, 66.3),
        ("Ours", "", "ResNet50", 67.3, 67.5),
    ],
)
def test_rows_of_table_i_are_as_printed(
    method: str, publication: str, backbone: str, val: float, test: float
) -> None:
    (row,) = (r for r in TABLE_I if (r.method, r.publication) == (method, publication))
    assert (row.backbone, row.val, row.test) == (backbone, val, test)


def test_table_ii_has_six_methods_and_the_21_labels_in_vocs_order() -> None:
    assert [row.method for row in TABLE_II] == [
        "MIL+seg",
        "SEC",
        "AdvErasing",
        "AffinityNet",
        "SEAM",
        "Ours",
    ]
    assert all(len(row.ious) == len(TABLE_II_CLASSES) == 21 for row in TABLE_II)
    short = {"mbk": "motorbike", "bike": "bicycle"}
    for head, full in zip(TABLE_II_CLASSES[1:], VOC_CLASSES, strict=True):
        assert short.get(head, head) in full


@pytest.mark.parametrize("method", ["MIL+seg", "SEC", "AdvErasing", "AffinityNet", "SEAM"])
def test_the_classes_of_every_other_method_average_to_the_printed_mean(method: str) -> None:
    row = class_row(method)
    assert row.computed_mean == pytest.approx(row.printed_mean, abs=0.08)


def test_the_classes_of_the_papers_own_row_average_to_less_than_its_printed_mean() -> None:
    row = class_row("Ours")
    assert row.printed_mean == 67.3
    assert row.computed_mean == pytest.approx(1407.1 / 21, abs=1e-9)  # added up by hand: 67.005


def test_methods_in_both_tables_have_one_mean_on_val() -> None:
    val = {row.method: row.val for row in TABLE_I}
    common = [row for row in TABLE_II if row.method in val]
    assert [row.method for row in common] == ["AffinityNet", "SEAM", "Ours"]
    assert all(val[row.method] == row.printed_mean for row in common)
