"""What a result was computed with: which code, which packages, which kind of machine."""

import hashlib
import os
import platform
import re
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it loads torch, and planning asks for the code's version
    from wsss.training.process import Process

ROOT = Path(__file__).parents[2]

COMMIT = "WSSS_COMMIT"
"""Variable that names the commit of sources without git, such as those sent to a cluster."""


@cache
def code_version() -> str:
    """Return release, commit and a digest of the sources, e.g. `0.1.0+2039d67-dirty.s1f0c9d2ab4`.

    Computed once per process, since the code that was imported counts, not later changes.
    """
    known = commit()
    return f"{version('wsss-sweeps')}+{known and known + '.'}s{source_digest()}"


def commit(root: Path = ROOT) -> str:
    """Return the sources' commit from git, else from the variable COMMIT, else "".

    Installed sources may be in a folder of another repository, which does not track them. A
    container's user often does not own the checkout, of which git otherwise tells nothing.
    """
    git = ["git", "-c", f"safe.directory={root.resolve()}"]
    tracked = [*git, "ls-files", "--error-unmatch", "sweeps"]
    described = [*git, "describe", "--always", "--dirty", "--exclude=*"]
    try:
        for command in (tracked, described):
            done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get(COMMIT, "")
    return done.stdout.strip()


@cache
def source_digest(*packages: str, root: Path = ROOT) -> str:
    """Return ten hex digits over names and contents of packages' Python files; default: both.

    Independent of git: an uncommitted change counts, a commit to the documentation does not.
    """
    digest = hashlib.sha256()
    for package in packages or ("wsss", "sweeps"):
        for path in sorted((root / package).rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode() + b"\0")
            digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()[:10]


def sources_of(recorded: str) -> str:
    """Return the digest in a recorded version; the whole version if an older release wrote it."""
    found = re.search(r"[+.]s([0-9a-f]{10})$", recorded)
    return found.group(1) if found else recorded


def commit_of(recorded: str) -> tuple[str, bool] | None:
    """Return (commit, whether files were changed) of a recorded version; None without a commit."""
    found = re.search(r"\+([0-9a-f]{7,40})(-dirty)?\.s", recorded)
    return (found[1], found[2] is not None) if found else None


def environment(process: "Process") -> dict[str, str | int]:
    """Return code, package versions and kind of machine, as a result records them."""
    packages = ("torch", "torchvision", "numpy", "pillow", "ray", "mlflow", "wsss-sweeps")
    return {
        "code_version": code_version(),
        "python": platform.python_version(),
        "device": process.device.type,
        "processes": process.world_size,
        **{name: version(name) for name in packages},
    }
