"""Tables I and II as printed."""

from sweeps.tables.segmentation import TABLE_I, TABLE_II, TABLE_II_CLASSES
from wsss.data.classes import VOC_CLASSES


def test_table_i_has_20_published_methods_and_the_papers_own_and_adds_up() -> None:
    printed = [(row.val, row.test) for row in TABLE_I]
    assert [round(sum(column), 1) for column in zip(*printed, strict=True)] == [1357.1, 1372.7]
    assert sum(row.saliency for row in TABLE_I) == 5
    assert len(TABLE_I) == 21
    assert [row.method for row in TABLE_I if not row.publication] == ["Ours"]
    assert len({(row.method, row.publication) for row in TABLE_I}) == 21


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


def test_methods_in_both_tables_have_one_mean_on_val() -> None:
    val = {row.method: row.val for row in TABLE_I}
    common = [row for row in TABLE_II if row.method in val]
    assert [row.method for row in common] == ["AffinityNet", "SEAM", "Ours"]
    assert all(val[row.method] == row.printed_mean for row in common)
