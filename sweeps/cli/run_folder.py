"""The folder of one training from the command line, as a store whose stages lie at known places.

    RUN/run.json  stage.json  config.json  epochs/  checkpoints/  done.json    the training
    RUN/cams/<image>.npz                                                       its CAMs
    RUN/random_walk/<id>/   RUN/pseudo_labels/<refinement>/png/<image>.png

Each folder's stage.json says what it holds, and each file which picture and labels it was made
from, so that nothing else gets mixed with it.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from shutil import rmtree
from typing import Any

from filelock import Timeout

from sweeps.plan.chain import ChainConfig
from sweeps.stages.stage import Conduct, Crew, Here, Place
from sweeps.store.store import LABEL, Folder, Store, write_config, write_json
from wsss.commands import command
from wsss.config import RunConfig
from wsss.data.classes import CLASS_LIST
from wsss.identity import cam_id, canonical_json
from wsss.overrides import ConfigError, validate
from wsss.printable import first_of
from wsss.segmentation_config import DeepLabConfig, PseudoLabelConfig
from wsss.training.execution import Execution

KEYS = "config", "data", "weights_file", "classes", "trained_on"
"""Of run.json."""


@dataclass(frozen=True)
class Run:
    """A training's folder, and what it is."""

    folder: Path
    config: RunConfig
    data: Path
    weights_file: Path | None
    classes: tuple[str, ...]
    """Those of the data set when it was trained on, in their order."""
    trained_on: Mapping[str, str]
    """What each image held that it was trained on, as sources.py has it."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """The same of the images at hand, as they are now."""

    def with_images(self, split: str) -> "Run":
        """Return this training with the images of a split at hand.

        Raises ConfigError if the classes or images that it was trained on have changed since.
        """
        from wsss.data.voc import VocDataset
        from wsss.labels.sources import sources_of

        dataset, own = VocDataset(self.data), self.config.data.train_split
        if dataset.classes != self.classes:
            raise ConfigError(
                f"{self.data}: its classes have changed since {self.folder} was trained: "
                f"{_first_difference(self.classes, dataset.classes)}; restore them in "
                f"{CLASS_LIST}, or train with another --run"
            )
        now = sources_of(dataset, dataset.image_ids(own))
        both = [*now, *(self.trained_on.keys() - now.keys())]
        changed = [name for name in both if now.get(name) != self.trained_on.get(name)]
        if changed:
            raise ConfigError(
                f"{self.data}: images or labels of {own} have changed since {self.folder} was "
                f"trained ({first_of(changed, 3)}); put them back, or train with another --run"
            )
        others = set(dataset.image_ids(split)) - now.keys()
        now |= sources_of(dataset, sorted(others))
        return replace(self, sources={name: now[name] for name in dataset.image_ids(split)})

    def chain(self, labels: PseudoLabelConfig, split: str | None = None) -> ChainConfig:
        """Return the way to these labels of a split's images; None: the images trained on."""
        own = self.config.data.train_split
        return ChainConfig(
            run=self.config, labels=labels, segmentation=DeepLabConfig(),
            labelled_split=None if split in (None, own) else split,
        )  # fmt: skip

    def place(
        self, chain: ChainConfig, *, crew: Crew | None = None, conduct: Conduct | None = None,
        execution: Execution | None = None, cams: Path | None = None, labels: Path | None = None,
    ) -> Place:  # fmt: skip
        """Return where the stages of a chain are done.

        cams, labels: folders in place of RUN/cams and RUN/labels/<id>.
        """
        from wsss.labels.sources import digest_of
        from wsss.training.process import Process, pick_device

        folder = self.folder.absolute()
        named = {
            f"cams/{cam_id(self.config)}": folder,
            f"maps/{chain.maps_id}": (cams or folder / "cams").absolute(),
        }
        # Its id names the split that the affinity network learned from, not what the split holds.
        data = f"-{digest_of(self.sources)}" if chain.labelled_split else ""
        named[f"walks/{chain.walk_id}"] = folder / "random_walk" / f"{chain.walk_id}{data}"
        if labels:
            named[f"labels/{chain.labels_id}"] = labels.absolute()
        return Place(
            Store(folder, named=named), self.data, self.weights_file, execution or Execution(),
            conduct or Conduct(accept_changes=True), crew or Here(),
            Process(device=pick_device()), sources=self.sources,
        )  # fmt: skip

    def remember(self) -> None:
        """Write what the folder holds. Raises ConfigError for one that holds another training."""
        path, saved = self.folder / "run.json", self._saved()
        if path.exists() and (difference := _difference(_read(path), saved)):
            self._clear_refused_start(difference)
        write_json(path, saved)
        write_config(self.folder / "config.json", self.config)

    def training_command(self) -> str:
        """Return the command that goes on with this training."""
        words = ["--run", self.folder, "--data", self.data, "--config", self.folder / "config.json"]
        words += ["--weights", self.weights_file] if self.weights_file else []
        return command("wsss", "train-cam", *words)

    def _clear_refused_start(self, difference: str) -> None:
        """Remove what a start of another training left that was refused, so that nothing is lost.

        difference: in words. Raises ConfigError if that training has come any further, or is at
        work.
        """
        folder = Folder(self.folder)
        with suppress(Timeout), folder.lock().acquire(timeout=0):
            if not (folder.checkpoint_names() or folder.epochs() or folder.result()):
                (self.folder / LABEL).unlink(missing_ok=True)
                rmtree(self.folder / "attempts", ignore_errors=True)
                return
        raise ConfigError(f"{self.folder}: holds a training {difference}; choose another --run")

    def _saved(self) -> dict[str, Any]:
        return {
            "config": json.loads(canonical_json(self.config)),
            "data": str(self.data),
            "weights_file": str(self.weights_file) if self.weights_file else None,
            "classes": list(self.classes),
            "trained_on": dict(self.trained_on),
        }


def recall(folder: Path) -> Run:
    """Return what a training's folder holds. Raises ConfigError if there is none."""
    path = folder / "run.json"
    if not path.exists():
        train = command("wsss", "train-cam", "--run", folder)
        raise ConfigError(f"{path}: missing; train first with: {train} --data FOLDER")
    saved = _read(path)
    weights = saved["weights_file"]
    return Run(
        folder, validate(saved["config"]), Path(saved["data"]),
        Path(weights) if weights else None, tuple(saved["classes"]), saved["trained_on"],
    )  # fmt: skip


def _read(path: Path) -> dict[str, Any]:
    """Return what run.json says. Raises ConfigError for a damaged or an old one."""
    try:
        saved = dict(json.loads(path.read_text(encoding="utf-8")))
        dict(saved.get("trained_on", {})), tuple(saved.get("classes", ()))
    except (ValueError, TypeError):
        train = command("wsss", "train-cam", "--run", path.parent)
        raise ConfigError(
            f"{path}: damaged; delete it, and give the command that trained it again: {train} "
            "--data FOLDER and its other options"
        ) from None
    if lacking := [key for key in KEYS if key not in saved]:
        raise ConfigError(
            f"{path}: does not say {lacking[0]}, as it is of an earlier version, whose trainings "
            "are not gone on with; train again with another --run"
        )
    return saved


def _first_difference(before: tuple[str, ...], now: tuple[str, ...]) -> str:
    """Say how two lists of classes differ, which are not equal."""
    pairs = zip_longest(before, now, fillvalue="missing")
    number, (old, new) = next((k, p) for k, p in enumerate(pairs, start=1) if p[0] != p[1])
    return f"class {number} was {old}, now it is {new}"


def _difference(known: dict[str, Any], asked: dict[str, Any]) -> str:
    """Return in words how a training that is there differs from the one asked for; "" if not.

    Where the data set lies makes no difference.
    """
    contents = {"fingerprint", "train_fingerprint"}

    def settings(saved: dict[str, Any]) -> dict[str, Any]:
        images = {key: v for key, v in saved["config"]["data"].items() if key not in contents}
        return {**saved["config"], "data": images, "weights_file": saved["weights_file"]}

    def images(saved: dict[str, Any]) -> object:
        return saved["config"]["data"]["train_fingerprint"]

    if settings(known) != settings(asked):
        return "with other settings"
    return (
        ""
        if images(known) == images(asked)
        else "from before its classes, images or labels changed"
    )
