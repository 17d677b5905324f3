"""Sixteen small trials (Table V on drawn pictures) as a whole command, against two plain ways.

Ours: `sweeps run` as `make sweep-lambdas` calls it: Ray, a store, checkpoints, MLflow, pictures, a
report. Peers: one Python process that trains and scores the same 16 configurations in a loop, with
torch's default number of threads and nothing else; and a shell loop with a process per
configuration, timed for 2 of the 16 and multiplied by 8, as its processes share nothing. All are
timed by the clock with their start-up, once each, as they take a minute or more; the second
`sweeps run` of the finished sweep three times. Trial 0 with one thread is asserted to score the
same in a sweep and alone. With fewer epochs than the preset's 8, start-up and pictures count more,
so the ratio is less favourable to us. Meaningful only on an idle machine: Ray's workers run at nice
15, after everything else. Usage: python -m benchmarks.sweep.whole_sweep [--epochs N].
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.ratios import show
from sweeps.plan.sweep import load_sweep
from sweeps.store.store import Store
from wsss.data.drawn.folder import draw_voc

NUM_TRIALS, NUM_SHELL_TRIALS = 16, 2
NUM_SECOND_RUNS = 3
BARE_LOOP = Path(__file__).with_name("bare_loop.py")
NOT_PASSED_ON = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "MLFLOW_TRACKING_URI",
    "RAY_ADDRESS",
    "WSSS_STORE",
)
"""Variables that would slow down a peer, or send a sweep to another machine."""


@dataclass(frozen=True)
class Timed:
    """A command that has ended."""

    started: float
    """Seconds since the epoch."""
    seconds: float
    busy: float
    """Cores in use on average, by other programs, too."""
    lines: list[str]

    @property
    def records(self) -> list[dict[str, float]]:
        """What a bare loop printed."""
        return [json.loads(line) for line in self.lines]


def timed(command: Sequence[str | Path], folder: Path) -> Timed:
    """Run a command in `folder`. Raises RuntimeError with the end of its output if it fails."""
    environment = {key: value for key, value in os.environ.items() if key not in NOT_PASSED_ON}
    environment["WSSS_CACHE"] = str(folder / "cache")  # the first run checks the data set
    started, begun, busy = time.time(), time.perf_counter(), busy_seconds()
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - begun
    if done.returncode:
        words = shlex.join(str(word) for word in command)
        raise RuntimeError(f"{words}: exit {done.returncode}\n{done.stdout}{done.stderr}"[-3000:])
    return Timed(started, seconds, (busy_seconds() - busy) / seconds, done.stdout.splitlines())


def busy_seconds() -> float:
    """Return the CPU seconds that all programs have used since the machine started. Linux."""
    user, nice, system, _, _, *others = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    irq, soft_irq, steal = others[:3]
    ticks = sum(int(value) for value in (user, nice, system, irq, soft_irq, steal))
    return ticks / os.sysconf("SC_CLK_TCK")


def sweep_command(data: Path, store: Path, epochs: int) -> list[str | Path]:
    """Return the command of `make sweep-lambdas`, with few epochs."""
    options = f"--preset tiny --set train.epochs={epochs} --seeds 1 --gpus 0 --cpus 1 --workers 0"
    start = [sys.executable, "-m", "sweeps", "run", "V"]
    return [*start, "--data", data, "--store", store, *options.split()]


def loop_command(configs: Path, data: Path, *options: str) -> list[str | Path]:
    """Return the command of a bare loop."""
    return [sys.executable, BARE_LOOP, configs, data, *options]


def shell_loop(configs: Path, data: Path) -> list[str]:
    """Return a shell's loop with a process for each of the first configurations, in turn."""
    one = shlex.join(str(word) for word in loop_command(configs, data))
    return ["sh", "-ec", f"for i in $(seq 0 {NUM_SHELL_TRIALS - 1}); do {one} --only $i; done"]


def results(store: Store) -> tuple[list[Any], list[dict[str, Any]], list[float]]:
    """Return configurations, metrics and end times of the sweep's trials, in the plan's order."""
    trials = load_sweep(store).plan.trials
    assert len(trials) == NUM_TRIALS, f"{len(trials)} trials, expected {NUM_TRIALS}"
    metrics = [store.run(trial.run_id).result() for trial in trials]
    ends = [(store.run(t.run_id).path / "done.json").stat().st_mtime for t in trials]
    found = [one for one in metrics if one]
    assert len(found) == NUM_TRIALS, f"only {len(found)} of {NUM_TRIALS} trials finished"
    return [trial.config.model_dump(mode="json") for trial in trials], found, ends


def say_command(name: str, run: Timed) -> None:
    """Print how long a command took, and how busy the machine was."""
    load = os.getloadavg()[0]
    print(
        f"{name:58} {run.seconds:7.1f} s  {run.busy:4.2f} cores busy  load {load:.1f}", flush=True
    )


def say_shares(ours: Timed, metrics: list[dict[str, Any]], ends: list[float]) -> None:
    """Print where the sweep's time went: before, during and after its trials."""
    own = [
        sum(one[f"{part}_seconds"] for part in ("train", "inference", "score")) for one in metrics
    ]
    first = min(end - seconds for end, seconds in zip(ends, own, strict=True))
    before, after = first - ours.started, ours.started + ours.seconds - max(ends)
    span = max(ends) - first
    parts = {
        "training": sum(one["train_seconds"] for one in metrics),
        "inference": sum(one["inference_seconds"] for one in metrics),
    }
    parts["else"] = sum(own) - sum(parts.values())
    print(f"  before the first trial {before:.1f} s, trials {span:.1f} s, after them {after:.1f} s")
    print(
        f"  {sum(own) / span:.2f} trials at once on average; of a trial: "
        + ", ".join(f"{name} {value / NUM_TRIALS:.2f} s" for name, value in parts.items())
    )


def largest_gap(metrics: list[dict[str, Any]], records: list[dict[str, float]]) -> float:
    """Return the largest difference of an mIoU, in points, between the sweep and a bare loop."""
    return max(
        abs(one[key] - other[key])
        for one, other in zip(metrics, records, strict=True)
        for key in ("miou_fixed", "miou_best")
    )


def second_runs(command: list[str | Path], folder: Path) -> None:
    """Time the same command on the finished sweep, which then has nothing to train."""
    runs = [timed(command, folder).seconds for _ in range(NUM_SECOND_RUNS)]
    show("second run of the finished sweep", runs, "under 5 s", unit="s")


def compare(folder: Path, epochs: int) -> None:
    """Time all ways in fresh stores under `folder`, and print the rows."""
    data, configs = draw_voc(folder / "drawn"), folder / "configs.json"
    command = sweep_command(data, folder / "store", epochs)
    ours = timed(command, folder)
    say_command("sweeps run V", ours)
    settings, metrics, ends = results(Store(folder / "store"))
    say_shares(ours, metrics, ends)
    configs.write_text(json.dumps(settings))
    alone = timed(loop_command(configs, data, "--only", "0", "--threads", "1"), folder)
    gap = largest_gap(metrics[:1], alone.records)
    assert gap == 0, f"trial 0 scores {gap} points otherwise outside of the sweep"
    second_runs(command, folder)
    bare = timed(loop_command(configs, data), folder)
    say_command("one bare loop", bare)
    shell = timed(shell_loop(configs, data), folder)
    say_command(f"a process per trial from a shell loop, {NUM_SHELL_TRIALS} trials", shell)
    whole_shell = shell.seconds * NUM_TRIALS / NUM_SHELL_TRIALS
    print(
        "largest difference of an mIoU from the bare loop, where more threads change the rounding: "
        f"{largest_gap(metrics, bare.records):.3f} points"
    )
    show(
        "sweep of 16 tiny trials: ours / one bare loop",
        [ours.seconds / bare.seconds],
        "at most 1.15",
    )
    show(
        "sweep of 16 tiny trials: a process per trial / ours",
        [whole_shell / ours.seconds],
        "at least 1",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0])
    parser.add_argument("--epochs", type=int, default=1, help="of each trial; the preset has 8")
    chosen = parser.parse_args()
    print(f"Table V, preset tiny, {chosen.epochs} epochs, {os.cpu_count()} cores; one round each")
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), chosen.epochs)


if __name__ == "__main__":
    main()
