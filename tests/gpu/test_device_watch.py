"""The watches see what they are for, and let pass what is free on a GPU."""

import itertools
from collections.abc import Callable
from typing import Any, Literal

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
from pydantic import Field
from switches import each_once, in_pairs, switches
from torch import Tensor, nn

from wsss.config import Settings

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
OF_VALUES: dict[str, Step] = {
    "equal": lambda x: torch.equal(x, x),
    "allclose": lambda x: torch.allclose(x, x),
    "nonzero": lambda x: x.nonzero(),
    "a mask as index": lambda x: x[x > 0],
    "masked_select": lambda x: x.masked_select(x > 0),
    "unique": lambda x: x.unique(),
    "repeat_interleave": lambda x: x.repeat_interleave(torch.ones_like(x[:, 0]).long(), 0),
    "bincount": lambda x: x[0].long().bincount(),
}
"""Steps which fake tensors cannot go on from."""
FREE: dict[str, Step] = {
    "a number": lambda x: x + 1.5,
    "a scalar of the CPU": lambda x: x * torch.tensor(2.0),
    "made on the device": lambda x: x + torch.full((4,), 2.0, device=x.device),
    "where": lambda x: torch.where(x > 0, x, 0),
    "a number assigned": lambda x: x.__setitem__((slice(None), 0), 1.0),
    "indices on the device": lambda x: x[torch.arange(2, device=x.device)],
    "a copy that does not block": lambda x: torch.ones(4).to(x.device, non_blocking=True),
    "all of it on the CPU": lambda x: torch.ones(4)[torch.arange(2)],
}


def named(steps: dict[str, Step]) -> list[Any]:
    return [pytest.param(step, id=name) for name, step in steps.items()]


@pytest.mark.parametrize("device", [CUDA, WITH_BACKWARD], ids=str)
@pytest.mark.parametrize("step", named(MIXED))
def test_an_operation_on_two_devices_is_refused(step: Step, device: torch.device) -> None:
    with fake_gpu(), no_mixed_devices(), pytest.raises(MixedDevicesError, match=r"cpu \["):
        step(torch.ones(3, 4, device=device))


@pytest.mark.parametrize("step", named(FREE))
def test_what_is_free_on_a_gpu_passes(step: Step) -> None:
    with fake_gpu(), no_mixed_devices(), host_waits(CUDA) as waits:
        step(torch.ones(3, 4, device=CUDA))
    assert not waits


@pytest.mark.parametrize("step", named(WAITING))
def test_a_wait_is_counted(step: Step) -> None:
    with fake_gpu(), host_waits(CUDA) as waits:
        step(torch.ones(3, 4, device=CUDA))
    assert sum(waits.values()) == 1


@pytest.mark.parametrize("step", named(OF_VALUES))
def test_a_wait_is_counted_on_real_tensors(step: Step) -> None:
    with host_waits(torch.device("cpu")) as waits:
        step(torch.ones(3, 4))
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


def test_a_fake_module_moves_with_what_it_has_registered() -> None:
    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))
            self.register_buffer("shift", torch.ones(4))
            self.forgotten = torch.ones(4)

    with fake_gpu(), no_mixed_devices():
        module = Module().to(CUDA)
        assert {module.weight.device, module.shift.device} == {CUDA}
        assert module.weight.requires_grad
        with pytest.raises(MixedDevicesError):
            module.weight * module.forgotten


def test_only_a_tensor_of_the_host_becomes_an_array() -> None:
    with fake_gpu():
        x = torch.ones(3, 4, device=CUDA)
        with pytest.raises(TypeError, match="cuda:0"):
            x.numpy()
        assert x.cpu().numpy().shape == (3, 4)


def test_real_tensors_work_as_before_once_the_gpu_is_gone() -> None:
    with fake_gpu():
        torch.ones(3, device=CUDA).sum()
    x = torch.ones(3, requires_grad=True)
    (x * x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [2, 2, 2]


class _Model(Settings):
    kind: Literal["a", "b", "c"] = "a"
    on: bool = False
    stages: int = Field(0, ge=0, le=4)
    seed: int = Field(0, ge=0, le=1000)
    rate: float = 0.1
    other: Literal[1, 2] = 1


def test_switches_are_the_settings_of_few_values() -> None:
    values = {"kind": ("a", "b", "c"), "on": (False, True), "stages": (0, 4), "other": (1, 2)}
    assert switches(_Model) == values
    assert set(switches(_Model, without=["on"])) == {"kind", "stages", "other"}
    with pytest.raises(ValueError, match="has no gone"):
        switches(_Model, without=["gone"])


def test_every_two_values_of_two_switches_come_together() -> None:
    values = switches(_Model)
    rows = in_pairs(values)
    for one, other in itertools.combinations(values, 2):
        together = {(row[one], row[other]) for row in rows}
        assert together == set(itertools.product(values[one], values[other]))
    assert len(rows) < 3 * 2 * 2 * 2
    assert in_pairs({"kind": ("a", "b")}) == [{"kind": "a"}, {"kind": "b"}]


def test_every_value_of_a_switch_comes_once_in_few_rows() -> None:
    values = switches(_Model)
    found = each_once(values)
    assert len(found) == 3
    assert all({row[name] for row in found} == {*values[name]} for name in values)
