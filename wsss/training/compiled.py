"""torch.compile for networks that a process trains one after another."""

from typing import cast

import torch
import torch._dynamo
from torch import nn

MAX_NETWORKS = 256
"""Different networks that one process may compile; torch's own limit over all functions."""


def compile_network(network: nn.Module) -> nn.Module:
    """Return the network behind torch.compile, for inputs of one size (crops have but one).

    A trial's process is used for the next trial, and torch stops compiling, with no more than a log
    line, at the ninth different network: there results would depend on what the process trained
    before. So the limit is raised, and beyond it torch raises FailOnRecompileLimitHit.
    """
    torch._dynamo.config.recompile_limit = MAX_NETWORKS
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    # Another size is another network: kernels for any size are slower and sometimes do not compile.
    return cast("nn.Module", torch.compile(network, dynamic=False))
