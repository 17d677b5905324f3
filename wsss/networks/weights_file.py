"""Weights files: which tensors of a checkpoint, however wrapped, are those of a backbone.

A file may hold a state dict, or one inside others (`state_dict`, `model`, ...). The network's keys
may have a prefix (`module.`, `backbone.encoder.`, ...), and a classifier may be beside it. No code
from a file is ever run.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from zipfile import ZipFile

import torch
from torch import Tensor, nn

from wsss.basics.errors import let_through
from wsss.basics.files import BROKEN_ZIP
from wsss.basics.printable import MAX_QUOTED, printable
from wsss.weights import WeightsError

CLASSIFIERS = ("classifier.", "fc.")
INSIDE = " / "
"""Between the names of dictionaries that lie in each other."""
MAX_WRAPPERS = 4
"""Dictionaries around a state dict that are searched."""
NUM_NAMED = 3
"""How many of a file's keys a message names."""


class _Candidate(NamedTuple):
    """A place in a file at which a network may be."""

    place: str
    """The beginning of its keys."""
    state: dict[str, Tensor]
    """Wanted key -> tensor."""
    missing: list[str]
    """Wanted keys that it lacks."""
    misshapen: list[str]
    """Wanted keys whose tensors have another shape here."""


def load_state_file(model: nn.Module, name: str, path: Path) -> None:
    """Load a file's weights into a torchvision model of this name, all but the classifier.

    Raises WeightsError unless the file holds every tensor of the features once, with its shape.
    """
    wanted, held = _features(model), _tensors(_read(path))
    candidates = list(_candidates(held, wanted))
    fitting = [each for each in candidates if not (each.missing or each.misshapen)]
    if not fitting:
        raise WeightsError(f"{path}: no weights of {name}: {_difference(candidates, wanted, held)}")
    if len(fitting) > 1:
        places = ", ".join(repr(c.place.removesuffix(INSIDE) or "the outermost") for c in fitting)
        raise WeightsError(
            f"{path}: holds {len(fitting)} networks that fit {name}: {printable(places)}; save the "
            "state dict of the one you mean in a separate file"
        )
    weights = fitting[0].state
    unusable = [key for key, x in weights.items() if not (x.is_floating_point() and _finite(x))]
    if unusable:
        raise WeightsError(
            f"{path}: {len(unusable)} of {len(wanted)} tensors, first {unusable[0]}, are not "
            "finite floating-point numbers; give unquantised weights that have not diverged"
        )
    model.load_state_dict(weights, strict=False)


def _finite(tensor: Tensor) -> bool:
    return bool(tensor.isfinite().all())


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
        start = file.read(512)
    if fault := _no_weights(start):
        raise WeightsError(f"{path}: {fault}")
    # Safetensors begin with the length of a JSON object, and the object.
    is_safe = start[8:9] == b"{" and int.from_bytes(start[:8], "little") + 8 <= path.stat().st_size
    try:
        if is_safe:
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is not a checkpoint
        let_through(error, path)
        raise WeightsError(f"{path}: not a plain state dict: {_reason(error, path)}") from None
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path}: holds a {type(content).__name__}, expected a state dict")
    return content


def _no_weights(start: bytes) -> str:
    """Say what a failed download left behind, and the remedy; "" for anything else."""
    if not start:
        return "is empty, expected a state dict; get the file again"
    if start.startswith(b"version https://git-lfs"):
        return (
            "is a Git LFS pointer, expected a state dict; get the file itself with `git lfs pull`"
        )
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page, expected a state dict; download the file that it links to"
    return ""


def _reason(error: Exception, path: Path) -> str:
    """Return in a few words why a file is refused, and the remedy."""
    text, held = str(error), _names_in_zip(path)
    if ".tar format" in text or not held & {"", "data.pkl"}:
        return "it is an archive of other files; unpack it"
    if "PytorchStreamReader" in text or "deserializing header" in text:
        return "it is cut off or damaged; get it again"
    if code := re.search(r"GLOBAL ([\w.]+)", text):
        why = f"it is a pickle that needs code to be run: {code[1]}"
    elif "constants.pkl" in held:
        why = "it is a TorchScript program"
    elif "pickle protocol" in text or text.startswith("Weights only load failed"):
        why = "it is not what torch.save writes"
    else:
        why = printable((text.splitlines() or [type(error).__name__])[0])[:120]
    return f"{why}; save it with torch.save(model.state_dict(), file)"


def _names_in_zip(path: Path) -> set[str]:
    """Return the names, without folders, of what a zip holds; {""} if it is none, or damaged."""
    try:
        with ZipFile(path) as archive:
            return {PurePosixPath(name).name for name in archive.namelist()}
    except BROKEN_ZIP:
        return {""}


def _tensors(
    found: Mapping[Any, Any], place: str = "", depth: int = MAX_WRAPPERS
) -> dict[str, Tensor]:
    """Return the tensors of a dictionary, and of those inside it under `outer / inner`."""
    tensors: dict[str, Tensor] = {}
    for key, value in found.items():
        if _is_plain(value):
            tensors[f"{place}{key}"] = value
        elif isinstance(value, Mapping) and depth:
            tensors |= _tensors(value, f"{place}{key}{INSIDE}", depth - 1)
    return tensors


def _candidates(held: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Iterator[_Candidate]:
    """Yield each place that has the first or the last wanted key."""
    first, *_, last = wanted
    places = {key.removesuffix(end) for key in held for end in (first, last) if key.endswith(end)}
    for place in sorted(each for each in places if not each or each.endswith((".", INSIDE))):
        state = {key: held[place + key] for key in wanted if place + key in held}
        yield _Candidate(
            place,
            state,
            [key for key in wanted if key not in state],
            [key for key, x in state.items() if x.shape != wanted[key].shape],
        )


def _is_plain(value: Any) -> bool:
    """Whether a value is a dense tensor with data on the CPU."""
    return (
        isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"
    )


def _difference(
    candidates: list[_Candidate], wanted: Mapping[str, Tensor], held: Mapping[str, Tensor]
) -> str:
    """Say why a file does not fit, and what it holds."""
    keys = ", ".join([*list(held)[:NUM_NAMED], *(["..."] if len(held) > NUM_NAMED else [])])
    holds = (
        f"the file holds {len(held)} tensors: {printable(keys)[:MAX_QUOTED]}"
        if held
        else "the file holds no tensor"
    )
    remedy = "choose the backbone they belong to, or give another file"
    nothing = _Candidate("", {}, [*wanted], [])
    best = min(candidates, key=lambda c: len(c.missing) + len(c.misshapen), default=nothing)
    faults = []
    if best.missing:
        faults.append(
            f"{len(best.missing)} of {len(wanted)} tensors are missing, first {best.missing[0]}"
        )
    if best.misshapen:
        key = best.misshapen[0]
        faults.append(
            f"{len(best.misshapen)} of {len(wanted)} tensors have another shape, first {key}: "
            f"{_shape(best.state[key])}, expected {_shape(wanted[key])}"
        )
    return f"{'; '.join(faults)}; {holds}; {remedy}"


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"
