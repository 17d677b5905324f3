"""Writes down what the product does today, so that a refactoring can be checked against it.

Run by hand in a checkout, `python .ci/golden.py BEFORE` and later AFTER, then `diff -r BEFORE
AFTER`. Equal behaviour on one machine gives equal files: times, paths, code versions and random ids
are left out. Four minutes on an idle core. `Stored` alone knows a store's layout, `keep_ids` and
`Mlflow` alone the product's modules and tags: edit these when a refactoring moves things.
"""

import csv
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

REPO = Path(__file__).parents[1]
PRESETS = ("tiny", "short", "paper", "irn")
RECIPES = ("default", "literal", "irn", "seam", "puzzle_cam")
SOURCES = ("none", "crf", "pamr", "random_walk", "random_walk_crf", "masks")
SEEDS = 3

LABEL_CHANGES: tuple[dict[str, Any], ...] = (
    {},
    {"background": "confident"},
    {"background": "confident", "confident_foreground": 0.4},
    {"background_score": 0.3},
    {"walked_background_score": 0.4},
    {"crf.preset": "psa"},
    {"pamr.iterations": 5},
    {"random_walk.radius": 4},
)
SEGMENTATION_CHANGES: tuple[dict[str, Any], ...] = (
    {"test_crf": True},
    {"test_scales": (1.0,)},
    {"rng_seed": 1},
    {"weight_decay": 0.0},
    {"lr_step": 10**6},
    {"lr_step": 10**6, "poly_power": 0.5},
    {"first_block_dilation": "full"},
    {"weight_decay": 0.0, "head_bias_decay": False},
)

TRAINED = {"train.epochs": 2, "train.batch_size": 4, "labels.scales": [0.5, 1.0]}
"""Laid over `tiny` for the trainings whose steps are compared one by one."""
SHRUNK = {
    "train.epochs": 2,
    "train.batch_size": 4,
    "train.crop_size": 48,
    "train.min_long_side": 48,
    "train.max_long_side": 80,
    "network.fpn_channels": 16,
    "network.atrous_channels": 16,
    "labels.scales": [0.5],
}
F3 = {
    "network.channel_attention": "true",
    "network.spatial_attention": "true",
    "network.multi_scale_atrous": "true",
    "network.context_association": "true",
    "views.enhanced": "true",
    "views.decreased": "true",
}
DEEPLAB = {
    "iterations": 60,
    "batch_size": 4,
    "crop_size": 49,
    "test_scales": [0.5],
    "test_flip": "false",
}
WALK = {
    "random_walk.epochs": 1,
    "random_walk.batch_size": 4,
    "random_walk.crop_size": 64,
    "random_walk.min_long_side": 64,
    "random_walk.max_long_side": 96,
    "random_walk.log_steps": 2,
}

TIMED = re.compile(r"(^|[_/])seconds($|[_/])|per_second|environment|code_version")
"""Keys and metrics that are about a run's time, machine or code, and not about its result."""
COUNTED_BY_SYNC = "objective/best_so_far"
"""Logged whenever the tracker looks: only its last value is sure."""


class Golden:
    """The folder that is written, and the folder in which the product is run."""

    def __init__(self, out: Path, work: Path) -> None:
        self.out, self.work = out, work
        self.store = Stored(work / "store")

    def keep(self, name: str, text: str) -> None:
        """Write a text, without what differs from one run to the next."""
        path = self.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [line.rstrip() for line in self.cleaned(text).splitlines()]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def keep_json(self, name: str, value: Any) -> None:
        """Write JSON without times and environments, floats to their last digit."""
        self.keep(name, json.dumps(without_times(value), indent=1, sort_keys=True))

    def cleaned(self, text: str) -> str:
        """Return a text with paths, ids of MLflow, versions of the code and times replaced."""
        for pattern, word in (
            (re.escape(str(self.work)), "WORK"),
            (re.escape(str(REPO)), "REPO"),
            (rf"\b{re.escape(socket.gethostname())}\b", "HOST"),
            (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "UUID"),
            (r"\b[0-9a-f]{32}\b", "MLFLOW-ID"),
            (r"\b\d+\.\d+\.\d+\+[\w.-]*\w", "CODE-VERSION"),
            (r"\b20\d\d-\d\d-\d\d([T ]\d\d:\d\d(:\d\d)?)?", "DATE"),
            (r"\b\d+:\d\d:\d\d\b", "TIME"),
            (r"(?<![\w.])\d[\d.,]* (s|ms|min|h|[CG]PU-hours?)\b", "TIME"),
        ):
            text = re.sub(pattern, word, text)
        return text

    def run(self, package: str, *words: str) -> str:
        """Run a command of the product in the work folder; return its output. Ends if it fails."""
        command = [sys.executable, "-m", package, *words]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=600,
            cwd=self.work,
            check=False,
            env=self.environment(),
        )
        if done.returncode != 0:
            raise SystemExit(
                f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
            )
        return done.stdout

    def environment(self) -> dict[str, str]:
        """Return the variables of every command: one thread, one width, no setting from outside."""
        outside = ("WSSS_", "MLFLOW_", "RAY_")
        clean = {key: v for key, v in os.environ.items() if not key.startswith(outside)}
        return clean | {
            "PYTHONPATH": str(REPO),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "120",
            "NO_COLOR": "1",
            "WSSS_CACHE": str(self.work / "cache"),
        }


class Stored:
    """Where a store keeps what: to be edited when the layout changes, and nothing else is."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folders(self, stage: str) -> list[Path]:
        """Return the folders of a stage, each named by its id.

        stage: cams, runs, maps, walks, labels, segmentations, predictions, sweeps, headline,
        searches. Of a training that was stopped early there is no folder here.
        """
        found = sorted(path for path in (self.root / stage).glob("*") if path.is_dir())
        trains = stage in ("cams", "walks", "segmentations")
        return [path for path in found if not trains or (path / "done.json").exists()]

    def epochs(self, training: Path) -> list[dict[str, Any]]:
        """Return the records of a training's epochs, with the loss of each step."""
        paths = sorted((training / "epochs").glob("*.json"))
        return [json.loads(path.read_text()) for path in paths]

    def network(self, training: Path) -> dict[str, torch.Tensor]:
        """Return the tensors of a training's last checkpoint."""
        path = sorted((training / "checkpoints").glob("epoch_*.pt"))[-1]
        tensors: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["model"]
        return tensors

    def trials(self, search: Path) -> list[dict[str, Any]]:
        """Return the record of each of a search's trials."""
        return [json.loads(path.read_text()) for path in sorted(search.glob("trials/*.json"))]

    @property
    def mlflow(self) -> str:
        """The tracking address."""
        return f"sqlite:///{self.root / 'mlflow.db'}"


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if not TIMED.search(k)}
    if isinstance(value, list):
        return [without_times(item) for item in value]
    return value


def options(option: str, settings: dict[str, Any]) -> list[str]:
    pairs = [f"{key}={str(value).replace(' ', '')}" for key, value in settings.items()]
    return [word for pair in pairs for word in (option, pair)]


# Digests


def digest(*parts: bytes) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "big") + part)
    return found.hexdigest()[:24]


def array_digest(array: Any) -> str:
    array = np.ascontiguousarray(array)
    return digest(str(array.dtype).encode(), str(array.shape).encode(), array.tobytes())


def network_digest(tensors: dict[str, torch.Tensor]) -> str:
    """Digest names, in their order, and values of a state dict."""
    parts = [(name.encode(), array_digest(tensor).encode()) for name, tensor in tensors.items()]
    return digest(*(part for pair in parts for part in pair))


def file_digest(path: Path) -> str:
    """Digest what a file says, not how it is packed."""
    if path.suffix == ".png":
        with Image.open(path) as image:
            palette = bytes(image.getpalette() or [])
            return f"{image.mode} {array_digest(image)} palette {digest(palette)}"
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return " ".join(f"{name} {array_digest(arrays[name])}" for name in arrays)
    return digest(path.read_bytes())


def digests(folder: Path, *patterns: str) -> dict[str, str]:
    paths = sorted(path for pattern in patterns for path in folder.glob(pattern))
    return {str(path.relative_to(folder)): file_digest(path) for path in paths if path.is_file()}


# Ids


def keep_ids(golden: Golden) -> None:
    """Write the ids of all tables' cells under all presets, and of all stages behind them."""
    from sweeps.plan.chains.chain import ChainConfig
    from sweeps.plan.trials import make_plan
    from sweeps.tables.studies import TABLES
    from wsss.overrides import apply_overrides
    from wsss.presets import DEEPLAB_PRESETS, LABEL_PRESETS
    from wsss.recipes import named_config, with_recipe

    data = {"data.name": "golden", "data.fingerprint": "0" * 16, "data.train_fingerprint": "1" * 16}

    def cells(preset: str, names: list[str]) -> Iterator[str]:
        base = apply_overrides(named_config(preset), data)
        for name in names:
            for cell, trials in make_plan([TABLES[name]], base, SEEDS).cell_trials.items():
                for trial in trials:
                    seed = trial.config.rng_seed
                    yield f"{preset} {cell} seed {seed}: run {trial.run_id} cam {trial.cam_id}"

    def chains(preset: str) -> Iterator[str]:
        base = apply_overrides(named_config(preset), data)
        run = make_plan([TABLES["III"]], base, 1).cell_trials["III[yes,yes]"][0].config
        none: dict[str, Any] = {}
        changes = [(change, none) for change in LABEL_CHANGES]
        for labels, segmentation in [*changes, *((none, c) for c in SEGMENTATION_CHANGES)]:
            for source in SOURCES:
                label = apply_overrides(LABEL_PRESETS[preset], labels)
                chain = ChainConfig(
                    run=run,
                    labels=None
                    if source == "masks"
                    else apply_overrides(label, {"refinement": source}),
                    segmentation=apply_overrides(DEEPLAB_PRESETS[preset], segmentation),
                )
                yield f"{preset} {source} {labels} {segmentation}: {stage_ids(chain)}"

    lines = [line for preset in PRESETS for line in cells(preset, list(TABLES))]
    for recipe in RECIPES[1:]:
        for preset in PRESETS:
            lines += cells(with_recipe(preset, recipe), ["calibrate", "III"])
    golden.keep("ids.txt", "\n".join(lines))
    golden.keep("stage_ids.txt", "\n".join(line for p in PRESETS for line in chains(p)))


def stage_ids(chain: Any) -> str:
    """Return the ids of those stages that a chain has."""
    stages = ["labels", "segmentation", "prediction"]
    if chain.labels is not None:
        stages = ["maps", *(["walk"] if chain.walks else []), *stages]
    return " ".join(f"{stage} {getattr(chain, f'{stage}_id')}" for stage in stages)


# Commands


def keep_help(golden: Golden) -> None:
    """Keep what every command says of itself."""
    for package in ("sweeps", "wsss"):
        text = golden.run(package, "--help")
        golden.keep(f"help/{package}.txt", text)
        for command in re.findall(r"^│ ([a-z][a-z-]*) ", text, flags=re.MULTILINE):
            golden.keep(f"help/{package}-{command}.txt", golden.run(package, command, "--help"))


def draw_data(golden: Golden) -> None:
    """Draw the data set of everything that follows."""
    golden.run("wsss", "data", "draw", "voc", "--train", "8", "--extra", "4", "--val", "3")
    golden.keep_json("data.json", digests(golden.work / "voc", "**/*"))


def keep_training(golden: Golden) -> None:
    """Train B0 and F3 of `tiny`, and F3 of the recipe `literal`, step by step."""
    common = ["--preset", "tiny", "--data", "voc", "--store", "trained", "--max-concurrent", "1"]
    settings = options("--set", TRAINED)
    golden.run("sweeps", "run", "noise-floor", *common, *settings)
    literal = ["--recipe", "literal", *options("--set", F3)]
    golden.run("sweeps", "run", "calibrate", *common, *settings, *literal)
    keep_trainings(golden, Stored(golden.work / "trained"), "training")


def keep_trainings(golden: Golden, store: Stored, name: str) -> None:
    """Keep the CAM trainings of a store, and their scores."""
    for folder in store.folders("cams"):
        found = {
            "config": json.loads((folder / "config.json").read_text()),
            "epochs": store.epochs(folder),
            "network": network_digest(store.network(folder)),
        }
        golden.keep_json(f"{name}/cams/{folder.name}.json", found)
    for folder in store.folders("runs"):
        golden.keep_json(
            f"{name}/runs/{folder.name}.json",
            {
                "metrics": json.loads((folder / "done.json").read_text()),
                "files": digests(folder, "*.npz", "*.png"),
            },
        )


def keep_single_commands(golden: Golden) -> None:
    """Keep what the commands of `wsss` print and write for F3, one stage at a time."""
    words = ["--run", "cam", "--data", "voc", "--preset", "tiny"]
    text = golden.run("wsss", "train-cam", *words, *options("--set", SHRUNK | F3))
    text = re.sub(r" (images_per_second|seconds) \S+", "", text)
    text += golden.run("wsss", "infer", "--run", "cam", "--out", "cam/val", "--split", "val")
    text += golden.run("wsss", "infer", "--run", "cam")
    text += golden.run("wsss", "evaluate", "--run", "cam")
    words = ["--run", "cam", "--refinement", "pamr", "--workers", "0"]
    text += golden.run("wsss", "pseudo-label", *words)
    golden.keep("wsss/output.txt", text)
    folder = golden.work / "cam"
    golden.keep_json("wsss/network.json", network_digest(golden.store.network(folder)))
    golden.keep_json("wsss/files.json", digests(folder, "**/*.npz", "**/*.png"))


def keep_sweep(golden: Golden) -> None:
    """Run a table, and keep all that is shown of it."""
    where = ["--preset", "tiny", "--data", "voc", "--store", "store"]
    run = ["III", "--seeds", "2", *where, *options("--set", SHRUNK)]
    plan = ["plan", "III", "IV", "V", "VI", "controls", "--all"]
    golden.keep("store/plan_before.txt", golden.run("sweeps", *plan, *where))
    golden.run("sweeps", "run", *run, "--max-concurrent", "1")
    golden.keep("store/run_again.txt", golden.run("sweeps", "run", *run))
    golden.keep("store/plan.txt", golden.run("sweeps", "plan", *run))
    for command in ("table", "status", "report"):
        golden.keep(f"store/{command}.txt", golden.run("sweeps", command, "--store", "store"))
    golden.keep("store/trials.txt", golden.run("sweeps", "status", "--trials", "--store", "store"))
    other = ["report", "III", "controls", "--measure", "held-out", "--margin", "1"]
    other += ["--store", "store", "--out", "other", "--no-log"]
    golden.keep("store/report_held_out.txt", golden.run("sweeps", *other))
    (sweep,) = golden.store.folders("sweeps")
    keep_report(golden, sweep / "report", "store/report")


def keep_search(golden: Golden) -> None:
    """Search with three draws, and keep the trials and the closing table."""
    words = ["--preset", "tiny", "--data", "voc", "--store", "store", "--samples", "3"]
    words += [*options("--set", SHRUNK), "--max-concurrent", "1"]
    golden.run("sweeps", "search", *words)
    golden.keep("store/search.txt", golden.run("sweeps", "search", *words))
    (search,) = golden.store.folders("searches")
    found = {
        "search": json.loads((search / "search.json").read_text()),
        "trials": golden.store.trials(search),
        "held_out": json.loads((search / "held_out.json").read_text()),
    }
    golden.keep_json("store/search.json", found)


def keep_headline(golden: Golden) -> None:
    """Train DeepLab on two kinds of labels, and keep every stage and the report."""
    words = ["none", "random_walk", "--cell", "III[yes,yes]", "--label-workers", "1"]
    words += ["--preset", "tiny", "--data", "voc", "--store", "store", *options("--set", SHRUNK)]
    words += [*options("--set-segmentation", DEEPLAB), *options("--set-labels", WALK)]
    golden.run("sweeps", "headline", *words)
    golden.keep("store/headline.txt", golden.run("sweeps", "headline", *words))
    (headline,) = golden.store.folders("headline")
    keep_report(golden, headline / "report", "store/headline")
    keep_trainings(golden, golden.store, "store")
    for stage in ("maps", "walks", "labels", "segmentations", "predictions"):
        for folder in golden.store.folders(stage):
            golden.keep_json(f"store/{stage}/{folder.name}.json", stage_of(golden.store, folder))
    network = golden.store.folders("segmentations")[0]
    pictures = [str(path) for path in sorted((golden.work / "voc/JPEGImages").glob("*.jpg"))[:2]]
    text = golden.run("wsss", "predict", *pictures, "--network", str(network), "--out", "own")
    golden.keep("store/predict.txt", text)
    golden.keep_json("store/predict.json", digests(golden.work / "own", "*.png"))


def stage_of(store: Stored, folder: Path) -> dict[str, Any]:
    """Return all that a stage of labels or segmentation has written."""
    found: dict[str, Any] = {"files": digests(folder, "**/*.npz", "**/*.png")}
    for name in ("config.json", "done.json"):
        if (folder / name).exists():
            found[name] = json.loads((folder / name).read_text())
    if folder in store.folders(folder.parent.name) and (folder / "checkpoints").exists():
        found["epochs"] = store.epochs(folder)
        found["network"] = network_digest(store.network(folder))
    return found


class Text(HTMLParser):
    """The words of a page, without its tags, styles and scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.hidden = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.hidden += tag in ("style", "script")

    def handle_endtag(self, tag: str) -> None:
        self.hidden -= tag in ("style", "script")

    def handle_data(self, data: str) -> None:
        if not self.hidden and data.strip():
            self.words.append(" ".join(data.split()))


def keep_report(golden: Golden, folder: Path, name: str) -> None:
    """Keep a report's files; of the page its words, of CSV its rows, of pictures a digest."""
    for path in sorted(folder.iterdir()):
        if path.suffix == ".html":
            page = Text()
            page.feed(path.read_text(encoding="utf-8"))
            golden.keep(f"{name}/{path.name}.txt", "\n".join(page.words))
        elif path.suffix == ".png":
            golden.keep(f"{name}/{path.name}.txt", file_digest(path))
        elif path.suffix == ".csv":
            with path.open(newline="", encoding="utf-8") as file:
                golden.keep_json(f"{name}/{path.name}.json", list(csv.DictReader(file)))
        else:
            golden.keep(f"{name}/{path.name}", path.read_text(encoding="utf-8"))


# MLflow


class Mlflow:
    """Reads a tracking store as text."""

    def __init__(self, uri: str) -> None:
        from mlflow import MlflowClient

        self.client = MlflowClient(uri)
        self.experiments = sorted(self.client.search_experiments(), key=lambda found: found.name)
        self.runs = {e.name: self.client.search_runs([e.experiment_id]) for e in self.experiments}
        self.names = {r.info.run_id: r.info.run_name for runs in self.runs.values() for r in runs}

    def lines(self) -> Iterator[str]:
        for experiment in self.experiments:
            yield f"experiment {experiment.name} {sorted(experiment.tags.items())}"
            runs = self.runs[experiment.name]
            for run in sorted(
                runs, key=lambda run: (run.data.tags["wsss.role"], str(self.key(run)))
            ):
                yield from self.run_lines(run)
            models = self.client.search_logged_models([experiment.experiment_id])
            of = sorted((self.names[model.source_run_id], model.name) for model in models)
            yield from (f"model {name} of {run}" for run, name in of)

    @staticmethod
    def key(run: Any) -> tuple[str, ...]:
        tags = ("wsss.role", "mlflow.runName", "wsss.run_id", "wsss.prediction_id")
        return tuple(run.data.tags.get(tag, "") for tag in tags)

    def run_lines(self, run: Any) -> Iterator[str]:
        yield f"\nrun {run.info.run_name} {run.info.status}"
        for key, value in sorted(run.data.tags.items()):
            if not TIMED.search(key) and key not in ("mlflow.user", "mlflow.log-model.history"):
                value = self.names.get(value, value).replace("\n", " / ")
                yield f"  tag {key} = {value}"
        yield from (f"  param {key} = {value}" for key, value in sorted(run.data.params.items()))
        for name in sorted(run.data.metrics):
            if not TIMED.search(name):
                yield f"  metric {name} = {self.history(run.info.run_id, name)}"
        yield from (f"  artifact {path}" for path in sorted(self.artifacts(run.info.run_id)))
        for found in run.inputs.dataset_inputs:
            tags = {tag.key: tag.value for tag in found.tags}
            one = found.dataset
            yield f"  dataset {one.name} {one.digest} {one.source_type} {one.source} {tags}"
        for found in run.outputs.model_outputs:
            model = self.client.get_logged_model(found.model_id)
            files = sorted(a.path for a in self.client.list_logged_model_artifacts(model.model_id))
            yield f"  output model {model.name} {model.status} {files}"

    def history(self, run_id: str, name: str) -> str:
        points = sorted((m.step, m.value) for m in self.client.get_metric_history(run_id, name))
        shown = points[-1:] if name == COUNTED_BY_SYNC else points
        return " ".join(f"{step}:{value:.5g}" for step, value in shown)

    def artifacts(self, run_id: str, folder: str | None = None) -> Iterator[str]:
        for found in self.client.list_artifacts(run_id, folder):
            if found.is_dir:
                yield from self.artifacts(run_id, found.path)
            else:
                yield found.path


def keep_mlflow(golden: Golden) -> None:
    """Keep all that MLflow shows of the sweep, the search and the headline."""
    golden.keep("mlflow.txt", "\n".join(Mlflow(golden.store.mlflow).lines()))


def main() -> None:
    """Write everything; say on the way how long each part took."""
    if len(sys.argv) != 2 or Path(sys.argv[1]).exists():
        raise SystemExit("usage: python .ci/golden.py OUT; OUT is a new folder")
    work = Path(tempfile.gettempdir()) / f"golden{os.getpid():08d}"  # always as long: lines wrap
    work.mkdir()
    golden = Golden(Path(sys.argv[1]).absolute(), work)
    try:
        for part in (
            keep_ids,
            keep_help,
            draw_data,
            keep_training,
            keep_single_commands,
            keep_sweep,
            keep_search,
            keep_headline,
            keep_mlflow,
        ):
            started = time.monotonic()
            part(golden)
            print(f"{part.__name__}: {time.monotonic() - started:.0f} s", flush=True)
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
