"""Results on disk: the source of truth; MLflow and every table are views of it.

    <root>/cams/<cam_id>/      config.json  attempts/0001.json  epochs/0001.json  checkpoints/
                               warning.json (if it stayed at the label prior)  done.json
    <root>/counts/<id>/        counts.npz  done.json
    <root>/runs/<run_id>/      config.json  image_counts.npz  threshold_curve.png  cam_gallery.png
                               done.json  or  failure.json
    <root>/sweeps/<name>/      sweep.json  tracking.json  mlflow_pages.json

Every stage has a folder, named by the stage's id; its done.json is written last and marks it as
finished. A file appears whole or not at all, by atomic rename. For s3://bucket/prefix, each machine
has a mirror of the bucket as its folder; code outside this room need not know.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from zipfile import ZipFile

from pydantic import TypeAdapter, ValidationError

from sweeps.store import records
from sweeps.store.errors import StoreError, disk_errors
from sweeps.store.remote.no_bucket import NoBucket
from sweeps.store.rooms import DONE, MARKS, OF_KIND, STAGE_LOCK, Driven, Kind
from wsss.basics import files
from wsss.basics.errors import let_through
from wsss.basics.files import BROKEN_ZIP, cache_folder, expanded, files_in
from wsss.basics.printable import printable, quoted
from wsss.basics.strict import first_problem
from wsss.config import RunConfig
from wsss.identity import canonical_json, run_id
from wsss.overrides import validate
from wsss.training.checkpoint_names import checkpoints_in

if TYPE_CHECKING:  # only writers need locks, and only some stores a bucket: reading starts fast
    from sweeps.store.local_lock import LocalLock
    from sweeps.store.remote.lease import Lease
    from sweeps.store.remote.mirror import Remote

LABEL = "stage.json"

logger = logging.getLogger(__name__)


class Folder:
    """One stage's folder: <root>/<room>/<id>. stage_id: of whose result it may hold; "": any."""

    def __init__(
        self, path: Path, remote: "Remote | NoBucket | None" = None, stage_id: str = ""
    ) -> None:
        self.path, self.remote, self.stage_id = path, remote or NoBucket(), stage_id
        self._lock: Lease | LocalLock | None = None
        """The lock while this process holds it."""

    # Contents

    @property
    def checkpoints(self) -> Path:
        """Folder of a training's checkpoints."""
        return self.path / "checkpoints"

    def checkpoint_names(self) -> list[str]:
        """Return the names of a training's checkpoints here, the newest last."""
        return [path.name for path in checkpoints_in(self.checkpoints)]

    def result(self) -> dict[str, Any] | None:
        """Return a finished stage's result; None before that. Raises StoreError for another's."""
        found = read_record(self.path / DONE, records.RESULT)
        if found and self.stage_id:
            require_own(self.path / DONE, found.get("id", self.stage_id), self.stage_id)
        return found

    def epochs(self) -> list[dict[str, Any]]:
        """Return the record of each epoch, in order. Raises StoreError for one of another epoch.

        From a bucket, files come in any order: there, those behind a gap are left out.
        """
        found: list[dict[str, Any]] = []
        for path, record in _read_numbered(self.path / "epochs", records.EPOCH):
            require_own(path, f"epoch {record.get('epoch')}", f"epoch {int(path.stem)}")
            if self.remote.url and record["epoch"] != len(found) + 1:
                break
            found.append(record)
        return found

    def add_epoch(self, record: dict[str, Any]) -> None:
        """Write an epoch's record, on disk when this returns; a repeated epoch replaces it."""
        write_json(self.path / "epochs" / f"{record['epoch']:04d}.json", record)

    def attempts(self) -> list[dict[str, Any]]:
        """Return what each attempt at a training started with, in order."""
        return [attempt for _, attempt in _read_numbered(self.path / "attempts", records.ATTEMPT)]

    def add_attempt(self, attempt: dict[str, Any]) -> None:
        """Record what an attempt starts with, after all others, of which some may be deleted."""
        known = _read_numbered(self.path / "attempts", records.ATTEMPT)
        number = max((int(path.stem) for path, _ in known), default=0) + 1
        write_json(self.path / "attempts" / f"{number:04d}.json", attempt)

    def finish(self, result: dict[str, Any]) -> None:
        """Write the result, which finishes the stage, and share the folder."""
        self._check_lock()
        self.clear_failure()
        write_json(self.path / DONE, result)
        self.share()

    def fail(self, kind: str, message: str, traceback: str) -> None:
        """Record why the stage failed, and upload it. kind: as `failure_kind` returns."""
        failure = {"kind": kind, "message": message, "traceback": traceback}
        write_json(self.path / "failure.json", failure)
        self.push()

    def failure(self) -> dict[str, Any] | None:
        """Return why the stage failed ({kind, message, ...}), or None."""
        found = read_record(self.path / "failure.json", records.FAILURE)
        return None if self.result() else found

    def why_failed(self) -> str | None:
        """Return the kind and message of a failure in a line, or None."""
        failure = self.failure()
        return f"{failure['kind']}: {failure['message']}" if failure else None

    def clear_failure(self) -> None:
        """Delete a recorded failure, so that the stage can be tried again."""
        self._forget("failure.json")

    def _forget(self, name: str) -> None:
        """Delete a file, also in the bucket: otherwise the next pull would bring it back."""
        if (self.path / name).exists():
            (self.path / name).unlink(missing_ok=True)
            self.remote.delete(self.path / name)

    # Of a training

    def warn(self, warning: dict[str, Any]) -> None:
        """Keep a warning: its `iteration`, and its text as `message`."""
        write_json(self.path / "warning.json", warning)

    def warning(self) -> str | None:
        """Return the warning's text, unless the training has left the label prior since."""
        found = read_record(self.path / "warning.json", records.WARNING)
        if found is None or any(_left_the_prior(e, found["iteration"]) for e in self.epochs()):
            return None
        return str(found["message"])

    def clear_warning(self) -> None:
        """Delete the warning, when the training starts from scratch."""
        self._forget("warning.json")

    # One process at a time

    def lock(self) -> "Lease | LocalLock":
        """Return the lock of this folder; it is released when the process that holds it ends."""
        name = "/".join(self.path.parts[-2:])
        return self.remote.lock(name, self.path / STAGE_LOCK)

    @contextmanager
    def hold(
        self, *, every: float = 5.0, meanwhile: Callable[[], None] = lambda: None
    ) -> Iterator[None]:
        """Hold the lock, after waiting as long as another process holds it.

        meanwhile: called after each `every` seconds; may raise. After six times, it is said.
        """
        from filelock import Timeout

        lock = self.lock()
        for times in count(1):
            try:
                lock.acquire(timeout=every)
                break
            except Timeout as held:
                meanwhile()
                if times == 6:
                    where = held if self.remote.url else self.path
                    logger.warning("%s: another process is working on this; waiting for it", where)
        self._lock = lock
        try:
            yield
        finally:
            self._lock = None
            lock.release()

    def _check_lock(self) -> None:
        if self._lock:
            self._lock.check()

    # Sharing with a bucket

    def is_finished(self) -> bool:
        """Whether the stage is finished; if it was elsewhere, its result is downloaded.

        If it was finished here and not yet shared, it is shared now.
        """
        if not self.remote.pull_file(self.path / DONE) and (self.path / DONE).exists():
            self.share()
        return self.result() is not None

    def has_whole(self, name: str) -> bool:
        """Whether a zip (a checkpoint, an .npz) is here with the right checksums, or elsewhere.

        Raises OSError if it cannot be read, as it may be whole.
        """
        try:
            with files.open_file(self.path / name) as file, ZipFile(file) as archive:
                return archive.testzip() is None
        except FileNotFoundError:
            return self.remote.has_file(self.path / name)
        except BROKEN_ZIP as error:
            let_through(error, self.path / name)
            return False

    def share(self) -> None:
        """Upload what the bucket lacks of this folder, done.json last. Raises StoreError."""
        self._check_lock()
        self.push()

    def push(self, only: set[str] | None = None) -> None:
        """Upload the files with these names; None: all. Raises StoreError."""
        self.remote.push_folder(self.path, only=only)

    def pull(self, only: set[str] | None = None) -> None:
        """Download the files with these names; None: all. Raises StoreError."""
        with self.remote.one_at_a_time():
            self.remote.pull_folder(self.path, only=only)

    def pull_training(self) -> None:
        """Download a training: its records, and its newest checkpoints unless ours are newer."""
        with self.remote.one_at_a_time():
            self.remote.pull_training(self.path)

    def file_names(self) -> set[str]:
        """Upload what the bucket lacks; return the names of the files here and in the bucket."""
        self.push()
        names = {Path(rel).name for rel in self.remote.objects(self.path)}
        return names | {path.name for path in files_in(self.path, "*")}

    def machine(self) -> str:
        """Return an id that is equal for processes that see the same files."""
        return self.remote.machine()

    def take_over(self, checkpoints: list[str]) -> None:
        """Replace the checkpoints here by those of another machine, which has shared them.

        Raises StoreError if one cannot be had: the ranks would resume from different epochs.
        """
        for name in set(self.checkpoint_names()).difference(checkpoints):
            (self.checkpoints / name).unlink()  # of an attempt unknown to the other machine
        self.pull_training()
        if self.checkpoint_names()[-1:] != checkpoints[-1:]:
            raise StoreError(
                f"{self.checkpoints}: {checkpoints[-1]} cannot be downloaded, from which another "
                "machine resumes; give the same command again"
            )


class Store:
    """The folders of stages and sweeps under one root. Unpickling opens the store again.

    remote: the place in a bucket that the root mirrors; None: there is only the root.
    named: stages with a path of their own, by <room>/<id>.
    """

    def __init__(
        self,
        root: Path,
        remote: "Remote | NoBucket | None" = None,
        named: Mapping[str, Path] | None = None,
    ) -> None:
        self.root, self.remote = root.absolute(), remote or NoBucket()
        self.named = dict(named or {})

    def __reduce__(self) -> tuple[Any, ...]:
        """On another machine, the mirror is somewhere else."""
        return open_store, (self.address, self.named)

    @property
    def address(self) -> str:
        """Where the store is, as for --store: a folder, or s3://bucket/prefix."""
        return self.remote.url or str(self.root)

    def folder(self, rel: str) -> Folder:
        """Return any folder of a room, or one within it: <room>/<id>[/...].

        Raises StoreError if a named folder holds another stage.
        """
        for name, path in self.named.items():
            if rel == name or rel.startswith(f"{name}/"):
                _check_label(path, name)
                return Folder(path / rel[len(name) + 1 :], stage_id=rel.partition("/")[2])
        return Folder(self.root / rel, self.remote, stage_id=rel.partition("/")[2])

    def cam(self, cam_id: str) -> Folder:
        """Return the folder of a CAM training."""
        return self.folder(f"cams/{cam_id}")

    def run(self, run_id: str) -> Folder:
        """Return the folder of a run, a scored training."""
        return self.folder(f"runs/{run_id}")

    def sweep(self, name: str) -> Path:
        """Return the folder of a sweep."""
        return self.root / "sweeps" / name

    def pull_results(self) -> None:
        """Download what tables and reports read."""
        self.remote.pull_results()

    def push_results(self, run_ids: Iterable[str]) -> None:
        """Upload those of these runs that are finished here alone, without their failures.

        No others: another machine may have removed them from the bucket.
        """
        there = self.remote.objects("runs")
        for path in (self.run(each).path / DONE for each in run_ids):
            if path.exists() and path.relative_to(self.root).as_posix() not in there:
                self.remote.push_folder(path.parent)
                self.remote.delete(path.with_name("failure.json"))

    def remove(self, rel: str) -> None:
        """Delete a folder here and in the bucket: first the files that mark it, then checkpoints.

        Without the attempts that they are from, these could not be continued.
        """
        here = (path for path in (self.root / rel).rglob("*") if path.is_file())
        names = {path.relative_to(self.root).as_posix() for path in here}
        names |= self.remote.objects(rel).keys()

        def turn(name: str) -> tuple[bool, bool, str]:
            return Path(name).name not in MARKS, "/checkpoints/" not in name, name

        for name in sorted(names, key=turn):
            (self.root / name).unlink(missing_ok=True)
            self.remote.delete(name)
        if (self.root / rel).is_symlink():  # on another disk
            (self.root / rel).unlink()
        elif (self.root / rel).exists():
            shutil.rmtree(self.root / rel)

    @property
    def artifact_location(self) -> str:
        """URI under which MLflow keeps artifacts, unless a server decides it."""
        if self.remote.url:
            return f"{self.remote.url}/mlartifacts"
        return (self.root / "mlartifacts").as_uri()

    def sweep_names(self) -> list[str]:
        """Return the sweeps in the store, the last changed at the end."""
        found = self.driven("sweep")
        found.sort(key=lambda each: (self.root / each.description).stat().st_mtime)
        return [each.name for each in found]

    def driven(self, *kinds: Kind) -> list[Driven]:
        """Return the store's sweeps, searches and headlines, or those of some kinds, by name."""
        rooms = ((kind, files_in(self.root / OF_KIND[kind], "*")) for kind in kinds or OF_KIND)
        found = [Driven(kind, path.name) for kind, paths in rooms for path in paths]
        return [each for each in found if (self.root / each.description).exists()]

    def check_writable(self) -> None:
        """Raise StoreError if nothing can be written under the root, or into the bucket."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=self.root):  # without a name, so that no kill leaves it there
                pass
        except OSError as error:
            option = "WSSS_MIRROR" if self.remote.url else "--store"
            raise StoreError(
                f"{self.root}: not writable ({error.strerror}); give another folder with {option}"
            ) from None
        self.remote.require_answer()
        self.remote.check_writable()


def open_store(address: str | Path, named: Mapping[str, Path] | None = None) -> Store:
    """Return the store in a folder or at s3://bucket/prefix.

    named: as of `Store`. A bucket's mirror is WSSS_MIRROR, or ~/.cache/wsss/<digest of the URL>.
    Raises StoreError for any other kind of URL, for a path that is no folder, and if no folder is
    known for the mirror.
    """
    text = str(address)
    if "://" not in text and not text.startswith("s3:"):  # as s3://bucket would as a Path
        path = Path(text)
        if not path.is_dir() and (path.exists() or path.is_symlink()):
            raise StoreError(f"{path}: a file or broken link; give a folder with --store")
        return Store(path, named=named)
    from sweeps.store.remote.mirror import Remote

    url = text.rstrip("/")
    digest = hashlib.sha256(url.encode()).hexdigest()[:16]
    chosen, cache = os.environ.get("WSSS_MIRROR"), cache_folder()
    mirror = Path(expanded(chosen)) if chosen else cache and cache / "wsss" / digest
    if mirror is None:
        raise StoreError(
            f"{url}: no home folder to keep its mirror in; name a folder with WSSS_MIRROR"
        )
    return Store(mirror, Remote(url, mirror.absolute()), named)


def _check_label(path: Path, rel: str) -> None:
    """Raise StoreError if a folder's label names another stage than `rel`."""
    found = read_json(path / LABEL)
    held = found.get("stage") if isinstance(found, dict) else found
    if found is not None and held != rel:
        room = rel.partition("/")[0]
        raise StoreError(
            f"{path}: holds {room} with other settings ({held}, not {rel}); choose another folder"
        )


def write_json(path: Path, value: Any) -> None:
    """Write JSON by atomic rename; the file is on disk when this returns.

    Raises StoreError if the disk is full or not writable.
    """
    with disk_errors(path):
        files.write_json(path, value)


def read_json(path: Path, *remedy: str) -> Any:
    """Read JSON; None if there is no such file. Raises StoreError if it is not JSON.

    remedy: of that, if it is not to delete the file.
    """
    try:
        return files.read_json(path, *remedy)
    except files.BrokenFileError as error:
        raise StoreError(str(error)) from None


class ForeignFileError(StoreError):
    """A file that another version wrote, or something else."""


class _Named(Protocol):
    @property
    def name(self) -> str: ...


T = TypeVar("T")
N = TypeVar("N", bound=_Named)


def read_written(path: Path, program: str, read: Callable[[Any], T], remedy: str = "") -> T:
    """Read a JSON file that a command has written.

    program: the command, e.g. `sweeps search`. read: makes something of the JSON. remedy: unless it
    is to give the command again. Raises StoreError if it is not JSON, ForeignFileError if it is not
    what the command writes.
    """
    remedy = remedy or f"give the `{program}` command again"
    try:
        return read(read_json(path, remedy))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        said = "; ".join(str(error).splitlines())
        if isinstance(error, ValidationError):
            said = first_problem(error)
        raise ForeignFileError(
            f"{path}: not what this version of `{program}` writes ({said}); {remedy}"
        ) from None


def read_description(path: Path, program: str, read: Callable[[Any], N]) -> N:
    """Read what describes a sweep, search or headline, as `read_written` does.

    Raises ForeignFileError if its folder has another name, too.
    """
    found = read_written(path, program, read)
    remedy = (
        "give the folder back its name; if an earlier version wrote it, its results have other "
        "ids: give its command again, or name another one"
    )
    require_own(path, found.name, path.parent.name, remedy)
    return found


def require_own(path: Path, told: object, own: object, remedy: str = records.AGAIN) -> None:
    """Raise ForeignFileError if a record tells another name than its file or folder has.

    Somebody has copied or renamed it. told: the name in the record; own: that of its place.
    """
    if told != own:
        raise ForeignFileError(
            f"{path}: holds no record of {printable(str(own))}; {remedy} (it is that of "
            f"{printable(quoted(told))})"
        )


def write_config(path: Path, config: RunConfig) -> None:
    """Write a configuration's canonical settings."""
    write_json(path, json.loads(canonical_json(config)))


def read_config(path: Path) -> RunConfig:
    """Read the configuration in a run's folder.

    Raises StoreError for what is none, or not that of the run after which the folder is called.
    """
    remedy = (
        f"delete the folder {path.parent} and give the command of its table again, which scores it "
        "anew"
    )
    config = read_written(path, "sweeps run", partial(validate, RunConfig), remedy)
    require_own(path, run_id(config), path.parent.name, remedy)
    return config


def _read_numbered(folder: Path, kind: TypeAdapter[Any]) -> list[tuple[Path, dict[str, Any]]]:
    """Return a folder's files 0001.json, 0002.json, ... with their content, in order."""
    names = [path for path in files_in(folder, "*.json") if path.stem.isdigit()]
    return [(path, found) for path in names if (found := read_record(path, kind)) is not None]


def read_record(path: Path, kind: TypeAdapter[Any]) -> dict[str, Any] | None:
    """Return a file's content; None without a file. Raises StoreError for what we never write."""
    found = read_json(path)
    return None if found is None else records.checked(path, found, kind)


def _left_the_prior(epoch: dict[str, Any], iteration: int) -> bool:
    """Whether an epoch ended at or after `iteration` and was no longer at the label prior."""
    end = epoch["epoch"] * len(epoch.get("step_losses", ()))
    return end >= iteration and epoch.get("collapsed") == 0
