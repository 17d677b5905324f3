"""The paper's tables as data, and the trials behind their cells."""

import pytest

from sweeps.plan import Plan, Trial, make_plan
from sweeps.table import Cell, Row, Table
from sweeps.tables import TABLES
from wsss.config import RunConfig
from wsss.identity import cam_id, config_id, run_id
from wsss.overrides import ConfigError, apply_overrides
from wsss.presets import PAPER, TINY


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(TABLES.values(), TINY, 3)


def small_table(name: str = "T", *rows: Row) -> Table:
    return Table(name, "a table", ("row",), "mIoU", ("mIoU",), rows)


def printed(name: str) -> dict[str, float | None]:
    return {reference: cell.paper for reference, cell in TABLES[name].cells()}


# The tables as printed (typed from the paper, not from the code)


def test_table_iii_is_as_printed() -> None:
    assert TABLES["III"].row_names == ("M_e", "M_d")
    assert printed("III") == {
        "III[no,no]": 49.12, "III[yes,no]": 49.80, "III[no,yes]": 49.54, "III[yes,yes]": 50.86,
    }  # fmt: skip


def test_table_iv_is_as_printed() -> None:
    assert TABLES["IV"].row_names == ("multi-scale atrous", "context association", "attention")
    assert printed("IV") == {
        "IV[no,no,no]": 47.82, "IV[yes,no,no]": 48.50, "IV[no,yes,no]": 48.64,
        "IV[yes,yes,yes]": 49.12,
    }  # fmt: skip


def test_table_v_is_as_printed_with_lambda_s_in_rows_and_lambda_bs_in_columns() -> None:
    table = TABLES["V"]
    assert (table.row_names, table.column_name) == (("lambda_s",), "lambda_bs")
    assert printed("V") == {
        "V[0.1,0.1]": 50.79, "V[0.1,0.2]": 50.79, "V[0.1,0.5]": 50.81, "V[0.1,1]": 50.78,
        "V[0.2,0.1]": 50.79, "V[0.2,0.2]": 50.82, "V[0.2,0.5]": 50.83, "V[0.2,1]": 50.80,
        "V[0.5,0.1]": 50.81, "V[0.5,0.2]": 50.84, "V[0.5,0.5]": 50.86, "V[0.5,1]": 50.83,
        "V[1,0.1]": 50.79, "V[1,0.2]": 50.81, "V[1,0.5]": 50.84, "V[1,1]": 50.85,
    }  # fmt: skip
    for reference, cell in table.cells():
        lambdas = (cell.overrides["transfer.lambda_s"], cell.overrides["transfer.lambda_bs"])
        assert reference == "V[{:g},{:g}]".format(*lambdas)


def test_table_vi_is_as_printed() -> None:
    assert TABLES["VI"].row_names == ("channel attention", "spatial attention")
    assert printed("VI") == {
        "VI[no,no]": 47.82, "VI[yes,no]": 48.69, "VI[no,yes]": 48.12, "VI[yes,yes]": 48.90,
    }  # fmt: skip


def built(config: RunConfig) -> tuple[str, str]:
    """Which parts and views are on: c s m a (channel, spatial, multi-scale, association), e d."""
    network = config.network
    parts = (
        network.channel_attention, network.spatial_attention, network.multi_scale_atrous,
        network.context_association,
    )  # fmt: skip
    views = (config.views.enhanced, config.views.decreased)
    return tuple(
        "".join(letter for letter, on in zip(letters, switches, strict=True) if on)
        for letters, switches in (("csma", parts), ("ed", views))
    )


def test_each_cell_switches_on_what_its_row_names() -> None:
    expected = {
        "III[no,no]": ("csma", ""), "III[yes,no]": ("csma", "e"), "III[no,yes]": ("csma", "d"),
        "III[yes,yes]": ("csma", "ed"),
        "IV[no,no,no]": ("", ""), "IV[yes,no,no]": ("m", ""), "IV[no,yes,no]": ("a", ""),
        "IV[yes,yes,yes]": ("csma", ""),
        "VI[no,no]": ("", ""), "VI[yes,no]": ("c", ""), "VI[no,yes]": ("s", ""),
        "VI[yes,yes]": ("cs", ""),
    }  # fmt: skip
    found = {
        reference: built(apply_overrides(PAPER, cell.overrides))
        for table in TABLES.values()
        for reference, cell in table.cells()
    }
    assert found == expected | dict.fromkeys(printed("V"), ("csma", "ed"))


# The plan


def test_the_28_cells_of_the_four_tables_are_25_configurations(plan: Plan) -> None:
    assert len(plan.cell_trials) == sum(len(printed(name)) for name in TABLES) == 28
    assert plan.num_configs == 25
    assert len({config_id(trial.config) for trial in plan.trials}) == 25
    shared = {trial.cells for trial in plan.trials if len(trial.cells) > 1}
    assert shared == {
        ("III[no,no]", "IV[yes,yes,yes]"), ("III[yes,yes]", "V[0.5,0.5]"),
        ("IV[no,no,no]", "VI[no,no]"),
    }  # fmt: skip


def test_shared_cells_print_one_number_in_the_paper(plan: Plan) -> None:
    papers = {name: value for table in TABLES for name, value in printed(table).items()}
    for trial in plan.trials:
        assert len({papers[cell] for cell in trial.cells}) == 1


def test_seed_0_of_every_configuration_comes_first(plan: Plan) -> None:
    assert plan.seeds == (0, 1, 2)
    seeds = [trial.config.rng_seed for trial in plan.trials]
    assert seeds == [0] * 25 + [1] * 25 + [2] * 25
    orders = [[t.cells for t in plan.trials[start : start + 25]] for start in (0, 25, 50)]
    assert orders[0] == orders[1] == orders[2]


def test_every_trial_has_ids_of_its_own(plan: Plan) -> None:
    assert len({trial.run_id for trial in plan.trials}) == 75
    assert len({trial.cam_id for trial in plan.trials}) == 75
    for trial in plan.trials:
        assert (trial.run_id, trial.cam_id) == (run_id(trial.config), cam_id(trial.config))


def test_a_cell_finds_its_trials_in_the_order_of_seeds(plan: Plan) -> None:
    for reference, trials in plan.cell_trials.items():
        assert [trial.config.rng_seed for trial in trials] == [0, 1, 2]
        assert all(reference in trial.cells for trial in trials)
    assert plan.cell_trials["III[yes,yes]"] == plan.cell_trials["V[0.5,0.5]"]
    assert plan.cell_trials["V[0.1,0.5]"][2].name == "V[0.1,0.5] seed 2"
    assert plan.cell_trials["VI[no,no]"][0].name == "IV[no,no,no] = VI[no,no] seed 0"


def test_adding_seeds_or_tables_keeps_the_ids_of_the_trials_before(plan: Plan) -> None:
    one = make_plan(TABLES.values(), TINY, 1)
    assert one.trials == plan.trials[:25]
    alone = make_plan([TABLES["VI"]], TINY, 3)
    assert alone.num_configs == 4
    ids = {trial.run_id for trial in plan.trials}
    assert {trial.run_id for trial in alone.trials} < ids


def test_the_preset_carries_over_to_every_trial(plan: Plan) -> None:
    for trial in plan.trials:
        assert trial.config.train == TINY.train
        assert trial.config.network.backbone == "resnet10_narrow"
    paper = make_plan(TABLES.values(), PAPER, 1)
    assert paper.num_configs == 25
    assert not {t.run_id for t in paper.trials} & {t.run_id for t in plan.trials}


def test_a_seed_in_the_preset_does_not_change_the_plan(plan: Plan) -> None:
    assert make_plan(TABLES.values(), TINY.model_copy(update={"rng_seed": 9}), 3) == plan


def test_equal_cells_of_one_table_are_one_trial() -> None:
    table = small_table(
        "T",
        Row(("default",), (Cell({}, 1.0),)),
        Row(("same",), (Cell({"transfer.lambda_s": 0.1}, None),)),  # inert without a view
        Row(("other",), (Cell({"train.lr": 0.05}, None),)),
    )
    plan = make_plan([table], TINY, 1)
    assert [trial.cells for trial in plan.trials] == [("T[default]", "T[same]"), ("T[other]",)]


@pytest.mark.parametrize("num_seeds", [0, -1])
def test_a_plan_without_a_seed_is_refused(num_seeds: int) -> None:
    with pytest.raises(ValueError, match=rf"{num_seeds} seeds; give at least 1"):
        make_plan(TABLES.values(), TINY, num_seeds)


def test_a_cell_with_an_invalid_setting_is_refused_by_its_key() -> None:
    for overrides, message in (
        ({"train.lrr": 1}, r"'train\.lrr'; did you mean train\.lr\?"),
        ({"train.lr": -1}, r"train\.lr = -1"),
    ):
        table = small_table("T", Row(("wrong",), (Cell(overrides, None),)))
        with pytest.raises(ConfigError, match=message):
            make_plan([table], TINY, 1)


def test_one_table_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match=r"VI\[no,no\]"):
        make_plan([TABLES["VI"], TABLES["VI"]], TINY, 1)


def test_two_tables_whose_cells_have_one_name_are_refused() -> None:
    first = small_table("T", Row(("a",), (Cell({}, None),)))
    second = small_table("T", Row(("a",), (Cell({"train.lr": 0.05}, None),)))
    with pytest.raises(ValueError, match=r"T\[a\]"):
        make_plan([first, second], TINY, 1)


# Malformed tables


@pytest.mark.parametrize(
    ("labels", "num_cells"), [((), 2), (("a", "b"), 2), (("a",), 1), (("a",), 3)]
)
def test_a_row_with_too_few_or_too_many_labels_or_cells_is_refused(
    labels: tuple[str, ...], num_cells: int
) -> None:
    good = Row(("fine",), (Cell({}, 1.0), Cell({}, 2.0)))
    row = Row(labels, (Cell({}, None),) * num_cells)
    with pytest.raises(ValueError, match=r"table T, row .* expected 1 and 2") as caught:
        Table("T", "a table", ("row",), "column", ("x", "y"), (good, row))
    assert f"{len(labels)} labels and {num_cells} cells" in str(caught.value)


def test_rows_with_equal_labels_are_refused() -> None:
    rows = (Row(("a",), (Cell({}, None),)), Row(("a",), (Cell({"train.lr": 0.05}, None),)))
    with pytest.raises(ValueError, match=r"T\[a\]"):
        small_table("T", *rows)


def test_columns_with_equal_names_are_refused() -> None:
    row = Row(("a",), (Cell({}, None), Cell({"train.lr": 0.05}, None)))
    with pytest.raises(ValueError, match=r"T\[a,x\]"):
        Table("T", "a table", ("row",), "column", ("x", "x"), (row,))


def test_a_trial_names_its_cells_and_seed() -> None:
    trial = Trial(TINY.model_copy(update={"rng_seed": 4}), "r", "c", ("T[a]", "U[b]"))
    assert trial.name == "T[a] = U[b] seed 4"
