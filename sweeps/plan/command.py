"""The command line that runs a sweep, from what the sweep is."""

import json
import shlex

from sweeps.plan.scale import NOT_A_SETTING
from sweeps.plan.sweep import Sweep
from sweeps.store.store import Store
from wsss.recipes import named_config, preset_of


def run_command(sweep: Sweep, store: Store, *, num_seeds: int) -> str:
    """Return the `sweeps run` command of a sweep with so many seeds, to be given as it is.

    The machine's options (GPUs, cluster, workers) are left to the one who gives it.
    """
    preset = preset_of(sweep.preset)
    recipe = sweep.preset.removeprefix(preset).removeprefix("-")
    words = ["sweeps", "run", *sweep.table_names, "--preset", preset]
    words += ["--recipe", recipe] if recipe else []
    words += ["--data", str(sweep.data), "--store", store.remote.url or str(store.root)]
    base, ours = named_config(sweep.preset).flat(), sweep.base.flat()
    if ours["network.weights"] != base["network.weights"]:
        words += ["--weights", str(sweep.weights_file or ours["network.weights"])]
    for key, value in ours.items():
        if value != base[key] and key not in (*NOT_A_SETTING, "network.weights"):
            words += ["--set", f"{key}={json.dumps(value)}"]
    return shlex.join([*words, "--seeds", str(num_seeds)])
