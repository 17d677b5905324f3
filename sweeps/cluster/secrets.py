"""The secrets of a cluster: made once on the laptop, kept in files of mode 600, never printed.

`python -m sweeps.cluster.secrets` makes what is missing and corrects wrong modes; it can be run
again at any time. cluster.yaml and cluster.onprem.yaml copy the files to the nodes.
"""

import os
import secrets
import stat
from argparse import ArgumentParser
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from wsss.basics.errors import ForeseenError, explained
from wsss.basics.files import expanded

NODE_ENV_TEMPLATE = """\
# Shell variables for every node of a cluster; copied to ~/.config/wsss/node.env (mode 600) there.
# AWS needs none: its nodes reach the bucket through their role. For another object store:
# AWS_ACCESS_KEY_ID=
# AWS_SECRET_ACCESS_KEY=
# AWS_ENDPOINT_URL=https://objects.example.org
# Where MLflow listens on the head, if not on 5000:
# WSSS_MLFLOW_PORT=5000
# A database for MLflow other than the PostgreSQL which the head starts itself:
# MLFLOW_BACKEND_URI=postgresql+psycopg2://user:password@host/mlflow
# MLFLOW_AUTH_DATABASE_URI=postgresql+psycopg2://user:password@host/mlflow_auth
"""
SECRETS: tuple[tuple[str, str, Callable[[], str]], ...] = (
    # Where Ray looks for it when RAY_AUTH_MODE=token.
    (".ray/auth_token", "Ray token", lambda: secrets.token_hex(32)),
    (".config/wsss/mlflow_password", "MLflow password of admin", lambda: secrets.token_hex(24)),
    (".config/wsss/node.env", "variables of the nodes", lambda: NODE_ENV_TEMPLATE),
)
"""Path below the home folder, meaning and first content of each file."""


class SecretError(ForeseenError):
    """A secret's file is not safe or not usable; the message says what to do."""


def ensure_secrets(home: Path) -> list[str]:
    """Make the missing files below `home`, and return a line on each; existing ones are kept.

    Raises SecretError if a file is empty, a link, or owned by another user.
    """
    return [f"{home / name}  {what}: {_ensure(home / name, make)}" for name, what, make in SECRETS]


def _ensure(path: Path, make: Callable[[], str]) -> str:
    """Make the file at `path` if it is missing, with mode 600 either way; return what was done."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise SecretError(f"{path} is not a plain file; move it away, then run this again")
    if not path.exists():
        _create(path, make())
        return "made"
    found = path.stat()
    if found.st_uid != os.getuid():
        raise SecretError(f"{path} belongs to user id {found.st_uid}; move it away, and run again")
    if not path.read_bytes().strip():  # as from `echo $UNSET`
        raise SecretError(f"{path} is empty, which would mean no secret; remove it, and run again")
    if stat.S_IMODE(found.st_mode) != 0o600:
        path.chmod(0o600)
        return "mode set to 600"
    return "kept"


def _create(path: Path, content: str) -> None:
    """Write a new file of mode 600, unless another process creates it meanwhile."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with suppress(FileExistsError), os.fdopen(os.open(path, flags, 0o600), "w") as file:
        file.write(content)


if __name__ == "__main__":
    with explained():
        ArgumentParser("python -m sweeps.cluster.secrets", description=__doc__).parse_args()
        made = ensure_secrets(Path(expanded("~")))
    print(*made, "Commands on this machine need: export RAY_AUTH_MODE=token", sep="\n")
