"""Machines that are set up otherwise than ours, on which commands run in processes of their own."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).parents[2]


@dataclass
class Machine:
    """Where commands run, how, and with which paths."""

    folder: Path
    store: Path
    data: Path
    environment: dict[str, str]
    encoding: str
    prefix: tuple[str, ...] = ()

    def run(self, *words: str | Path) -> subprocess.CompletedProcess[bytes]:
        """Run a command to its end; no traceback, whatever comes of it."""
        done = subprocess.run(
            [*self.prefix, sys.executable, "-m", *map(str, words)],
            cwd=self.folder,
            umask=0o077,
            env=self.environment,
            capture_output=True,
            timeout=500,
            check=False,
        )
        assert b"Traceback" not in done.stderr, done.stderr.decode(self.encoding)
        return done

    def text(self, *words: str | Path) -> str:
        """Return what a command prints that must succeed, in the terminal's encoding."""
        done = self.run(*words)
        assert done.returncode == 0, done.stderr.decode(self.encoding)
        return done.stdout.decode(self.encoding)

    def refusal(self, *words: str | Path) -> str:
        """Return the line with which a command is refused, its last one."""
        done = self.run(*words)
        (*_, line) = done.stderr.decode(self.encoding).splitlines()
        assert done.returncode == 2
        assert line.startswith("error: ")
        return line


def environment(**changes: str) -> dict[str, str]:
    """Ours without a home, caches or a user's name."""
    gone = {
        "HOME",
        "USER",
        "LOGNAME",
        "XDG_CACHE_HOME",
        "WSSS_CACHE",
        "WSSS_STORE",
        "LC_ALL",
        "RAY_AUTH_TOKEN",
    }
    kept = {name: value for name, value in os.environ.items() if name not in gone}
    paths = {"PYTHONPATH": str(REPO), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    return kept | paths | {"http_proxy": "http://127.0.0.1:9", "COLUMNS": "100"} | changes


def stranger() -> tuple[str, ...]:
    """A command's first words, with which a user without a name or a home gives it.

    The user may read all, so that Python starts. Only root can be another user.
    """
    if os.geteuid() != 0:
        return ()
    return (
        "setpriv",
        "--reuid=12345",
        "--regid=12345",
        "--clear-groups",
        "--inh-caps=+dac_read_search",
        "--ambient-caps=+dac_read_search",
    )
