"""The paper's ablation tables, with the mIoU (percent) that the paper printed in each cell.

Qin et al., TCSVT 2024, Section IV-D. 28 cells, 25 distinct configurations: III-none is IV-full,
III-both is V(.5, .5) and IV-none is VI-none.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sweeps.tables.table import Cell, Row, Table

CITATION = (
    "Z. Qin, Y. Chen, G. Zhu, E. Zhou, Y. Zhou, Y. Zhou and C. Zhu, Enhanced Pseudo-Label "
    "Generation With Self-Supervised Training for Weakly-Supervised Semantic Segmentation, IEEE "
    "Transactions on Circuits and Systems for Video Technology, 2024, "
    "doi:10.1109/TCSVT.2024.3364764"
)

NO, YES = "no", "yes"

ATTENTION = {"network.channel_attention": True, "network.spatial_attention": True}
ATROUS = {"network.multi_scale_atrous": True}
CONTEXT = {"network.context_association": True}
FULL_MODULE = ATTENTION | ATROUS | CONTEXT
BOTH_VIEWS = {"views.enhanced": True, "views.decreased": True}

LAMBDAS = (0.1, 0.2, 0.5, 1.0)


Changes = Mapping[str, Any]
"""Dotted settings -> values."""


def row(labels: tuple[str, ...], overrides: Changes, paper: float | None) -> Row:
    """Return a line with a single number."""
    return Row(labels, (Cell(overrides, paper),))


def grid(
    rows: Mapping[tuple[str, ...], Changes],
    columns: Mapping[str, Changes],
    paper: Sequence[Sequence[float | None]] = (),
) -> tuple[Row, ...]:
    """Return lines whose cells combine the settings of their row and column, each by its labels.

    paper: the printed numbers; default: none.
    """
    printed = paper or [[None] * len(columns)] * len(rows)
    return tuple(
        Row(
            labels,
            tuple(
                Cell({**changes, **across}, miou)
                for across, miou in zip(columns.values(), mious, strict=True)
            ),
        )
        for (labels, changes), mious in zip(rows.items(), printed, strict=True)
    )


TABLE_III = Table(
    name="III",
    title="Attention transfer module: which adjusted CAMs are introduced",
    row_names=("M_e", "M_d"),
    rows=(
        row((NO, NO), FULL_MODULE, 49.12),
        row((YES, NO), FULL_MODULE | {"views.enhanced": True}, 49.80),
        row((NO, YES), FULL_MODULE | {"views.decreased": True}, 49.54),
        row((YES, YES), FULL_MODULE | BOTH_VIEWS, 50.86),
    ),
)

TABLE_IV = Table(
    name="IV",
    title="Focused-unfocused module, original view only",
    row_names=("multi-scale atrous", "context association", "attention"),
    rows=(
        row((NO, NO, NO), {}, 47.82),
        row((YES, NO, NO), ATROUS, 48.50),
        row((NO, YES, NO), CONTEXT, 48.64),
        row((YES, YES, YES), FULL_MODULE, 49.12),
    ),
)

TABLE_V = Table(
    name="V",
    title="Hyper-parameters lambda_s (rows) and lambda_bs (columns), full module and both views",
    row_names=("lambda_s",),
    column_name="lambda_bs",
    columns=tuple(f"{value:g}" for value in LAMBDAS),
    rows=grid(
        {(f"{v:g}",): FULL_MODULE | BOTH_VIEWS | {"transfer.lambda_s": v} for v in LAMBDAS},
        {f"{v:g}": {"transfer.lambda_bs": v} for v in LAMBDAS},
        (
            (50.79, 50.79, 50.81, 50.78),
            (50.79, 50.82, 50.83, 50.80),
            (50.81, 50.84, 50.86, 50.83),
            (50.79, 50.81, 50.84, 50.85),
        ),
    ),
    baseline="V[0.5,0.5]",
)

TABLE_VI = Table(
    name="VI",
    title="Attention mechanisms, original view only",
    row_names=("channel attention", "spatial attention"),
    rows=(
        row((NO, NO), {}, 47.82),
        row((YES, NO), {"network.channel_attention": True}, 48.69),
        row((NO, YES), {"network.spatial_attention": True}, 48.12),
        row((YES, YES), ATTENTION, 48.90),
    ),
)

PAPER_TABLES = (TABLE_III, TABLE_IV, TABLE_V, TABLE_VI)
