"""The folder of one training from the command line, as a store whose stages lie at known places.

    RUN/run.json  stage.json  config.json  epochs/  checkpoints/  done.json    the training
    RUN/cams/<image>.npz                                                       its CAMs
    RUN/random_walk/<id>/   RUN/pseudo_labels/<refinement>/png/<image>.png

Each folder's stage.json says what it holds, so that nothing else gets mixed with it.
"""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any

from filelock import Timeout

from sweeps.plan.chain import ChainConfig
from sweeps.stages.stage import Conduct, Crew, Here, Place
from sweeps.store.store import LABEL, Folder, Store, write_json
from wsss.commands import command
from wsss.config import RunConfig
from wsss.identity import cam_id, canonical_json
from wsss.overrides import ConfigError, validate
from wsss.segmentation_config import DeepLabConfig, PseudoLabelConfig
from wsss.training.execution import Execution


@dataclass(frozen=True)
class Run:
    """A training's folder, and what it is."""

    folder: Path
    config: RunConfig
    data: Path
    weights_file: Path | None

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
        from wsss.training.process import Process, pick_device

        folder = self.folder.absolute()
        named = {
            f"cams/{cam_id(self.config)}": folder,
            f"maps/{chain.maps_id}": (cams or folder / "cams").absolute(),
            f"walks/{chain.walk_id}": folder / "random_walk" / chain.walk_id,
        }
        if labels:
            named[f"labels/{chain.labels_id}"] = labels.absolute()
        return Place(
            Store(folder, named=named), self.data, self.weights_file, execution or Execution(),
            conduct or Conduct(accept_changes=True), crew or Here(),
            Process(device=pick_device()),
        )  # fmt: skip

    def remember(self) -> None:
        """Write what the folder holds. Raises ConfigError for one that holds another training."""
        path, saved = self.folder / "run.json", self._saved()
        if path.exists() and _read(path) != saved:
            self._clear_refused_start()
        write_json(path, saved)

    def _clear_refused_start(self) -> None:
        """Remove what a start of another training left that was refused, so that nothing is lost.

        Raises ConfigError if that training has come any further, or is at work.
        """
        folder = Folder(self.folder)
        with suppress(Timeout), folder.lock().acquire(timeout=0):
            if not (folder.checkpoint_names() or folder.epochs() or folder.result()):
                (self.folder / LABEL).unlink(missing_ok=True)
                rmtree(self.folder / "attempts", ignore_errors=True)
                return
        raise ConfigError(
            f"{self.folder}: holds a training with other settings; choose another --run"
        )

    def _saved(self) -> dict[str, Any]:
        return {
            "config": json.loads(canonical_json(self.config)),
            "data": str(self.data),
            "weights_file": str(self.weights_file) if self.weights_file else None,
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
        folder, validate(saved["config"]), Path(saved["data"]), Path(weights) if weights else None
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        return {key: saved[key] for key in ("config", "data", "weights_file")}
    except (ValueError, TypeError, KeyError):
        raise ConfigError(f"{path}: damaged; delete it and train again") from None
