"""From tables to trials: cells -> distinct configurations -> a trial per configuration and seed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sweeps.table import Cell, Table
from wsss.config import RunConfig
from wsss.identity import cam_id, canonical, config_id, run_id
from wsss.overrides import apply_overrides


@dataclass(frozen=True)
class Trial:
    """One training and its score."""

    config: RunConfig
    run_id: str
    cam_id: str
    cells: tuple[str, ...]
    """The cells it fills, e.g. ("III[yes,yes]", "V[0.5,0.5]")."""

    @property
    def name(self) -> str:
        """A name for people: its cells and seed."""
        return f"{' = '.join(self.cells)} seed {self.config.rng_seed}"


@dataclass(frozen=True)
class Plan:
    """All trials behind a set of tables."""

    tables: tuple[Table, ...]
    seeds: tuple[int, ...]
    trials: tuple[Trial, ...]
    """Seed 0 of every configuration first, so that a table is complete as early as possible."""
    cell_trials: Mapping[str, tuple[Trial, ...]]
    """Cell reference -> its trials, one per seed that it wants, in the order of `seeds`."""

    @property
    def num_configs(self) -> int:
        """The number of distinct configurations behind the cells."""
        return len({config_id(trial.config) for trial in self.trials})


def make_plan(tables: Iterable[Table], base: RunConfig, num_seeds: int) -> Plan:
    """Plan `num_seeds` trials (seeds 0, 1, ...) of each distinct configuration of the tables.

    `base` is the preset with its data set and weights; a cell's overrides are applied on top.
    Raises ConfigError for a cell whose overrides are not valid, ValueError without a seed.
    """
    if num_seeds < 1:
        raise ValueError(f"{num_seeds} seeds; give at least 1")
    tables = tuple(tables)
    configs: dict[str, RunConfig] = {}
    cells: dict[str, list[tuple[str, Cell]]] = {}
    seen: set[str] = set()
    for table in tables:
        for reference, cell in table.cells():
            if reference in seen:
                raise ValueError(f"two tables have a cell {reference}; name each table once")
            seen.add(reference)
            config = canonical(apply_overrides(base, cell.overrides))
            key = config_id(config)
            configs.setdefault(key, config)
            cells.setdefault(key, []).append((reference, cell))
    seeds = tuple(range(num_seeds))
    trials = []
    for seed in seeds:
        for key, config in configs.items():
            wanted = [name for name, cell in cells[key] if cell.wants(seed)]
            if wanted:
                trials.append(_trial(config.model_copy(update={"rng_seed": seed}), tuple(wanted)))
    by_cell: dict[str, list[Trial]] = {reference: [] for reference in seen}
    for trial in trials:
        for reference in trial.cells:
            by_cell.setdefault(reference, []).append(trial)
    return Plan(tables, seeds, tuple(trials), {key: tuple(value) for key, value in by_cell.items()})


def _trial(config: RunConfig, cells: tuple[str, ...]) -> Trial:
    return Trial(config, run_id(config), cam_id(config), cells)
