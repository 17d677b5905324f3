"""From tables to trials: cells -> distinct configurations -> a trial per configuration and seed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from statistics import fmean

from sweeps.tables.table import Cell, Table
from wsss.config import RunConfig
from wsss.identity import Ids, canonical, ids_of_seeds
from wsss.overrides import apply_overrides


@dataclass(frozen=True)
class Trial:
    """One training and its score."""

    config: RunConfig
    run_id: str
    cam_id: str
    cells: tuple[str, ...]
    """The cells that it fills, e.g. ("III[yes,yes]", "V[0.5,0.5]")."""

    @property
    def name(self) -> str:
        """Display name: its cells and seed."""
        return f"{' = '.join(self.cells)} seed {self.config.rng_seed}"


@dataclass(frozen=True)
class Plan:
    """All trials behind a set of tables."""

    tables: tuple[Table, ...]
    seeds: tuple[int, ...]
    trials: tuple[Trial, ...]
    """Seed 0 of every configuration first, so that tables are filled as early as possible."""
    cell_trials: Mapping[str, tuple[Trial, ...]]
    """Cell reference -> its trials, one per seed that the cell wants, in the order of `seeds`."""
    configs: tuple[tuple[Trial, ...], ...]
    """The trials of each distinct configuration, in the order of `seeds`."""

    @cached_property
    def run_ids(self) -> frozenset[str]:
        """Those of all trials."""
        return frozenset(trial.run_id for trial in self.trials)


def best_configuration(
    plan: Plan, mious: Mapping[str, float]
) -> tuple[tuple[Trial, ...], float] | None:
    """Return (trials, mean) of the configuration with the highest mean over its seeds, or None.

    mious: run id -> percent, of finished trials. Configurations with a missing seed do not count;
    of equals, the one planned first wins.
    """
    means = [
        (trials, fmean(mious[trial.run_id] for trial in trials))
        for trials in plan.configs
        if all(trial.run_id in mious for trial in trials)
    ]
    return max(means, key=lambda mean: mean[1], default=None)


def groups_of(trials: Iterable[Trial]) -> tuple[tuple[Trial, ...], ...]:
    """Return trials grouped by training, in order; a group needs only one training."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(trial.cam_id, []).append(trial)
    return tuple(map(tuple, groups.values()))


def make_plan(tables: Iterable[Table], base: RunConfig, num_seeds: int) -> Plan:
    """Plan `num_seeds` trials (seeds 0, 1, ...), 1 or more, of each configuration of the tables.

    base: the preset with data set and weights, to which a cell's overrides are applied.
    Raises ConfigError for invalid overrides.
    """
    tables, seeds = tuple(tables), tuple(range(num_seeds))
    by_cell: dict[str, list[Trial]] = {}
    found: dict[str, tuple[RunConfig, list[Ids], list[tuple[str, Cell]]]] = {}
    """run_id of seed 0 -> a distinct configuration, its ids per seed, its cells."""
    for table in tables:
        for reference, cell in table.cells():
            if reference in by_cell:
                raise ValueError(f"two tables have a cell {reference}; name each table once")
            by_cell[reference] = []
            config = canonical(apply_overrides(base, cell.overrides))
            ids = ids_of_seeds(config, seeds)
            found.setdefault(ids[0].run_id, (config, ids, []))[2].append((reference, cell))
    configs = tuple(trials for each in found.values() if (trials := _trials_of(*each)))
    for trials in configs:
        for trial in trials:
            for reference in trial.cells:
                by_cell[reference].append(trial)
    in_order = sorted(chain.from_iterable(configs), key=lambda trial: trial.config.rng_seed)
    cell_trials = {reference: tuple(trials) for reference, trials in by_cell.items()}
    return Plan(tables, seeds, tuple(in_order), cell_trials, configs)


def _trials_of(
    config: RunConfig, ids: list[Ids], cells: list[tuple[str, Cell]]
) -> tuple[Trial, ...]:
    """Return a trial for each seed that any of a configuration's cells wants; ids: one per seed."""
    trials = []
    for seed, (run_id, cam_id) in enumerate(ids):
        names = tuple(name for name, cell in cells if cell.wants(seed))
        if names and config.rng_seed != seed:
            config = config.model_copy(update={"rng_seed": seed})
        if names:
            trials.append(Trial(config, run_id, cam_id, names))
    return tuple(trials)
