"""The folder of one training from the command line: what it is, and its finished network.

Heavy packages are imported by the functions that need them, so that `wsss --help` answers at once.
"""

import json
from pathlib import Path
from typing import Any


def remember(run: Path, config: Any, data: Path, weights_file: Path | None) -> None:
    """Write what a training is; refuse a folder that holds another one."""
    from wsss.identity import canonical_json
    from wsss.overrides import ConfigError

    saved = {
        "config": json.loads(canonical_json(config)),
        "data": str(data.absolute()),
        "weights_file": str(weights_file) if weights_file else None,
    }
    path = run / "run.json"
    if path.exists() and _read_run_file(path) != saved:
        raise ConfigError(f"{run}: holds a training with other settings; choose another --run")
    try:
        run.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(saved, indent=1) + "\n")
    except OSError as error:
        raise ConfigError(f"{run}: {error.strerror}; choose another --run") from None


def _read_run_file(path: Path) -> Any:
    from wsss.overrides import ConfigError

    try:
        saved = json.loads(path.read_text())
        return {key: saved[key] for key in ("config", "data", "weights_file")}
    except (ValueError, TypeError, KeyError):
        raise ConfigError(f"{path}: damaged; delete it and train again") from None


def recall(run: Path) -> tuple[Any, dict[str, Any]]:
    """Return a training's configuration and run.json. Raises ConfigError if it is not there."""
    from wsss.overrides import ConfigError, validate

    path = run / "run.json"
    if not path.exists():
        raise ConfigError(f"{path}: missing; train first with: wsss train-cam --run {run}")
    saved = _read_run_file(path)
    return validate(saved["config"]), saved


def trained(run: Path) -> tuple[Any, Any, Any]:
    """Return a finished training's configuration, data set and network."""
    from wsss.data.voc import VocDataset
    from wsss.overrides import ConfigError
    from wsss.training.cam import build_cam_net
    from wsss.training.checkpoint import CheckpointFolder

    config, saved = recall(run)
    dataset = VocDataset(Path(saved["data"]))
    samples = dataset.samples(config.data.train_split)
    weights_file = Path(saved["weights_file"]) if saved["weights_file"] else None
    model = build_cam_net(config, samples, len(dataset.classes), weights_file=weights_file)
    position = CheckpointFolder(run / "checkpoints").restore(model)
    if position.epoch < config.train.epochs:
        raise ConfigError(
            f"{run}: {position.epoch} of {config.train.epochs} epochs trained; finish with the "
            "same `wsss train-cam` command"
        )
    return config, dataset, model
