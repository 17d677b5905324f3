"""The command that runs a sweep, from what the store says of it."""

import json
import shlex
from pathlib import Path

from sweeps.plan.sweep import Sweep
from sweeps.store.store import Store
from wsss.commands import command
from wsss.recipes import named_config, preset_and_recipe

OF_THE_DATA = ("data.name", "data.fingerprint", "data.train_fingerprint")


def run_command(sweep: Sweep, store: Store | None, *more: str, num_seeds: int | None = None) -> str:
    """Return the `sweeps run` that starts or resumes a sweep, and further options.

    How it is carried out (GPUs, workers) is not among them: no result depends on it.
    store: None: for another machine, in the folder of an unpacked archive.
    num_seeds: default: the sweep's.
    """
    num_seeds = num_seeds or sweep.num_seeds
    usual, base = named_config(sweep.preset), sweep.base
    preset, recipe = preset_and_recipe(sweep.preset)
    own = {table.name for table in sweep.own_tables} & {*sweep.table_names}
    words = [name for name in sweep.table_names if name not in own]
    folder = store.sweep(sweep.name) if store else Path("sweeps") / sweep.name
    words += ["--table", str(folder / "sweep.json")] if own else []
    words += ["--preset", preset, "--data", str(sweep.data)]
    words += ["--recipe", recipe] if recipe != "default" else []
    if base.network.weights != usual.network.weights:
        words += ["--weights", str(sweep.weights_file or base.network.weights)]
    known = usual.flat()
    for key, value in base.flat().items():
        if value != known.get(key) and key not in (*OF_THE_DATA, "network.weights"):
            words += ["--set", f"{key}={json.dumps(value)}"]
    words += ["--store", store.address] if store else []
    words += ["--seeds", str(num_seeds)] if num_seeds > 1 else []
    if store is None:
        return shlex.join(["sweeps", "run", *words, *more])
    return command("sweeps", "run", *words, *more)
