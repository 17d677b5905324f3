"""Planning a grid of 10,000 cells: all at once against each cell on its own.

Usage: python benchmarks/planning.py. Prints the peer's time / ours, timed alternately.
"""

import statistics
import time

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
    """Return run and CAM ids of all trials, each cell and seed worked out on its own."""
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
    ratios, ours = [], []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        plan = make_plan([table], TINY, NUM_SEEDS)
        middle = time.perf_counter()
        expected = one_by_one(table)
        ours.append(middle - started)
        ratios.append((time.perf_counter() - middle) / ours[-1])
        assert [(trial.run_id, trial.cam_id) for trial in plan.trials] == expected
    name = f"plan of 10,000 cells x {NUM_SEEDS} seeds, at once against one by one"
    print(
        f"{name:70} {statistics.median(ratios):6.2f} x  ({min(ratios):.2f} to {max(ratios):.2f}); "
        f"{statistics.median(ours):.1f} s"
    )


if __name__ == "__main__":
    main()
