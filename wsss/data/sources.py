"""Where the archives of VOC 2012 and SBD come from, and whether they are the right ones."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from rich.progress import Progress

from wsss.data.download import DownloadError, fetch, verify
from wsss.data.voc import DataError


class Source(NamedTuple):
    """A public archive."""

    filename: str
    url: str | None
    """None: to be had from a mirror or a local file only."""
    md5: str | None


@dataclass(frozen=True)
class PrepareRequest:
    """What to prepare, and from where."""

    root: Path
    """Folder to write, usually .../VOCdevkit/VOC2012. One that holds VOC already is completed."""
    archives: Mapping[str, Path] = field(default_factory=dict)
    """Step (voc, sbd, test) -> local archive."""
    mirrors: tuple[str, ...] = ()
    """Addresses of folders that hold the archives, tried in order before the public ones."""
    downloads: Path | None = None
    """Where downloaded archives lie; default: `archives` beside `root`."""
    sha256: Mapping[str, str] = field(default_factory=dict)
    """File name of an archive -> hex digest, in addition to the known MD5."""
    with_test: bool = False
    allow_partial: bool = False
    """Take archives and lists that are not the official ones: no MD5, no list digests."""
    num_workers: int = 1

    def __post_init__(self) -> None:
        for name, digest in self.sha256.items():
            if not re.fullmatch("[0-9a-fA-F]{64}", digest):
                raise DataError(f"{name}: {digest!r} is no SHA-256; give 64 hex digits")


def public_sources() -> dict[str, Source]:
    """Return the archives by step. Addresses and MD5 are torchvision's, read at run time."""
    from torchvision.datasets import SBDataset
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    voc = DATASET_YEAR_DICT["2012"]
    return {
        "voc": Source(voc["filename"], voc["url"], voc["md5"]),
        "sbd": Source(SBDataset.filename, SBDataset.url, SBDataset.md5),
        "test": Source("VOC2012test.tar", None, None),  # given out to registered users
    }


def check_digest_names(request: PrepareRequest, sources: Mapping[str, Source]) -> None:
    """Raise DataError if a digest was given for a file that no step reads: it would go unused."""
    names = [
        request.archives[step].name if step in request.archives else source.filename
        for step, source in sources.items()
    ]
    for name in request.sha256:
        if name not in names:
            raise DataError(f"{name}: no archive of this name; there are {', '.join(names)}")


def obtain(step: str, source: Source, request: PrepareRequest, progress: Progress) -> Path:
    """Return the step's checked archive: the local one, or the one that is downloaded.

    Raises DataError if it cannot be had or is not the expected one.
    """
    local = request.archives.get(step)
    expected = {} if request.allow_partial or not source.md5 else {"md5": source.md5}
    if digest := request.sha256.get(local.name if local else source.filename):
        expected["sha256"] = digest
    if local is None:
        return fetch(
            _addresses(source, request), _folder(request) / source.filename, expected,
            progress=progress,
        )  # fmt: skip
    if not local.is_file():
        raise DataError(f"{local}: no such file; give the path of {source.filename}")
    progress.console.print(f"checking {local.name}", markup=False)
    try:
        verify(local, expected)
    except DownloadError as error:
        hint = "; --allow-partial takes an archive that is not the official one"
        raise DownloadError(f"{error}{hint if 'md5' in expected else ''}") from None
    return local


def _folder(request: PrepareRequest) -> Path:
    return request.downloads or request.root.absolute().parent / "archives"


def _addresses(source: Source, request: PrepareRequest) -> list[str]:
    urls = [f"{mirror.rstrip('/')}/{source.filename}" for mirror in request.mirrors]
    urls += [source.url] if source.url else []
    if not urls and not (_folder(request) / source.filename).exists():
        raise DataError(
            f"{source.filename}: has no public address; register with the organisers of VOC and "
            "give the file (--test), or a --mirror"
        )
    return urls
