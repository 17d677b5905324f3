"""A GPU without a card: fake tensors that know their device, and watches over what is done to them.

A fake tensor has a shape, a type and a device but no values: a step at full size takes about a
second, and most operations on tensors of two devices fail as they do on a card. What torch lets
pass is for the watches, which see every operation, those of the backward pass included.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import wsss

CUDA = torch.device("cuda", 0)
"""For all but a backward pass, at which torch asks the driver for a card."""
WITH_BACKWARD = torch.device("lazy", 0)
"""Torch's one other device that needs no driver. It has no autocast: there, steps are in fp32."""

SOURCES = Path(wsss.__file__).parent
aten = torch.ops.aten

COPIES = {aten._to_copy, aten.copy_}
WAITING = {
    aten._local_scalar_dense,
    aten.is_nonzero,
    aten.equal,
    aten.allclose,
    aten.nonzero,
    aten.masked_select,
    aten.unique_dim,
    aten._unique,
    aten._unique2,
    aten.unique_consecutive,
    aten.unique_dim_consecutive,
    aten.bincount,
    aten.repeat_interleave,
}
"""A value, or a shape which depends on values: the host waits until the device has computed it."""
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
"""With a mask as index, they ask for its nonzero elements."""


class MixedDevicesError(AssertionError):
    """An operation takes a tensor on the CPU together with one on the device."""


@contextmanager
def fake_gpu() -> Iterator[None]:
    """Within this context every new tensor is fake, and `.to` moves it to any device.

    The NumPy array of a fake tensor on the CPU is 0; on a device there is none, as on a card.
    """
    with ExitStack() as stack:
        for owner, name, value in (
            (nn.Module, "_apply", _apply),
            (FakeTensor, "numpy", _zeros),
            # Else torch computes with the values of small constants, on the card if told so.
            (FakeTensorMode, "may_turn_const", lambda mode, tensor: False),
            # Else autocast warns that there is no card, and does nothing.
            (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
            (torch.cuda, "is_bf16_supported", lambda: True),
            (torch, "autocast", _autocast),
            (import_module("torch.optim.sgd"), "_device_dtype_check_for_fused", _allow),
        ):
            stack.enter_context(mock.patch.object(owner, name, value))
        library = stack.enter_context(torch.library._scoped_library("aten", "IMPL"))
        library.impl("_fused_sgd_", _allow, "Meta")  # torch has none
        # In another thread, the backward pass would be out of the watches' sight.
        stack.enter_context(torch.autograd.set_multithreading_enabled(False))
        stack.enter_context(FakeTensorMode())
        yield


@contextmanager
def no_mixed_devices() -> Iterator[None]:
    """Raise MixedDevicesError for an operation, other than a copy, on CPU and device tensors.

    Torch itself allows a CPU tensor as an index. Scalars (0-dim) are free: a kernel takes them as
    its arguments.
    """
    with _NoMixedDevices():
        yield


@contextmanager
def host_waits(device: torch.device) -> Iterator[Counter[str]]:
    """Count what makes the host wait for `device`, by operation and line of the sources.

    These are values that the host asks for, shapes that depend on values, copies to the host, and
    copies to the device but for non_blocking ones (whose memory it is for the loader to pin). On
    the CPU as `device`, there are no copies to be seen. A value read from a fake tensor is 1.
    """
    watch = _HostWaits(device)
    with watch:
        yield watch.found


class _NoMixedDevices(TorchDispatchMode):
    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        on_cpu = [t.dim() > 0 for t in tensors if t.device.type == "cpu"]
        if any(on_cpu) and len(on_cpu) < len(tensors) and func.overloadpacket not in COPIES:
            found = ", ".join(f"{t.device} {list(t.shape)}" for t in tensors)
            raise MixedDevicesError(f"{func.overloadpacket} of {found} at {_line()}")
        return func(*args, **(kwargs or {}))


class _HostWaits(TorchDispatchMode):
    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        operation, kwargs = func.overloadpacket, kwargs or {}
        waits = operation in WAITING or (operation in INDEXING and _has_mask(args[1]))
        if waits and self._is_here(args[0]):
            self._note(str(operation))
            if operation is aten._local_scalar_dense and isinstance(args[0], FakeTensor):
                return _one(args[0].dtype)
        result = func(*args, **kwargs)
        if operation in COPIES:
            source = args[1] if operation is aten.copy_ else args[0]
            self._note_copy(source, result, non_blocking=_non_blocking(operation, args, kwargs))
        return result

    def _is_here(self, tensor: Any) -> bool:
        return isinstance(tensor, Tensor) and tensor.device.type == self.device.type

    def _note(self, what: str) -> None:
        self.found[f"{what} at {_line()}"] += 1

    def _note_copy(self, source: Tensor, target: Tensor, *, non_blocking: bool) -> None:
        if self._is_here(source) == self._is_here(target):
            return
        if self._is_here(source):
            self._note("copy to the host")
        elif not non_blocking:
            self._note("copy to the device")


def _has_mask(indices: Any) -> bool:
    return any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in indices)


def _non_blocking(operation: Any, args: Any, kwargs: Any) -> bool:
    by_position = len(args) > 2 and operation is aten.copy_ and args[2]
    return bool(by_position or kwargs.get("non_blocking"))


def _one(dtype: torch.dtype) -> bool | int | float:
    if dtype is torch.bool:
        return True
    return 1.0 if dtype.is_floating_point else 1


def _line() -> str:
    """Return the line of the sources which is being executed, for a message."""
    frame = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(SOURCES):
            return f"{path.relative_to(SOURCES.parent)}:{frame.f_lineno}"
        frame = frame.f_back
    return "no line of wsss (the backward pass, or the test)"


def _apply(
    module: nn.Module, change: Callable[[Tensor], Tensor], recurse: bool = True
) -> nn.Module:
    """Stand in for Module._apply, which cannot exchange the contents of fake tensors."""
    for child in module.children() if recurse else ():
        child._apply(change)
    for name, parameter in module._parameters.items():
        if parameter is not None:
            with torch.no_grad():
                changed = change(parameter)
            module._parameters[name] = nn.Parameter(changed, parameter.requires_grad)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = change(buffer)
    return module


def _autocast(device_type: str, *args: Any, **kwargs: Any) -> AbstractContextManager[Any]:
    known = torch.amp.is_autocast_available(device_type)
    return torch.amp.autocast(device_type, *args, **kwargs) if known else nullcontext()


def _allow(*args: Any, **kwargs: Any) -> None:
    """Stand in for the fused SGD, and for the check which knows no other device than CUDA."""


def _zeros(tensor: Tensor) -> NDArray[Any]:
    if tensor.device.type != "cpu":
        raise TypeError(f"a tensor on {tensor.device} has no array; copy it to the host first")
    return np.zeros(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
