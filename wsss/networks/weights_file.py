"""Weights files: which tensors of a checkpoint, however wrapped, are those of a backbone.

A file may hold a state dict, or one inside others (`state_dict`, `model`, ...). The network's keys
may have a prefix (`module.`, `backbone.encoder.`, ...), and a classifier may be beside it. No code
from a file is ever run.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wsss.basics.errors import let_through
from wsss.basics.printable import MAX_QUOTED, printable
from wsss.weights import WeightsError

CLASSIFIERS = ("classifier.", "fc.")
INSIDE = " / "
"""Between the names of dictionaries that lie in each other."""
MAX_WRAPPERS = 4
"""Dictionaries around a state dict that are searched."""
NUM_NAMED = 3
"""How many of a file's keys a message names."""
NUM_SHOWN = 24
"""How many of a file's first bytes a message shows: they tell a web page or a Git LFS pointer."""


def load_state_file(model: nn.Module, name: str, path: Path) -> None:
    """Load a file's weights into a torchvision model of this name, all but the classifier.

    Raises WeightsError unless the file holds every tensor of the features once: finite
    floating-point numbers in its shape.
    """
    wanted, held = _features(model), _tensors(_read(path))
    faults_at = {
        place: [
            f"{key} {fault}"
            for key, expected in wanted.items()
            if (fault := _fault(held.get(place + key), expected))
        ]
        for place in _places(held, wanted) or [""]
    }
    fitting = [place for place, faults in faults_at.items() if not faults]
    if not fitting:
        faults = min(faults_at.values(), key=len)
        raise WeightsError(
            f"{path}: no weights of {name}: {len(faults)} of {len(wanted)} tensors do not fit, "
            f"first {faults[0]}; the file holds {_listed(held)}; choose the backbone they belong "
            "to, or give another file"
        )
    if len(fitting) > 1:
        places = ", ".join(repr(each.removesuffix(INSIDE) or "the outermost") for each in fitting)
        raise WeightsError(
            f"{path}: holds {len(fitting)} networks that fit {name}: {printable(places)}; save the "
            "state dict of the one you mean in a separate file"
        )
    model.load_state_dict({key: held[fitting[0] + key] for key in wanted}, strict=False)


def _features(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors that a file must hold: all but classifier and counters."""
    return {
        key: tensor
        for key, tensor in model.state_dict().items()
        if not key.startswith(CLASSIFIERS) and not key.endswith("num_batches_tracked")
    }


def _read(path: Path) -> Mapping[Any, Any]:
    """Return a file's content without running code from it. Raises WeightsError."""
    with path.open("rb") as file:
        start = file.read(NUM_SHOWN)
    # Safetensors begin with the length of a JSON object, and the object.
    is_safe = start[8:9] == b"{" and int.from_bytes(start[:8], "little") + 8 <= path.stat().st_size
    try:
        if is_safe:
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is not a checkpoint
        let_through(error, path)
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        fault = f"it needs code to be run: {code[1]}" if code else f"it begins with {start!r}"
        raise WeightsError(
            f"{path}: not a plain state dict: {fault}; get the file again, or save it with "
            "torch.save(model.state_dict(), file)"
        ) from None
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path}: holds a {type(content).__name__}, expected a state dict")
    return content


def _tensors(
    found: Mapping[Any, Any], place: str = "", depth: int = MAX_WRAPPERS
) -> dict[str, Tensor]:
    """Return the tensors of a dictionary, and of those inside it under `outer / inner`."""
    tensors: dict[str, Tensor] = {}
    for key, value in found.items():
        if isinstance(value, Mapping) and depth:
            tensors |= _tensors(value, f"{place}{key}{INSIDE}", depth - 1)
        elif isinstance(value, Tensor):
            tensors[f"{place}{key}"] = value
    return tensors


def _places(held: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """Return each place that has the first or the last wanted key: the beginning of its keys."""
    first, *_, last = wanted
    places = {key.removesuffix(end) for key in held for end in (first, last) if key.endswith(end)}
    return sorted(each for each in places if not each or each.endswith((".", INSIDE)))


def _fault(found: Tensor | None, expected: Tensor) -> str:
    """Say why a tensor cannot be loaded; "" if it can."""
    if found is None:
        return "is missing"
    if found.shape != expected.shape:
        return f"is {_shape(found)}, expected {_shape(expected)}"
    if found.layout != torch.strided or found.device.type != "cpu":  # meta tensors have no data
        return "holds no plain numbers"
    if not (found.is_floating_point() and bool(found.isfinite().all())):
        return "holds other than finite floating-point numbers"
    return ""


def _listed(held: Mapping[str, Tensor]) -> str:
    """Say what a file holds, in a few words."""
    keys = ", ".join([*list(held)[:NUM_NAMED], *(["..."] if len(held) > NUM_NAMED else [])])
    return f"{len(held)} tensors: {printable(keys)[:MAX_QUOTED]}" if held else "no tensor"


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"
