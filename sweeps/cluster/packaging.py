"""Packs the project for a cluster: what git would commit, in one archive under a size limit."""

import fnmatch
import os
import re
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from sweeps.store.code_version import code_version
from wsss.errors import ForeseenError

MAX_BYTES = 100 * 2**20
"""Limit on the sum of file sizes: Ray keeps packages in the head's memory, and refuses larger."""
LARGEST_NAMED = 5

ALWAYS_LEFT_OUT = (".git", ".venv", "__pycache__", "*.egg-info")
SECRETS = (".env", ".env.*", "*.pem", "*.key", "id_rsa*", "id_ed25519*", "auth_token", "*.tfstate")
"""Files that do not belong on a cluster's disk, even where git does not ignore them."""


class PackagingError(ForeseenError, RuntimeError):
    """The project cannot be packed; the message names the files and the remedy."""


class Package(NamedTuple):
    """An archive to submit."""

    path: Path
    num_files: int
    num_bytes: int
    """Sum of the sizes of the files in it."""
    left_out: tuple[str, ...]
    """Files that look like secrets."""


def make_package(root: Path, target: Path, extra: Mapping[str, Path] | None = None) -> Package:
    """Write the zip archive of the project at `root` to `target`.

    extra: name in the archive -> file, beside those which git would commit. Equal files give equal
    bytes, so Ray uploads a package once. The archive also holds the metadata of an installed
    distribution, so that results computed from it carry the laptop's code version.
    Raises PackagingError if `root` is not the project, a link leads out of it, or it is too large.
    """
    if not (root / "sweeps" / "__main__.py").is_file():
        raise PackagingError(
            f"{root}: no sweeps/__main__.py here; give the command in the project's folder, or "
            "name it with --working-dir"
        )
    found = project_files(root)
    left_out = tuple(name for name in found if _matches(Path(name).name, SECRETS))
    files = {name: root / name for name in found if name not in left_out} | dict(extra or {})
    sizes = {name: _size(root, name, path) for name, path in files.items()}
    _check_size(root, sizes)
    target.parent.mkdir(parents=True, exist_ok=True)
    with ZipFile(target, "w", ZIP_DEFLATED) as archive:
        for name in sorted(files):
            _add(archive, name, files[name].read_bytes())
        metadata = f"Metadata-Version: 2.1\nName: wsss-sweeps\nVersion: {_release()}\n"
        folder = f"wsss_sweeps-{version('wsss-sweeps')}.dist-info"
        _add(archive, f"{folder}/METADATA", metadata.encode())
    return Package(target, len(files), sum(sizes.values()), left_out)


def project_files(root: Path) -> list[str]:
    """Return the files under `root` that git would commit, as sorted relative POSIX paths.

    Without git, or outside a checkout: all files but those that the plain patterns of .gitignore
    name (no `!` and no `**`).
    """
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=root, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return _files_without_git(root)
    names = {name for name in os.fsdecode(listed).split("\0") if name}
    return sorted(name for name in names if (root / name).is_file() and not _is_left_out(name))


def _files_without_git(root: Path) -> list[str]:
    ignore = root / ".gitignore"
    lines = ignore.read_text(encoding="utf-8").splitlines() if ignore.exists() else []
    patterns = [line.strip() for line in lines if line.strip() and line.strip()[0] not in "#!"]
    anchored = tuple(p.strip("/") for p in patterns if "/" in p.rstrip("/"))
    anywhere = tuple(p.strip("/") for p in patterns if "/" not in p.rstrip("/"))
    found = []
    for folder, folders, files in os.walk(root):
        relative = Path(folder).relative_to(root)

        def kept(name: str, relative: Path = relative) -> bool:
            path = (relative / name).as_posix()
            return not (_matches(name, ALWAYS_LEFT_OUT + anywhere) or _matches(path, anchored))

        folders[:] = [name for name in folders if kept(name)]
        found += [(relative / name).as_posix() for name in files if kept(name)]
    return sorted(found)


def _is_left_out(name: str) -> bool:
    return any(_matches(part, ALWAYS_LEFT_OUT) for part in Path(name).parts)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _size(root: Path, name: str, path: Path) -> int:
    if path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
        raise PackagingError(
            f"{name}: a link to {path.resolve()}, outside the project; the cluster would not have "
            "it; add it to .gitignore or put the file itself there"
        )
    return path.stat().st_size


def _check_size(root: Path, sizes: dict[str, int]) -> None:
    total = sum(sizes.values())
    if total <= MAX_BYTES:
        return
    largest = sorted(sizes, key=lambda name: -sizes[name])[:LARGEST_NAMED]
    named = "\n".join(f"  {sizes[name] / 2**20:8.1f} MiB  {name}" for name in largest)
    raise PackagingError(
        f"{root}: {total / 2**20:.1f} MiB in {len(sizes)} files, more than the "
        f"{MAX_BYTES / 2**20:.0f} MiB that a cluster takes; the largest:\n{named}\n"
        "add what is not code to .gitignore; data belongs on the cluster's own storage"
    )


def _release() -> str:
    """Return release and commit; the digest of the sources is computed again where they arrive."""
    return re.sub(r"[.+]s[0-9a-f]{10}$", "", code_version())


def _add(archive: ZipFile, name: str, content: bytes) -> None:
    """Add a file with a fixed date and mode, which do not change the archive's digest."""
    info = ZipInfo(name)
    info.external_attr = 0o644 << 16
    info.compress_type = ZIP_DEFLATED
    archive.writestr(info, content)
