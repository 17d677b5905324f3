"""Which code computed a result."""

import subprocess
from importlib.metadata import version
from pathlib import Path


def code_version() -> str:
    """Return the release and, in a git checkout, the commit, with `-dirty` for local changes."""
    release = version("wsss-sweeps")
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        commit = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return release
    return f"{release}+{commit}"
