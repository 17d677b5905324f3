"""All tables by name: the paper's (paper.py), and studies that a careful reader would ask for.

A study asks what the paper leaves open. A cell that is one of the paper's configurations shows the
paper's number too. To add a table, write it here and name it in `STUDIES`: planning, running,
tracking, statistics and the report need nothing else.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sweeps.tables.paper import (
    ATROUS,
    ATTENTION,
    BOTH_VIEWS,
    CONTEXT,
    FULL_MODULE,
    NO,
    PAPER_TABLES,
    TABLE_III,
    YES,
    grid,
    row,
)
from sweeps.tables.table import Cell, Row, Table
from wsss.recipes import RECIPES

B0: dict[str, Any] = {}
F0 = FULL_MODULE
F3 = FULL_MODULE | BOTH_VIEWS

NO_TRANSFER = {"transfer.lambda_s": 0.0, "transfer.lambda_bs": 0.0}
SUMMED = {"train.cls_reduction": "sum"}
LATE = {"transfer.start": 0.5, "transfer.ramp": 0.0}

NOISE_FLOOR = Table(
    name="noise-floor",
    title="How much mIoU varies when nothing but the seed, or not even the seed, changes",
    row_names=("configuration",),
    column_name="training",
    columns=("every seed", "seed 0 again"),
    rows=tuple(
        Row((label,), (Cell(config, paper), Cell(config | {"repeat": 1}, None, seeds=(0,))))
        for label, config, paper in (("B0", B0, 47.82), ("F3", F3, 50.86))
    ),
    notes=("Differences smaller than this spread are noise, in every table.",),
)

CONTROLS = Table(
    name="controls",
    title="Where a gain comes from: controls that the paper lacks",
    row_names=("configuration",),
    rows=(
        row(("full module, no view",), F0, 49.12),
        row(("full module, both views",), F3, 50.86),
        row(("views, but lambda_s = lambda_bs = 0",), F3 | NO_TRANSFER, None),
        row(("views, L_s alone",), F3 | {"transfer.lambda_bs": 0.0}, None),
        row(("views, L_bs alone",), F3 | {"transfer.lambda_s": 0.0}, None),
        row(("colour jitter instead of views",), F0 | {"train.color_jitter": 0.3}, None),
        row(("attention transfer without the module",), BOTH_VIEWS, None),
    ),
    baseline="controls[full module, both views]",
    notes=("With both lambdas 0 the views only add their classification loss.",),
)

CONTROLS_LATE = Table(
    name="controls-late",
    title="Both views, their losses switched on half-way, beside no view",
    row_names=("configuration",),
    rows=(row(("no view",), F0, 49.12), row(("both views, late",), F3 | LATE, None)),
)

CONTROLS_SUMMED = Table(
    name="controls-summed",
    title="Both views with Eq. 4 summed over classes, beside no view with the same",
    row_names=("configuration",),
    rows=(
        row(("no view",), F0 | SUMMED, None),
        row(("both views, lambda_s = lambda_bs = 0",), F3 | SUMMED | NO_TRANSFER, None),
        row(("both views",), F3 | SUMMED, None),
    ),
)

_ATTENTIONS = {
    "none": {},
    "channel": {"network.channel_attention": True},
    "spatial": {"network.spatial_attention": True},
    "both": ATTENTION,
}

FACTORIAL = Table(
    name="factorial",
    title="All 16 combinations of the module's parts, original view only",
    row_names=("multi-scale atrous", "context association"),
    column_name="attention",
    columns=tuple(_ATTENTIONS),
    rows=grid(
        {(NO, NO): {}, (YES, NO): ATROUS, (NO, YES): CONTEXT, (YES, YES): ATROUS | CONTEXT},
        _ATTENTIONS,
        (
            (47.82, 48.69, 48.12, 48.90),
            (48.50, None, None, None),
            (48.64, None, None, None),
            (None, None, None, 49.12),
        ),
    ),
)


def _alpha_beta(view: str, alphas: tuple[float, ...], betas: tuple[float, ...]) -> Table:
    """Return a grid over one view's alpha and beta; the other view keeps the paper's values."""
    printed = {"enhanced": (1.5, 300.0), "decreased": (0.8, 150.0)}[view]
    columns = {f"{beta:g}": {f"views.beta_{view}": beta} for beta in betas}
    return Table(
        name=f"alpha-beta-{view}",
        title=f"alpha (rows) and beta (columns) of the {view} view, full module and both views",
        row_names=("alpha",),
        column_name="beta",
        columns=tuple(columns),
        rows=grid(
            {(f"{alpha:g}",): F3 | {f"views.alpha_{view}": alpha} for alpha in alphas},
            columns,
            [[50.86 if (a, b) == printed else None for b in betas] for a in alphas],
        ),
        baseline=f"alpha-beta-{view}[{printed[0]:g},{printed[1]:g}]",
        notes=("beta is as the paper prints it; the setting views.reading says what it does.",),
    )


ALPHA_BETA_ENHANCED = _alpha_beta("enhanced", (1.2, 1.5, 1.8), (0.0, 150.0, 300.0, 600.0))
ALPHA_BETA_DECREASED = _alpha_beta("decreased", (0.6, 0.8, 1.0), (-150.0, 0.0, 150.0, 300.0))


def _readings(
    name: str, title: str, singly: Mapping[str, Sequence[Any]], *together: dict[str, Any]
) -> Table:
    """Return a row per reading: F3 with one open point of the paper decided differently.

    singly: setting -> its other values. together: readings of several settings.
    """
    readings = [{key: value} for key, values in singly.items() for value in values]
    rows = [row(("default",), F3, 50.86)]
    for reading in (*readings, *together):
        label = ", ".join(f"{key} = {value}" for key, value in reading.items())
        rows.append(row((label,), F3 | reading, None))
    return Table(name, title, ("reading",), tuple(rows))


EQ2_READINGS = _readings(
    "eq2-readings",
    "What alpha and beta of Eq. 2 act on, full module and both views",
    {
        "views.reading": (
            "literal_unclipped",
            "literal_clip",
            "wrap",
            "beta_tenth",
            "beta_thousandth",
            "decreased_negative",
            "about_mean",
            "slider",
        )
    },
)

READINGS = _readings(
    "readings",
    "The open points of the paper, one at a time, full module and both views",
    {
        "views.padding": ("after",),
        "network.atrous": ("zero_is_1x1", "parallel"),
        "network.atrous_start": ("random", "identity"),
        "network.feature_map": ("fpn", "plain", "fpn_p3"),
        "network.se_ratio": (8,),
        "network.affinity": ("softmax",),
        "network.association_values": ("input",),
        "network.module_placement": ("parallel", "remaining"),
        "network.affinity_residual": (False, True),
        "network.frozen_stages": (0,),
        "network.last_stage_dilation": (1, 2),
        "network.batch_norm": ("frozen", "train"),
        "network.weights": ("none",),
        "train.cls_reduction": ("sum",),
        "train.cls_over_views": ("sum",),
        "train.momentum": ("standard", "legacy"),
        "train.pyramid_lr_multiplier": (10.0,),
        "train.parts_lr_multiplier": (10.0,),
        "transfer.ramp": (0.0,),
        "transfer.empty_maps": ("compare",),
        "transfer.cam_activation": ("min_max", "raw", "sigmoid"),
        "transfer.l1_reduction": ("present", "sum"),
        "transfer.similarity_pairs": ("prose",),
        "transfer.merged_gradient": ("flow",),
        "transfer.belongs": ("threshold",),
        "transfer.half_of": ("sigmoid",),
        "transfer.background_map": ("fixed_score", "peaks", "background"),
        "labels.resize": ("bilinear",),
        "labels.upsampling": ("direct",),
        "data.eval_split": ("train_aug",),
    },
    {"train.batch_size": 32, "train.epochs": 15},
    LATE,
    {"transfer.ramp": 0.0, "transfer.empty_maps": "compare", "transfer.l1_reduction": "present"},
    {"labels.scales": (1.0,), "labels.flip": False},
)

RECIPES_TABLE = Table(
    name="recipes",
    title="Table III under each recipe: the full module, and which adjusted CAMs are introduced",
    row_names=("M_e", "M_d"),
    column_name="recipe",
    columns=tuple(RECIPES),
    rows=tuple(
        Row(
            third.labels,
            tuple(
                Cell({**recipe, **cell.overrides}, cell.paper if name == "default" else None)
                for name, recipe in RECIPES.items()
            ),
        )
        for third in TABLE_III.rows
        for cell in third.cells
    ),
    baseline=f"recipes[{NO},{NO}]",
    notes=("Each recipe is compared with its own first row: the recipes differ there, too.",),
)

VIEWS_ALONE = Table(
    name="views-alone",
    title="Table III without the module: which adjusted CAMs are introduced",
    row_names=("M_e", "M_d"),
    rows=(
        row((NO, NO), B0, 47.82),
        row((YES, NO), {"views.enhanced": True}, None),
        row((NO, YES), {"views.decreased": True}, None),
        row((YES, YES), BOTH_VIEWS, None),
    ),
)

BACKGROUND_SCORES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)

BACKGROUND_SCORE = Table(
    name="background-score",
    title="The fixed background score; one training per row, scored again per column",
    row_names=("configuration",),
    column_name="score",
    columns=tuple(f"{score:g}" for score in BACKGROUND_SCORES),
    rows=grid(
        {("B0",): B0, ("F0",): F0, ("F3",): F3},
        {f"{score:g}": {"labels.background_score": score} for score in BACKGROUND_SCORES},
    ),
    baseline="background-score[B0,0.15]",
    notes=("The paper does not print its background score.",),
)

CALIBRATE = Table(
    name="calibrate",
    title="The plain CAM (B0), which is IRN's under the preset irn",
    row_names=("configuration",),
    # Not the paper's number: its own B0, 47.82, has another network than the preset irn.
    rows=(row(("B0",), B0, None),),
    notes=(
        "IRN (not this paper) printed a score for this on the full VOC 2012; `sweeps calibrate` "
        "says whether it is reproduced here.",
    ),
)

PIXEL_CORRELATION = Table(
    name="pixel-correlation",
    title="SEAM's pixel correlation (not the paper's): the module, and a loss towards it",
    row_names=("module", "loss"),
    rows=(
        row((NO, NO), B0, 47.82),
        row((YES, NO), {"network.pixel_correlation": "module"}, None),
        row((NO, YES), {"network.pixel_correlation": "loss"}, None),
        row((YES, YES), {"network.pixel_correlation": "both"}, None),
    ),
    notes=(
        "Wang et al., CVPR 2020; docs/own_method.md says what differs from their code. A worked "
        "example of adding your own method; the paper's number is that of its baseline.",
    ),
)

STUDIES = (
    NOISE_FLOOR,
    CONTROLS,
    CONTROLS_LATE,
    CONTROLS_SUMMED,
    FACTORIAL,
    ALPHA_BETA_ENHANCED,
    ALPHA_BETA_DECREASED,
    EQ2_READINGS,
    READINGS,
    RECIPES_TABLE,
    VIEWS_ALONE,
    BACKGROUND_SCORE,
    CALIBRATE,
    PIXEL_CORRELATION,
)

TABLES = {table.name: table for table in (*PAPER_TABLES, *STUDIES)}

ALIASES = {"views": "III", "modules": "IV", "lambdas": "V", "attention": "VI"}
"""Words for the paper's tables on the command line."""
