"""Compiled networks in a process that trains many, and crops of several sizes."""

from collections.abc import Iterator
from functools import partial

import pytest
import torch
from torch import nn
from torch._dynamo.exc import FailOnRecompileLimitHit
from torch._dynamo.testing import CompileCounter

from wsss.training import compiled
from wsss.training.compiled import compile_network


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Iterator[CompileCounter]:
    """A backend that counts the networks it is given, and leaves them as they are."""
    found = CompileCounter()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=found))
    torch.compiler.reset()
    with torch._dynamo.config.patch(recompile_limit=8, fail_on_recompile_limit_hit=False):
        yield found
    torch.compiler.reset()


def stack(layers: int) -> nn.Sequential:
    return nn.Sequential(*[nn.Linear(3, 3) for _ in range(layers)])


def test_each_of_ten_networks_of_a_process_is_compiled_and_an_equal_one_not_again(
    counter: CompileCounter,
) -> None:
    x = torch.ones(2, 3)
    for layers in range(1, 11):
        network = stack(layers)
        torch.testing.assert_close(compile_network(network)(x), network(x))
        assert counter.frame_count == layers
    compile_network(stack(10))(x)
    assert counter.frame_count == 10


def test_another_size_is_compiled_for_itself(counter: CompileCounter) -> None:
    network = compile_network(stack(2))
    for size in (2, 4, 8):
        assert network(torch.ones(size, 3)).shape == (size, 3)
    assert counter.frame_count == 3  # with sizes left open it would be two


def test_a_network_too_many_is_an_error_rather_than_left_uncompiled(
    counter: CompileCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "MAX_NETWORKS", 2)
    x = torch.ones(2, 3)
    for layers in (1, 2):
        compile_network(stack(layers))(x)
    with pytest.raises(FailOnRecompileLimitHit, match="recompile_limit"):
        compile_network(stack(3))(x)
    assert counter.frame_count == 2
