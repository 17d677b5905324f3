"""The watches see what they are for; what they let pass, the tests that use them show."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from device_watch import (
    CUDA,
    WITH_BACKWARD,
    MixedDevicesError,
    fake_gpu,
    host_waits,
    no_mixed_devices,
)
from torch import Tensor

Step = Callable[[Tensor], Any]
"""Of a tensor [3, 4] on the device."""

MIXED: dict[str, Step] = {
    "a sum": lambda x: x + torch.ones(4),
    "indices": lambda x: x[torch.tensor([0, 1])],
    "an argument by name": lambda x: torch.where(x > 0, x, other=torch.ones(4)),
    "a list": lambda x: torch.cat([x, torch.ones(1, 4)]),
}
WAITING: dict[str, Step] = {
    "item": lambda x: x[0, 0].item(),
    "bool": lambda x: bool(x.sum() > 0),
    "a list of values": lambda x: x[0, :1].tolist(),
    "a copy to the host": lambda x: x.cpu(),
    "a constant": lambda x: torch.tensor([1.0, 2.0], device=x.device),
    "a scalar": lambda x: torch.tensor(1.0, device=x.device),
    "an assignment": lambda x: x.__setitem__(0, torch.ones(4)),
    "a list as index": lambda x: x[[0, 1]],
    "a masked assignment": lambda x: x.__setitem__(x > 0, 0),
}


def named(steps: dict[str, Step]) -> list[Any]:
    return [pytest.param(step, id=name) for name, step in steps.items()]


@pytest.mark.parametrize("device", [CUDA, WITH_BACKWARD], ids=str)
@pytest.mark.parametrize("step", named(MIXED))
def test_an_operation_on_two_devices_is_refused(step: Step, device: torch.device) -> None:
    with fake_gpu(), no_mixed_devices(), pytest.raises(MixedDevicesError, match=r"cpu \["):
        step(torch.ones(3, 4, device=device))


@pytest.mark.parametrize("step", named(WAITING))
def test_a_wait_is_counted(step: Step) -> None:
    with fake_gpu(), host_waits(CUDA) as waits:
        step(torch.ones(3, 4, device=CUDA))
    assert sum(waits.values()) == 1


class _Careless(torch.autograd.Function):
    """Its backward pass asks for a value, and indexes by a tensor of the CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mixes: bool) -> Tensor:
        ctx.mixes = mixes
        return x * 2

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        if ctx.mixes:
            return gradient[torch.arange(3)], None
        return gradient * float(gradient.sum()), None


def test_the_backward_pass_is_watched() -> None:
    with fake_gpu(), no_mixed_devices(), host_waits(WITH_BACKWARD) as waits:
        x = torch.ones(3, 4, device=WITH_BACKWARD, requires_grad=True)
        _Careless.apply(x, False).sum().backward()
        assert sum(waits.values()) == 1
        with pytest.raises(MixedDevicesError):
            _Careless.apply(x, True).sum().backward()
