"""What a result was computed with."""

import platform
from importlib.metadata import version
from typing import Any

from sweeps.store.code_version import code_version
from wsss.training.process import Process


def environment(process: Process) -> dict[str, Any]:
    """Return code, versions and the kind of machine, as a result records them."""
    packages = ("torch", "torchvision", "numpy", "pillow", "ray", "mlflow", "wsss-sweeps")
    return {
        "code_version": code_version(),
        "python": platform.python_version(),
        "device": process.device.type,
        "processes": process.world_size,
        **{name: version(name) for name in packages},
    }
