"""A sweep: which tables, from which preset, on which data. Written down before anything runs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.plan.trials import Plan, make_plan
from sweeps.store.code_version import code_version
from sweeps.store.store import Store, StoreError, read_json, write_json
from sweeps.tables.studies import TABLES, by_alias
from wsss.config import RunConfig
from wsss.identity import config_id
from wsss.overrides import ConfigError, apply_overrides, validate
from wsss.printable import printable, quoted
from wsss.recipes import named_config
from wsss.weights import resolve_weights

if TYPE_CHECKING:
    from wsss.data.check import DataReport


@dataclass(frozen=True)
class Sweep:
    """Everything that the sweep's commands need to know, and nothing that changes while it runs."""

    table_names: tuple[str, ...]
    preset: str
    """With its recipe, as wsss/recipes.py names both."""
    base: RunConfig
    """The preset with data, weights and the user's settings; the tables' cells go on top."""
    num_seeds: int
    data: Path
    weights_file: Path | None
    num_train_images: int
    num_eval_images: int

    @property
    def name(self) -> str:
        """Equal for equal tables and settings, so that the same command finds its sweep again."""
        tables = "-".join(self.table_names)
        return f"{tables}-{self.preset}-{self.base.data.name}-{config_id(self.base)[:6]}"

    @cached_property
    def plan(self) -> Plan:
        """The sweep's trials."""
        return make_plan([TABLES[name] for name in self.table_names], self.base, self.num_seeds)

    def describe(self) -> str:
        """Return the line under which every result stands: data, network, training, seeds."""
        network, train, data = self.base.network, self.base.train, self.base.data
        weights = network.weights if ":" not in network.weights else f"file {network.weights[7:15]}"
        epochs = f"{train.epochs} epoch{'' if train.epochs == 1 else 's'}"
        seeds = "seed 0" if self.num_seeds == 1 else f"seeds 0-{self.num_seeds - 1}"
        return (
            f"data {data.name} [{data.fingerprint}]: {self.num_train_images} images trained "
            f"({data.train_split}), {self.num_eval_images} scored ({data.eval_split}) | "
            f"backbone {network.backbone}, weights {weights} | "
            f"{epochs}, batch {train.batch_size}, crop {train.crop_size} | {seeds} | "
            f"preset {self.preset}"
        )


def make_sweep(
    table_names: Sequence[str],
    *,
    preset: str,
    data: Path,
    weights: str | None,
    num_seeds: int,
    overrides: dict[str, Any],
    recheck: bool = False,
) -> "tuple[Sweep, DataReport]":
    """Plan a sweep on a data set, which is checked from end to end first.

    preset: with its recipe, if it is not the default one (`with_recipe`).
    A data set that was found whole and has not changed since is not read again unless `recheck`.
    Raises ConfigError, DataError or WeightsError, each naming what is wrong and the remedy.
    """
    from wsss.data.check import check_data_once  # a sweep that is read needs no data set
    from wsss.data.voc import VocDataset

    table_names = by_alias(table_names)
    unknown = [name for name in table_names if name not in TABLES]
    if unknown or not table_names:
        raise ConfigError(
            f"no table {printable(', '.join(unknown))}; there are: {', '.join(TABLES)}"
        )
    base = named_config(preset)
    weights_name, weights_file = resolve_weights(weights, base.network.weights)
    base = apply_overrides(base, {"network.weights": weights_name} | overrides)
    dataset = VocDataset(data.absolute())
    splits = sorted({base.data.train_split, base.data.eval_split})
    report = check_data_once(dataset, splits, recheck=recheck)
    report.raise_if_broken()
    base = apply_overrides(base, data_settings(report, data, base.data.train_split))
    sweep = Sweep(
        table_names=tuple(sorted(set(table_names), key=list(TABLES).index)),
        preset=preset,
        base=base,
        num_seeds=num_seeds,
        data=dataset.root,
        weights_file=weights_file,
        num_train_images=report.num_images[base.data.train_split],
        num_eval_images=report.num_images[base.data.eval_split],
    )
    _ = sweep.plan  # refuses a cell that does not fit these settings
    return sweep, report


def data_settings(report: "DataReport", root: Path, train_split: str) -> dict[str, str]:
    """Return the settings that name a checked data set by its content."""
    return {
        "data.name": data_name(root),
        "data.fingerprint": report.fingerprint,
        "data.train_fingerprint": report.fingerprints[train_split],
    }


def data_name(root: Path) -> str:
    """Return a data set's name: its folder's, with unusual characters replaced by '-'."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", root.absolute().name).strip("-._")
    return name[:80] or "data"


def save_sweep(store: Store, sweep: Sweep) -> None:
    """Write the sweep's description, so that later commands need no data set."""
    saved = sweep_to_json(sweep) | {"code_version": code_version()}
    write_json(store.sweep(sweep.name) / "sweep.json", saved)


def sweep_to_json(sweep: Sweep) -> dict[str, Any]:
    """Return what `sweep_from_json` reads."""
    return {
        "tables": sweep.table_names,
        "preset": sweep.preset,
        "base": sweep.base.model_dump(mode="json"),
        "seeds": sweep.num_seeds,
        "data": str(sweep.data),
        "weights_file": str(sweep.weights_file) if sweep.weights_file else None,
        "train_images": sweep.num_train_images,
        "eval_images": sweep.num_eval_images,
    }


def report_folder(store: Store, sweep: Sweep) -> Path:
    """Return where a sweep's report lies by default."""
    return store.sweep(sweep.name) / "report"


def load_sweep(store: Store, name: str | None = None) -> Sweep:
    """Read a sweep's description, by default of the one started last.

    Raises StoreError if there is none.
    """
    names = store.sweep_names()
    if name is None and names:
        name = names[-1]
    if name is None or name not in names:
        raise StoreError(
            f"{store.root}: no sweep {printable(name or 'at all')}; there are: "
            f"{printable(', '.join(names)) or 'none'}; "
            "start one with `sweeps run`"
        )
    path = store.sweep(name) / "sweep.json"
    try:
        sweep = sweep_from_json(read_json(path))
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(
            f"{path}: not what `sweeps run` writes ({type(error).__name__}: {error}); give the "
            "sweep's `sweeps run` command again"
        ) from None
    return sweep


def sweep_from_json(saved: Any) -> Sweep:
    """Read a sweep.

    Raises KeyError, TypeError or ValueError for anything that `sweep_to_json` does not write.
    """
    unknown = [name for name in saved["tables"] if name not in TABLES]
    if unknown or not saved["tables"]:
        raise ValueError(f"no table {quoted(unknown)}; there are: {', '.join(TABLES)}")
    counts = [saved[key] for key in ("seeds", "train_images", "eval_images")]
    if not all(isinstance(count, int) and count > 0 for count in counts):
        raise ValueError(f"{quoted(counts)} is no number of seeds and of images")
    return Sweep(
        table_names=tuple(saved["tables"]),
        preset=str(saved["preset"]),
        base=validate(saved["base"]),
        num_seeds=counts[0],
        data=Path(saved["data"]),
        weights_file=Path(saved["weights_file"]) if saved["weights_file"] else None,
        num_train_images=counts[1],
        num_eval_images=counts[2],
    )
