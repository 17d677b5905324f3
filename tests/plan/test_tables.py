"""Tables by name, from a file and from a grid."""

import dataclasses
import json
from collections.abc import Collection
from pathlib import Path

import pytest
from commands import sweeps
from made_up.finished import fill, finished_sweep

from sweeps.cli.service.sweep import chosen_tables
from sweeps.plan.run_command import run_command
from sweeps.plan.sweep import Sweep, load_sweep, save_sweep, with_tables
from sweeps.store.errors import StoreError
from sweeps.store.store import Store
from sweeps.tables.find import find_tables
from sweeps.tables.own import define_tables, definition, grid_table, parse_grid, read_tables
from sweeps.tables.paper import BOTH_VIEWS, TABLE_V
from sweeps.tables.studies import TABLES
from sweeps.tables.table import Table
from wsss.overrides import ConfigError, apply_overrides

JITTER = """
name: jitter
title: Colour jitter with and without the views
row_names: [jitter]
column_name: views
columns:
  none: {}
  both: {views.enhanced: true, views.decreased: true}
settings: {network.channel_attention: true}
rows:
  - labels: [none]
    paper: [48.69, null]
  - labels: [0.3]
    settings: {train.color_jitter: 0.3}
baseline: none,both
"""


@pytest.fixture
def jitter(tmp_path: Path) -> Path:
    path = tmp_path / "jitter.yaml"
    path.write_text(JITTER)
    return path


def own_sweep(*tables: Table) -> Sweep:
    sweep = finished_sweep(tuple(table.name for table in tables), 1)
    return dataclasses.replace(sweep, own_tables=tables)


def test_tables_are_found_by_name_and_alias_in_the_order_of_the_paper() -> None:
    found = find_tables(["noise-floor", "lambdas", "III", "V"])
    assert [table.name for table in found] == ["III", "V", "noise-floor"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("controlls", "did you mean controls"),
        ("Noise_Floor", r"did you mean noise-floor\?"),
        ("lambda", r"did you mean lambdas\?"),
        ("xyz", "there are: III, IV, V, VI, noise-floor"),
    ],
)
def test_an_unknown_table_is_refused_with_those_spelled_alike(name: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=f"no table '{name}'; {hint}"):
        find_tables([name])


def test_a_cell_of_a_file_has_the_settings_of_table_row_and_column(jitter: Path) -> None:
    (table,) = read_tables(jitter)
    cells = dict(table.cells())
    attention = {"network.channel_attention": True}
    both = BOTH_VIEWS
    assert {name: cell.overrides for name, cell in cells.items()} == {
        "jitter[none,none]": attention,
        "jitter[none,both]": attention | both,
        "jitter[0.3,none]": attention | {"train.color_jitter": 0.3},
        "jitter[0.3,both]": attention | {"train.color_jitter": 0.3} | both,
    }
    assert [cell.paper for cell in cells.values()] == [48.69, None, None, None]
    assert table.baseline == "jitter[none,both]"
    assert define_tables([definition(table)], "") == (table,)


def test_a_baseline_is_one_cell_or_a_row_with_one_for_each_column(jitter: Path) -> None:
    (cell,) = read_tables(jitter)
    assert set(cell.baselines().values()) == {cell.baseline_name} == {"jitter[none,both]"}
    jitter.write_text(JITTER.replace("baseline: none,both", "baseline: none"))
    (row,) = read_tables(jitter)
    assert row.baselines() == {
        f"jitter[{label},{views}]": f"jitter[none,{views}]"
        for label in ("none", "0.3")
        for views in ("none", "both")
    }
    assert row.baseline_name == "jitter[none] of the same views"
    assert define_tables([definition(row)], "") == (row,)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("name: jitter", "", "name: Field required; docs/tables.md shows a table file"),
        ("name: jitter", "name: V", "name: V is a table of the project; choose another"),
        ("name: jitter", "name: ../x", "name: String should match pattern"),
        ("  none: {}", "  true: {}\n  yes: {}", "columns: a column is named twice"),
        ("[48.69, null]", "[48.69]", "row none: 2 cells and 1 paper number for 2 columns"),
        ("[48.69, null]", "[4869, null]", "rows.0.paper.0: must be less than or equal to 100"),
        ("labels: [0.3]", "labels: [none]", r"two cells are called jitter\[none,none\]"),
        ("train.color_jitter", "rng_seed", "rng_seed: .*give their number with --seeds"),
        ("train.color_jitter", "data.name", "'data.name': a sweep has one data set"),
        ("none,both", "none,bot", r"baseline jitter\[none,bot\] is not one of its cells or rows"),
        (JITTER, "- jitter\n", "must be names with their values, as `name: value`; "),
        (JITTER, "own_tables:\n", "own_tables must be a list of tables; "),
        ("[jitter]", "jitter", "row_names: must be a list, as `\\[a, b\\]`; "),
    ],
)
def test_a_wrong_file_is_refused_with_file_field_and_rule(
    jitter: Path, old: str, new: str, said: str
) -> None:
    assert old in JITTER
    jitter.write_text(JITTER.replace(old, new))
    with pytest.raises(ConfigError, match=f"^{jitter}: .*{said}"):
        read_tables(jitter)


def test_a_setting_that_a_cell_of_a_file_gets_wrong_is_refused_with_file_and_cell(
    jitter: Path,
) -> None:
    jitter.write_text(JITTER.replace("color_jitter: 0.3", "color_jitter: -3"))
    shown = sweeps("plan", "--table", jitter, "--data", "/nowhere", "--preset", "short")
    assert shown.exit_code == 2
    assert f"error: {jitter}: jitter[0.3,none]: train.color_jitter = -3" in shown.output


def grid(*words: str, asked: Collection[str] = ()) -> Table:
    return grid_table(parse_grid(words), asked)


def test_a_grid_of_two_settings_is_table_v_without_its_printed_numbers() -> None:
    table = grid(*(f"transfer.{name}=.1,.2,.5,1.0" for name in ("lambda_s", "lambda_bs")))
    assert (table.name, table.columns) == ("grid-lambda_s-lambda_bs", ("0.1", "0.2", "0.5", "1.0"))
    assert [cell.overrides for _, cell in table.cells()] == [
        cell.overrides for _, cell in TABLE_V.cells()
    ]


def test_a_grid_of_three_settings_has_a_row_for_each_combination() -> None:
    words = ("views.enhanced=true,false", "labels.resize=bicubic", "train.resize=bilinear,bicubic")
    table = grid(*words, asked=["views.decreased"])
    assert table.row_names == ("enhanced", "labels.resize", "train.resize")
    assert table.columns == ("mIoU",)
    assert [row.labels for row in table.rows] == [
        (enhanced, "bicubic", resize)
        for enhanced in ("true", "false")
        for resize in ("bilinear", "bicubic")
    ]
    _, cell = next(table.cells())
    assert cell.overrides["views.enhanced"] is True
    assert "views.decreased" not in cell.overrides


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"table', r"not JSON \(.*\)"),
        ("[]", r"not what .* writes \(must be names with their values, as .*\)"),
    ],
)
def test_a_broken_description_of_a_sweep_is_written_again_by_its_command(
    store: Store, text: str, said: str
) -> None:
    sweep = finished_sweep(("III",), 1)
    save_sweep(store, sweep)
    (path := store.sweep(sweep.name) / "sweep.json").write_text(text)
    with pytest.raises(StoreError, match=f"^{path}: {said}; give the `sweeps run` command again$"):
        load_sweep(store, sweep.name)
    save_sweep(store, sweep)
    assert load_sweep(store, sweep.name) == sweep


def test_a_sweep_keeps_its_own_tables_for_later_commands(tmp_path: Path, jitter: Path) -> None:
    sweep = own_sweep(*read_tables(jitter), grid("train.lr=1e-5,.00002"))
    store = Store(tmp_path / "results")
    fill(store, sweep, lambda trial: 0.5)
    assert load_sweep(store, sweep.name) == sweep
    path = store.sweep(sweep.name) / "sweep.json"
    command, file = run_command(sweep, store), tmp_path / "w.pt"
    assert f"--table {path}" in command
    assert "--weights" not in command
    base = apply_overrides(sweep.base, {"network.weights": "sha256:" + "0" * 64})
    assert f"--weights {file} " in run_command(
        dataclasses.replace(sweep, base=base, weights_file=file), store
    )
    again = own_sweep(*read_tables(path))
    assert again.name == sweep.name
    some = with_tables(sweep, ["jitter"])
    assert f"run jitter --table {path}" in run_command(some, store)
    assert chosen_tables(["jitter"], [path], None, None) == [*read_tables(jitter)]
    shown = sweeps("status", "--json", "--store", store.root)
    cells = [cell["cell"] for cell in json.loads(shown.output)["cells"]]
    assert cells[0] == "jitter[none,none]"
    assert cells[-1] == "grid-lr[2e-05]"
    report = sweeps("report", "jitter", "--no-log", "--store", store.root)
    assert "Colour jitter with and without" in report.output


def test_another_title_leaves_a_sweep_its_name_and_other_cells_do_not(jitter: Path) -> None:
    (table,) = read_tables(jitter)
    name = own_sweep(table).name
    assert own_sweep(dataclasses.replace(table, title="else")).name == name
    jitter.write_text(JITTER.replace("color_jitter: 0.3", "color_jitter: 0.2"))
    assert own_sweep(*read_tables(jitter)).name != name


def test_a_sweep_of_all_tables_has_a_name_that_fits_a_folder() -> None:
    every = finished_sweep(tuple(TABLES), 1)
    assert every.name.startswith("III-IV-V-VI-noise-floor-")
    base = apply_overrides(every.base, {"data.name": "x" * 80})
    some = dataclasses.replace(every, table_names=every.table_names[1:])
    names = {dataclasses.replace(sweep, base=base).name for sweep in (some, every)}
    assert [len(name) < 255 for name in names] == [True, True]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["transfer.lambda_s"], "names no values; write it as transfer.lambda_s=.1,.5"),
        (["transfer.lambda_s=,"], "names no values"),
        (["train.lr=.1", "train.lr=.2"], "'train.lr' twice; put all its values into one"),
        (["train.lr=.1,0.1"], "gives a value twice; give it once"),
        (["rng_seed=0,1"], "--grid: rng_seed: .*--seeds"),
        ([f"train.{key}=1,2,3,4,5,6,7,8" for key in "abcd"], "4,096 cells; at most 1,000"),
    ],
)
def test_a_wrong_grid_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        grid(*words)
