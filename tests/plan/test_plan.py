"""The paper's tables as data, and the trials behind their cells."""

import ast
import hashlib
import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweeps.plan.sweep import BaseOptions, make_sweep
from sweeps.plan.trials import Plan, groups_of, make_plan
from sweeps.tables.paper import PAPER_TABLES
from sweeps.tables.studies import TABLES
from sweeps.tables.table import Cell, Row, Table
from wsss.config import RunConfig
from wsss.identity import SCHEMA, cam_id, canonical, canonical_json, config_id, run_id
from wsss.overrides import apply_overrides
from wsss.presets import PAPER, PRESETS, TINY


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(PAPER_TABLES, TINY, 3)


def small_table(name: str = "T", *rows: Row) -> Table:
    return Table(name, "a table", ("row",), rows)


def printed(name: str) -> dict[str, float | None]:
    return {reference: cell.paper for reference, cell in TABLES[name].cells()}


# The tables as printed (typed from the paper, not from the code)

SHARES = ("0.1", "0.2", "0.5", "1")
OF_V = (
    *(50.79, 50.79, 50.81, 50.78),
    *(50.79, 50.82, 50.83, 50.80),
    *(50.81, 50.84, 50.86, 50.83),
    *(50.79, 50.81, 50.84, 50.85),
)
PRINTED = {
    "III": {"III[no,no]": 49.12, "III[yes,no]": 49.80, "III[no,yes]": 49.54, "III[yes,yes]": 50.86},
    "IV": {
        "IV[no,no,no]": 47.82,
        "IV[yes,no,no]": 48.50,
        "IV[no,yes,no]": 48.64,
        "IV[yes,yes,yes]": 49.12,
    },
    "V": {
        f"V[{row},{column}]": miou
        for (row, column), miou in zip(itertools.product(SHARES, SHARES), OF_V, strict=True)
    },
    "VI": {"VI[no,no]": 47.82, "VI[yes,no]": 48.69, "VI[no,yes]": 48.12, "VI[yes,yes]": 48.90},
}
NAMES = {
    "III": ("M_e", "M_d"),
    "IV": ("multi-scale atrous", "context association", "attention"),
    "V": ("lambda_s",),
    "VI": ("channel attention", "spatial attention"),
}


def test_the_tables_are_as_printed() -> None:
    for name, cells in PRINTED.items():
        assert TABLES[name].row_names == NAMES[name]
        assert printed(name) == cells
    assert TABLES["V"].column_name == "lambda_bs"
    for reference, cell in TABLES["V"].cells():
        lambdas = (cell.overrides["transfer.lambda_s"], cell.overrides["transfer.lambda_bs"])
        assert reference == "V[{:g},{:g}]".format(*lambdas)


def built(config: RunConfig) -> str:
    """The parts and views that are on, each by a letter, or `nothing`."""
    network, views = config.network, config.views
    switches = {
        "c": network.channel_attention,
        "s": network.spatial_attention,
        "m": network.multi_scale_atrous,
        "a": network.context_association,
        "e": views.enhanced,
        "d": views.decreased,
    }
    return "".join(filter(switches.get, switches)) or "nothing"


def test_each_cell_switches_on_what_its_row_names() -> None:
    expected = {
        "III[no,no]": "csma",
        "III[yes,no]": "csmae",
        "III[no,yes]": "csmad",
        "III[yes,yes]": "csmaed",
        "IV[no,no,no]": "nothing",
        "IV[yes,no,no]": "m",
        "IV[no,yes,no]": "a",
        "IV[yes,yes,yes]": "csma",
        "VI[no,no]": "nothing",
        "VI[yes,no]": "c",
        "VI[no,yes]": "s",
        "VI[yes,yes]": "cs",
    }
    found = {
        reference: built(apply_overrides(PAPER, cell.overrides))
        for table in PAPER_TABLES
        for reference, cell in table.cells()
    }
    assert found == expected | dict.fromkeys(printed("V"), "csmaed")


# The plan


def test_the_28_cells_of_the_four_tables_are_25_configurations(plan: Plan) -> None:
    assert len(plan.cell_trials) == sum(len(printed(t.name)) for t in PAPER_TABLES) == 28
    assert len(plan.configs) == 25
    assert len({config_id(trial.config) for trial in plan.trials}) == 25
    shared = {trial.cells for trial in plan.trials if len(trial.cells) > 1}
    assert shared == {
        ("III[no,no]", "IV[yes,yes,yes]"),
        ("III[yes,yes]", "V[0.5,0.5]"),
        ("IV[no,no,no]", "VI[no,no]"),
    }
    papers = PRINTED["III"] | PRINTED["IV"] | PRINTED["V"] | PRINTED["VI"]
    assert all(papers[one] == papers[other] for one, other in shared)


def test_seed_0_of_every_configuration_comes_first(plan: Plan) -> None:
    assert plan.seeds == (0, 1, 2)
    seeds = [trial.config.rng_seed for trial in plan.trials]
    assert seeds == [0] * 25 + [1] * 25 + [2] * 25
    orders = [[t.cells for t in plan.trials[start : start + 25]] for start in (0, 25, 50)]
    assert orders[0] == orders[1] == orders[2]
    assert len({trial.cam_id for trial in plan.trials}) == 75
    assert plan.configs == tuple(plan.trials[at::25] for at in range(25))
    preset_with_seed = TINY.model_copy(update={"rng_seed": 9})
    assert make_plan(PAPER_TABLES, preset_with_seed, 3) == plan


def test_settings_of_cells_alone_make_another_sweep_of_the_tables_that_they_change(
    drawn: Path,
) -> None:
    def name(table: str, overrides: dict[str, Any]) -> str:
        return make_sweep([table], BaseOptions("tiny", drawn, settings=overrides))[0].name

    changes = [{}, {"transfer.lambda_bs": 0.3}, {"transfer.lambda_bs": 0.4, "train.lr": 0.1}]
    assert len({name("III", change) for change in changes}) == 3
    assert len({name("VI", change) for change in changes}) == 1  # which has one view


def slow_ids(config: RunConfig) -> tuple[str, str]:
    """Run id and CAM id by the definition: the digest of all canonical settings as JSON."""

    def digest(settings: dict[str, Any]) -> str:
        text = json.dumps({"schema": SCHEMA, **settings}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    settings = json.loads(canonical_json(config))
    run = digest(settings)
    del settings["labels"], settings["data"]["eval_split"], settings["data"]["fingerprint"]
    return run, digest(settings)


@pytest.mark.parametrize("preset", ["tiny", "irn"])
def test_what_is_planned_of_a_cell_is_what_its_settings_say_on_their_own(preset: str) -> None:
    base = apply_overrides(
        PRESETS[preset], {"data.name": "x", "data.train_fingerprint": "rng_seed-7"}
    )
    plan = make_plan(TABLES.values(), base, 2)
    for table in TABLES.values():
        for reference, cell in table.cells():
            assert plan.cell_trials[reference]
            flat = apply_overrides(base, cell.overrides).flat()
            for key, value in cell.overrides.items():
                assert flat[key] == (list(value) if isinstance(value, tuple) else value), reference
            for trial in plan.cell_trials[reference]:
                alone = apply_overrides(
                    base, dict(cell.overrides) | {"rng_seed": trial.config.rng_seed}
                )
                assert trial.config == canonical(alone)
                assert (trial.run_id, trial.cam_id) == slow_ids(alone)
                assert (run_id(alone), cam_id(alone)) == slow_ids(alone)


def test_a_number_that_is_written_otherwise_is_the_same_configuration() -> None:
    values: dict[str, float] = {"minus": -0.0, "zero": 0.0, "whole": 0, "again": -0.0}
    on = {"views.enhanced": True}
    rows = [Row((n,), (Cell(on | {"views.beta_enhanced": v}, None),)) for n, v in values.items()]
    plan = make_plan([small_table("T", *rows)], TINY, 1)
    assert len(plan.configs) == 1  # -0.0 is read as 0.0
    (trial,) = plan.trials
    assert trial.run_id == slow_ids(apply_overrides(TINY, on | {"views.beta_enhanced": 0.0}))[0]


def test_a_cell_that_wants_seed_0_alone_adds_no_trial_of_another_seed() -> None:
    shared = {"transfer.lambda_s": 0.1}  # which is nothing without a view
    table = small_table(
        "T",
        Row(("every",), (Cell({}, None),)),
        Row(("once",), (Cell({"train.lr": 0.05}, None, seeds=(0,)),)),
        Row(("shared",), (Cell(shared, None, seeds=(1,)),)),
        Row(("later",), (Cell({"train.lr": 0.1}, None, seeds=(4,)),)),
    )
    plan = make_plan([table], TINY, 3)
    assert [(trial.cells, trial.config.rng_seed) for trial in plan.trials] == [
        (("T[every]",), 0),
        (("T[once]",), 0),
        (("T[every]", "T[shared]"), 1),
        (("T[every]",), 2),
    ]
    counts = {name: len(trials) for name, trials in plan.cell_trials.items()}
    assert counts == {"T[every]": 3, "T[once]": 1, "T[shared]": 1, "T[later]": 0}
    assert [len(trials) for trials in plan.configs] == [3, 1]


# The studies


def test_the_noise_floor_repeats_seed_0_of_the_papers_own_configurations(plan: Plan) -> None:
    floor = make_plan([TABLES["noise-floor"]], TINY, 3)
    for name, cell in (("B0", "IV[no,no,no]"), ("F3", "V[0.5,0.5]")):
        every = floor.cell_trials[f"noise-floor[{name},every seed]"]
        assert [t.run_id for t in every] == [t.run_id for t in plan.cell_trials[cell]]
        (again,) = floor.cell_trials[f"noise-floor[{name},seed 0 again]"]
        assert again.config == every[0].config.model_copy(update={"repeat": 1})
        assert again.cam_id not in {trial.cam_id for trial in every}
        assert again.run_id not in {trial.run_id for trial in every}
    assert len(floor.trials) == 8


def test_the_factorial_has_16_configurations_and_seven_of_the_paper(plan: Plan) -> None:
    factorial = make_plan([TABLES["factorial"]], TINY, 1)
    assert len(factorial.trials) == 16
    assert {built(trial.config) for trial in factorial.trials} == {
        "".join(on) or "nothing" for n in range(5) for on in itertools.combinations("csma", n)
    }
    of_the_paper = PRINTED["IV"] | PRINTED["VI"]
    papers = {plan.cell_trials[cell][0].run_id: miou for cell, miou in of_the_paper.items()}
    assert len(papers) == 7
    for cell, (trial,) in factorial.cell_trials.items():
        assert printed("factorial")[cell] == papers.get(trial.run_id)


def label_value(text: str) -> Any:
    """The value which a reading's label names, as `flat` has it."""
    try:
        value = ast.literal_eval(text)
    except ValueError:
        return text
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", ["readings", "eq2-readings"])
def test_a_reading_differs_from_the_default_in_what_its_label_says_and_in_nothing_else(
    name: str, preset: str
) -> None:
    plan = make_plan([TABLES[name]], PRESETS[preset], 1)
    default, *others = TABLES[name].rows
    assert default.labels == ("default",)
    reference = plan.cell_trials[f"{name}[default]"][0]
    base = apply_overrides(PRESETS[preset], default.cells[0].overrides).flat()
    same = 0
    for row in others:
        parts = [part.split(" = ") for part in row.labels[0].split(", ")]
        said = {key: label_value(value) for key, value in parts}
        flat = apply_overrides(PRESETS[preset], row.cells[0].overrides).flat()
        assert flat == base | said
        if flat == base:  # the preset has it
            assert plan.cell_trials[f"{name}[{row.labels[0]}]"][0].run_id == reference.run_id
            same += 1
    assert same < len(others) / 4


def test_under_the_papers_preset_every_reading_that_acts_is_a_configuration_of_its_own() -> None:
    plan = make_plan([TABLES["readings"]], PAPER, 1)
    of_default = plan.cell_trials["readings[default]"][0].cells
    already = {cell for cell in of_default if cell != "readings[default]"}
    assert already == {
        "readings[network.feature_map = fpn]",
        "readings[network.atrous_start = random]",
        "readings[network.affinity_residual = False]",
        "readings[network.last_stage_dilation = 1]",
        "readings[network.batch_norm = frozen]",
        "readings[train.momentum = legacy]",
    }
    assert len(plan.configs) == len(TABLES["readings"].rows) - len(already)


def test_the_alpha_beta_grids_hold_the_papers_point_once(plan: Plan) -> None:
    f3 = plan.cell_trials["V[0.5,0.5]"][0].run_id
    for view, point, size in (("enhanced", "1.5,300", 12), ("decreased", "0.8,150", 12)):
        name = f"alpha-beta-{view}"
        grid = make_plan([TABLES[name]], TINY, 1)
        assert len(grid.configs) == size
        for reference, (trial,) in grid.cell_trials.items():
            alpha, beta = reference.removeprefix(f"{name}[").rstrip("]").split(",")
            views = trial.config.views
            assert getattr(views, f"alpha_{view}") == float(alpha)
            assert getattr(views, f"beta_{view}") == float(beta)
            assert (trial.run_id == f3) == (reference == f"{name}[{point}]")
            assert (printed(name)[reference] == 50.86) == (reference == f"{name}[{point}]")


CONTROLS = {
    "controls[full module, no view]": "csma, 0.5/0.5 from 0, mean, jitter 0",
    "controls[full module, both views]": "csmaed, 0.5/0.5 from 0, mean, jitter 0",
    "controls[views, but lambda_s = lambda_bs = 0]": "csmaed, 0/0 from 0, mean, jitter 0",
    "controls[views, L_s alone]": "csmaed, 0.5/0 from 0, mean, jitter 0",
    "controls[views, L_bs alone]": "csmaed, 0/0.5 from 0, mean, jitter 0",
    "controls[colour jitter instead of views]": "csma, 0.5/0.5 from 0, mean, jitter 0.3",
    "controls[attention transfer without the module]": "ed, 0.5/0.5 from 0, mean, jitter 0",
    "controls-late[no view]": "csma, 0.5/0.5 from 0, mean, jitter 0",
    "controls-late[both views, late]": "csmaed, 0.5/0.5 from 0.5, mean, jitter 0",
    "controls-summed[no view]": "csma, 0.5/0.5 from 0, sum, jitter 0",
    "controls-summed[both views, lambda_s = lambda_bs = 0]": "csmaed, 0/0 from 0, sum, jitter 0",
    "controls-summed[both views]": "csmaed, 0.5/0.5 from 0, sum, jitter 0",
}
"""What is built, lambda_s and lambda_bs, start of the transfer, reduction of L_cls, jitter."""


def test_the_controls_are_what_their_rows_say(plan: Plan) -> None:
    names = ("controls", "controls-late", "controls-summed")
    controls = make_plan([TABLES[name] for name in names], TINY, 1)
    found = {}
    for name, (trial,) in controls.cell_trials.items():
        transfer, train = trial.config.transfer, trial.config.train
        found[name] = (
            f"{built(trial.config)}, {transfer.lambda_s:g}/{transfer.lambda_bs:g} from "
            f"{transfer.start:g}, {train.cls_reduction}, jitter {train.color_jitter:g}"
        )
    assert found == CONTROLS
    assert [TABLES[name].baseline for name in names[1:]] == [
        f"{name}[no view]" for name in names[1:]
    ]
    for row, cell in (("no view", "III[no,no]"), ("both views", "III[yes,yes]")):
        (trial,) = controls.cell_trials[f"controls[full module, {row}]"]
        assert trial.run_id == plan.cell_trials[cell][0].run_id


def test_the_background_scores_of_a_row_share_one_training() -> None:
    plan = make_plan([TABLES["background-score"]], TINY, 2)
    assert len(plan.configs) == 24
    assert len({trial.cam_id for trial in plan.trials}) == 3 * 2
    scores = {trial.config.labels.background_score for trial in plan.trials[:24]}
    assert scores == {0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5}
    groups = groups_of(plan.trials)
    assert [len(group) for group in groups] == [8] * 6
    assert {trial.config.rng_seed for group in groups[:3] for trial in group} == {0}


# Malformed tables

A, OTHER_A = Row(("a",), (Cell({}, None),)), Row(("a",), (Cell({"train.lr": 0.05}, None),))


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: make_plan([TABLES["VI"], TABLES["VI"]], TINY, 1), "VI[no,no]"),
        (lambda: make_plan([small_table("T", A), small_table("T", OTHER_A)], TINY, 1), "T[a]"),
        (lambda: small_table("T", A, OTHER_A), "T[a]"),
        (
            lambda: Table("T", "", ("row",), (Row(("a",), A.cells * 2),), "column", ("x", "x")),
            "T[a,x]",
        ),
    ],
)
def test_two_cells_of_one_name_are_refused(make: Callable[[], object], named: str) -> None:
    with pytest.raises(ValueError, match=re.escape(named)):
        make()


@pytest.mark.parametrize(
    ("labels", "num_cells"), [((), 2), (("a", "b"), 2), (("a",), 1), (("a",), 3)]
)
def test_a_row_with_too_few_or_too_many_labels_or_cells_is_refused(
    labels: tuple[str, ...], num_cells: int
) -> None:
    row = Row(labels, A.cells * num_cells)
    said = f"{len(labels)} labels and {num_cells} cells.* expected 1 and 2"
    with pytest.raises(ValueError, match=f"table T, row .*{said}"):
        Table("T", "a table", ("row",), (row,), "column", ("x", "y"))
