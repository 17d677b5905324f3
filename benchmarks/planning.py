"""Planning a grid of 10,000 cells: all at once against each cell on its own.

Usage: python benchmarks/planning.py.
"""

from functools import partial

from ratios import faster

from sweeps.plan.trials import make_plan
from sweeps.tables.studies import F3
from sweeps.tables.table import Cell, Row, Table
from wsss.config import RunConfig
from wsss.identity import cam_id, canonical, config_id, run_id
from wsss.overrides import apply_overrides
from wsss.presets import TINY

ROUNDS, NUM_SEEDS = 3, 3


def grid(size: int) -> Table:
    """Return a table of size x size cells over lambda_s and lambda_bs."""
    values = [step / size for step in range(1, size + 1)]
    rows = [
        Row(
            (f"{lambda_s:g}",),
            tuple(
                Cell(F3 | {"transfer.lambda_s": lambda_s, "transfer.lambda_bs": lambda_bs}, None)
                for lambda_bs in values
            ),
        )
        for lambda_s in values
    ]
    columns = tuple(f"{value:g}" for value in values)
    return Table("grid", "a grid", ("lambda_s",), "lambda_bs", columns, tuple(rows))


def one_by_one(table: Table) -> list[tuple[str, str]]:
    """Return run and CAM ids of all trials, each cell and seed computed on its own."""
    configs: dict[str, RunConfig] = {}
    for _, cell in table.cells():
        config = canonical(apply_overrides(TINY, cell.overrides))
        configs.setdefault(config_id(config), config)
    seeded = [
        config.model_copy(update={"rng_seed": seed})
        for seed in range(NUM_SEEDS)
        for config in configs.values()
    ]
    return [(run_id(config), cam_id(config)) for config in seeded]


def main() -> None:
    table = grid(100)
    ours, peer = partial(make_plan, [table], TINY, NUM_SEEDS), partial(one_by_one, table)
    assert [(trial.run_id, trial.cam_id) for trial in ours().trials] == peer()
    name = f"plan of 10,000 cells x {NUM_SEEDS} seeds, at once against one by one"
    faster(name, ours, peer, rounds=ROUNDS)


if __name__ == "__main__":
    main()
