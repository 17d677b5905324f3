"""A sweep: which tables, from which preset, on which data. Saved before anything runs."""

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, InstanceOf, PlainSerializer, TypeAdapter

from sweeps.plan.trials import Plan, make_plan
from sweeps.store.code_version import code_version
from sweeps.store.errors import StoreError
from sweeps.store.store import Store, read_description, write_json
from sweeps.tables.find import find_tables
from sweeps.tables.own import SWEEP_KEY, define_tables, definition
from sweeps.tables.table import MAX_SEEDS, Table
from wsss.basics.printable import command, counted, printable, quoted
from wsss.config import RunConfig
from wsss.identity import config_id, idle
from wsss.networks.initial_weights import check_initial_weights
from wsss.overrides import ConfigError, Settled, apply_overrides, settle
from wsss.recipes import named_config

if TYPE_CHECKING:
    from wsss.data.report import DataReport

OF_THE_DATA = ("data.name", "data.fingerprint", "data.train_fingerprint")
"""Settings that say which data set it is; they follow from --data."""
MAX_NAME = 255
"""Characters of a folder's name."""


@dataclass(frozen=True)
class Sweep:
    """Everything that the sweep's commands need, and nothing that changes while it runs."""

    table_names: Annotated[tuple[str, ...], Field(alias="tables")]
    preset: str
    """Preset and recipe, as wsss/recipes.py names them."""
    base: RunConfig
    """The preset with data, weights and the user's settings; cells override it."""
    num_seeds: Annotated[int, Field(alias="seeds", gt=0, le=MAX_SEEDS, strict=True)]
    data: Path
    weights_file: Path | None
    num_train_images: Annotated[int, Field(alias="train_images", gt=0, strict=True)]
    num_eval_images: Annotated[int, Field(alias="eval_images", gt=0, strict=True)]
    own_tables: Annotated[
        tuple[InstanceOf[Table], ...],
        BeforeValidator(lambda saved: define_tables(saved, SWEEP_KEY)),
        PlainSerializer(lambda tables: [definition(table) for table in tables]),
    ] = ()
    """Tables from outside the project."""
    part_of: Annotated[str, Field(exclude=True)] = ""
    """The stored sweep that these tables belong to; "" for a sweep of its own."""

    @property
    def name(self) -> str:
        """Equal for equal tables and settings, so that the same command finds its sweep again."""
        tables = "-".join(self.table_names)
        rest = f"{self.preset}-{self.base.data.name}-{self._digest[:6]}"
        if len(tables) + len(rest) >= MAX_NAME:
            digest = hashlib.sha256(tables.encode()).hexdigest()[:6]
            tables = f"{len(self.table_names)}-tables-{digest}"
        return f"{tables}-{rest}"

    @cached_property
    def _digest(self) -> str:
        """Digest of the settings, and of cells that do not follow from those of the base.

        They are those of tables from outside the project, and all if a setting that has no effect
        on the base, as one of the views, has one on them, and is not the preset's.
        """
        digest, tables = config_id(self.base), self.own_tables
        usual, own = named_config(self.preset).flat(), self.base.flat()
        changed = idle(self.base, [key for key in own if own[key] != usual[key]], config_id)
        if changed:
            all_tables = find_tables(self.table_names, self.own_tables)
            plain = apply_overrides(self.base, {key: usual[key] for key in changed})
            if _cells(all_tables, self.plan) != _cells(all_tables, make_plan(all_tables, plain, 1)):
                tables = all_tables
        if tables:
            is_planned = {table.name for table in tables} <= {*self.table_names}
            plan = self.plan if is_planned else make_plan(tables, self.base, 1)
            cells = f"{digest} {_cells(tables, plan)}"
            digest = hashlib.sha256(cells.encode()).hexdigest()
        return digest

    @cached_property
    def plan(self) -> Plan:
        """The sweep's trials."""
        return make_plan(find_tables(self.table_names, self.own_tables), self.base, self.num_seeds)

    def describe(self) -> str:
        """Return the line above every result: data, network, training, seeds."""
        network, train, data = self.base.network, self.base.train, self.base.data
        weights = network.weights if ":" not in network.weights else f"file {network.weights[7:15]}"
        seeds = "seed 0" if self.num_seeds == 1 else f"seeds 0-{self.num_seeds - 1}"
        return (
            f"data {data.name} [{data.fingerprint}]: {self.num_train_images:,} images trained "
            f"({data.train_split}), {self.num_eval_images:,} scored ({data.eval_split}) | "
            f"backbone {network.backbone}, weights {weights} | "
            f"{counted(train.epochs, 'epoch')}, batch {train.batch_size}, crop {train.crop_size} | "
            f"{seeds} | preset {self.preset}"
        )


def _cells(tables: Sequence[Table], plan: Plan) -> list[tuple[str, str]]:
    """Return (cell, run_id of its first seed) of all cells of some of a plan's tables."""
    names = (name for table in tables for name, _ in table.cells())
    return sorted((name, plan.cell_trials[name][0].run_id) for name in names)


@dataclass(frozen=True)
class BaseOptions:
    """The options of a command from which the base of all its trainings follows."""

    preset: str
    """With its recipe, unless it is the default one (`with_recipe`)."""
    data: Path
    weights: str | None = None
    """Name or file; None: those of the preset."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of `--set`: dotted setting -> value."""
    recheck: bool = False
    """Read the data set again, even if it was found whole and has not changed since."""


def make_sweep(
    tables: Sequence[str | Table], options: BaseOptions, num_seeds: int = 1
) -> "tuple[Sweep, DataReport]":
    """Plan a sweep on a data set, which is fully checked first.

    tables: names, or tables from outside the project.
    Raises ConfigError, DataError or WeightsError, each naming what is wrong and the remedy.
    """
    from wsss.data.check import require_batch  # not needed to load a sweep

    planned, settled = settled_tables(tables, options.preset, options.settings, options.weights)
    report, base = checked_data(settled, options.data, recheck=options.recheck)
    sweep = Sweep(
        table_names=tuple(table.name for table in planned),
        preset=options.preset,
        base=base,
        num_seeds=num_seeds,
        data=options.data.absolute(),
        weights_file=settled.weights_file,
        num_train_images=report.num_images[base.data.train_split],
        num_eval_images=report.num_images[base.data.eval_split],
        own_tables=tuple(table for table in planned if table in tables),
    )
    for trial in sweep.plan.trials:  # planning refuses a cell that does not fit the settings
        require_batch(sweep.num_train_images, trial.config.train.batch_size)
    check_initial_weights((trial.config.network for trial in sweep.plan.trials), sweep.weights_file)
    return sweep, report


def settled_tables(
    tables: Sequence[str | Table], preset: str, settings: Mapping[str, Any], weights: str | None
) -> tuple[tuple[Table, ...], Settled]:
    """Return the tables, and the settings that they are to be run with.

    preset, settings, weights: as in `BaseOptions`. Raises ConfigError or WeightsError.
    """
    own_tables = [table for table in tables if isinstance(table, Table)]
    names = [table.name if isinstance(table, Table) else table for table in tables]
    planned = find_tables(names, own_tables)
    settled = settle(named_config(preset), settings, weights=weights)
    for table in own_tables:
        _require_fitting(table, settled.config)
    require_left_to_settings(planned, settled)
    return planned, settled


def _require_fitting(table: Table, base: RunConfig) -> None:
    """Raise ConfigError naming the first cell that does not fit the settings, and its file."""
    for reference, cell in table.cells():
        try:
            apply_overrides(base, cell.overrides)
        except ConfigError as error:
            parts = table.source, reference, str(error).splitlines()[0]
            raise ConfigError(": ".join(filter(None, parts))) from None


def require_left_to_settings(tables: Sequence[Table], settled: Settled) -> None:
    """Raise ConfigError if a table's cells vary a setting that the user set."""
    if settled.config.rng_seed and "rng_seed" in settled.asked:
        raise ConfigError(
            f"--set rng_seed={settled.config.rng_seed}: the seeds of a table are 0, 1, ...; give "
            "their number with --seeds instead"
        )
    for table in tables:
        cells = dict(table.cells())
        for key in settled.asked:
            own = {name: c.overrides[key] for name, c in cells.items() if key in c.overrides}
            others = [
                name
                for name, value in own.items()
                if apply_overrides(settled.config, {key: value}) != settled.config
            ]
            if own and (others or len(own) < len(cells)):
                name = (others or list(own))[0]
                raise ConfigError(
                    f"{key} = {quoted(settled.asked[key])}: table {table.name} varies it, "
                    f"{name} has {own[name]}; leave it out, or choose another table"
                )


def checked_data(
    settled: Settled, data: Path, *, recheck: bool = False, only_trains: bool = False
) -> "tuple[DataReport, RunConfig]":
    """Check the splits that are trained and scored; return the report, and settings for this data.

    A data set that was found whole and has not changed since is read again only if `recheck`.
    only_trains: nothing is scored, so that labels are enough. Raises DataError, and ConfigError
    if the user asked for another name or fingerprint of the data.
    """
    from wsss.data.check import check_data_once
    from wsss.data.voc import VocDataset

    trained, scored = settled.config.data.train_split, settled.config.data.eval_split
    splits = sorted({trained, scored})
    dataset = VocDataset(data.absolute())
    masked = [] if only_trains else [scored]
    report = check_data_once(dataset, splits, scored=masked, recheck=recheck)
    report.raise_if_broken()
    of_the_data = (data_name(data), report.fingerprint, report.training_fingerprints[trained])
    named = dict(zip(OF_THE_DATA, of_the_data, strict=True))
    for key, value in named.items():
        if settled.asked.get(key, value) != value:
            raise ConfigError(
                f"{key} = {quoted(settled.asked[key])}: that of {data} is {value}; leave it "
                "out, or give the intended data set with --data"
            )
    return report, apply_overrides(settled.config, named)


def data_name(root: Path) -> str:
    """Return a data set's name: its folder's, with unusual characters replaced by '-'."""
    folder = Path(os.path.normpath(root.absolute()))  # `..` is a folder with a name
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.name).strip("-._")
    return name[:80] or "data"


def save_sweep(store: Store, sweep: Sweep) -> None:
    """Save the sweep's description, so that later commands need no data set."""
    saved = sweep_to_json(sweep) | {"code_version": code_version()}
    write_json(store.sweep(sweep.name) / "sweep.json", saved)


def sweep_to_json(sweep: Sweep) -> dict[str, Any]:
    """Return what `sweep_from_json` reads."""
    saved: dict[str, Any] = TypeAdapter(Sweep).dump_python(sweep, mode="json", by_alias=True)
    return saved


def with_tables(sweep: Sweep, names: Sequence[str], num_seeds: int | None = None) -> Sweep:
    """Return the sweep with other tables, by default its own, and the same settings.

    num_seeds: default: the sweep's. Raises ConfigError for an unknown table.
    """
    tables = find_tables(names or sweep.table_names, sweep.own_tables)
    return replace(
        sweep,
        table_names=tuple(table.name for table in tables),
        num_seeds=num_seeds or sweep.num_seeds,
        part_of=sweep.name,
    )


def report_folder(store: Store, sweep: Sweep) -> Path:
    """Return the default folder of a sweep's report."""
    return store.sweep(sweep.name) / "report"


def load_sweep(store: Store, name: str | None = None) -> Sweep:
    """Read a sweep's description, by default that of the last one started.

    Raises StoreError if there is none, ForeignFileError for one that this version cannot use.
    """
    names = store.sweep_names()
    if name is None and names:
        name = names[-1]
    if name is None or name not in names:
        raise StoreError(
            f"{store.address}: no sweep {printable(name or 'at all')}; there are: "
            f"{printable(', '.join(names)) or 'none'}; check --store and --sweep, or start one, "
            f"e.g. with: {command('sweeps', 'run', 'V', '--store', store.address)}"
        )
    return read_description(store.sweep(name) / "sweep.json", "sweeps run", sweep_from_json)


def sweep_from_json(saved: Any) -> Sweep:
    """Read a sweep. Raises ValueError for anything but what `sweep_to_json` returns."""
    sweep = TypeAdapter(Sweep).validate_python(saved)
    tables = find_tables(sweep.table_names, sweep.own_tables)
    return replace(sweep, table_names=tuple(table.name for table in tables))
