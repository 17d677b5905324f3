"""Writes a sweep as one zip archive; equal results under equal code give equal bytes."""

import hashlib
import json
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

from sweeps.archive.manifest import FILE, REPORT, TRIALS, Manifest, TrialEntry
from sweeps.evidence.image_counts import COUNTS, FILE_NAME
from sweeps.plan.chains.chain import counts_id
from sweeps.plan.run_command import run_command
from sweeps.plan.sweep import Sweep, sweep_to_json
from sweeps.plan.trials import Trial
from sweeps.report.formats.csv_file import records_text
from sweeps.report.formats.write import rendered
from sweeps.report.tables.document import sweep_document
from sweeps.report.tables.model import build_report
from sweeps.report.trials import TrialRow, trial_records, trial_rows
from sweeps.store.code_version import ROOT, code_version
from sweeps.store.errors import StoreError
from sweeps.store.store import Store
from wsss.basics.errors import let_through
from wsss.basics.files import BROKEN_ZIP, files_in, open_file, refuse_pipe, whole_or_absent
from wsss.identity import canonical_json

DATE = (1980, 1, 1, 0, 0, 0)
"""Of every file: the earliest that a zip archive knows."""
PACKED = (".npz", ".pt")
"""Suffixes of files that are already compressed."""
RECORDS = ("*.json", "epochs/*.json", "attempts/*.json")
"""Of a training's folder."""
LOCK, CITATION = "requirements.lock", "CITATION.cff"

README = """\
The sweep {name}, as `sweeps export` wrote it.

report/report.html has the tables beside the paper's, with verdicts; trials.csv has a row per trial,
mIoU and IoU in percent. runs/<id>/ has each trial's configuration and scores, counts/<id>/ the
counted pixels behind the scores, cams/<id>/ the training with its losses. requirements.lock has the
exact versions of all packages, CITATION.cff the tool's licence, and what to cite.

Check it with:   sweeps verify FILE --data FOLDER
Repeat it with:  {command}
One trial:       wsss train-cam --config runs/<id>/config.json --run again --data FOLDER
                 wsss infer --run again
                 wsss evaluate --run again
Code:            {code}

--data is where the data set lies on your machine. The tool is wsss-sweeps.
"""

Members = dict[str, bytes | Path]
"""Path in the archive -> the file's content, or its path."""


def export_sweep(sweep: Sweep, store: Store, path: Path, *, checkpoints: bool) -> Manifest:
    """Write the archive of a sweep with its results so far; return its manifest.

    checkpoints: include the networks, which are large. Raises StoreError if the path holds
    something else, and for results that cannot be read.
    """
    _check_replaceable(path)
    rows = trial_rows(sweep, store)
    members = _documents(sweep, store, rows)
    for trial in sweep.plan.trials:
        members |= _results(trial, store, checkpoints=checkpoints)
    manifest = Manifest(
        sweep=sweep.name,
        written_by=code_version(),
        trained_by=_trained_by(rows),
        command=run_command(sweep, None),
        data=sweep.base.data.fingerprint,
        trials=tuple(TrialEntry.model_validate(row, from_attributes=True) for row in rows),
        files={},
    )
    with whole_or_absent(path) as partial, ZipFile(partial, "w") as archive:
        files = {name: _add(archive, name, members[name]) for name in sorted(members)}
        whole = manifest.model_copy(update={"files": files})
        _add(archive, FILE, f"{whole.model_dump_json(indent=1)}\n".encode())
        if trial_rows(sweep, store) != rows:
            raise StoreError(
                f"{sweep.name}: results changed during the export; run the same command again"
            )
    return whole


def _check_replaceable(path: Path) -> None:
    """Raise StoreError unless the path is that of a zip file and free, or holds such an archive."""
    if path.suffix != ".zip":  # a table's name, perhaps
        raise StoreError(f"{path}: name the archive first, a file that ends in .zip")
    try:
        with open_file(path) as file, ZipFile(file) as archive:
            archive.getinfo(FILE)
    except FileNotFoundError:
        pass
    except BROKEN_ZIP as error:
        let_through(error, path)
        raise StoreError(
            f"{path}: exists, and is not an archive of `sweeps export`; name another file"
        ) from None


def _documents(sweep: Sweep, store: Store, rows: list[TrialRow]) -> Members:
    """Return the files made for the archive: report, rows of trials, sweep, README."""
    document = sweep_document(build_report(sweep, store, portable=True))
    texts = {f"{REPORT}/{name}": text for name, text in rendered(document, "report")}
    texts[TRIALS] = records_text(trial_records(rows))
    texts[f"sweeps/{sweep.name}/sweep.json"] = f"{json.dumps(sweep_to_json(sweep), indent=1)}\n"
    code = ", ".join(_trained_by(rows)) or "nothing is trained yet"
    texts["README.txt"] = README.format(
        name=sweep.name, command=run_command(sweep, None), code=code
    )
    members: Members = {name: text.encode() for name, text in texts.items()}
    files = {
        LOCK: ROOT / LOCK,  # an installed package has neither
        CITATION: ROOT / CITATION,
        f"sweeps/{sweep.name}/calibration.json": store.sweep(sweep.name) / "calibration.json",
    }
    return members | {name: path for name, path in files.items() if path.exists()}


def _trained_by(rows: list[TrialRow]) -> tuple[str, ...]:
    return tuple(sorted({row.code_version for row in rows if row.code_version}))


def _results(trial: Trial, store: Store, *, checkpoints: bool) -> Members:
    """Return a trial's files in the store, and its configuration even if it has not started."""
    run, cam = store.run(trial.run_id), store.cam(trial.cam_id)
    counts = store.folder(f"counts/{counts_id(trial.config)}")
    counts.pull()
    if checkpoints:
        cam.pull_training()
    kept = {
        run.path: ("*.json", FILE_NAME),
        counts.path: ("done.json", COUNTS),
        cam.path: (*RECORDS, "checkpoints/epoch_*.pt") if checkpoints else RECORDS,
    }
    config = f"{json.dumps(json.loads(canonical_json(trial.config)), indent=1)}\n".encode()
    members: Members = {f"runs/{trial.run_id}/config.json": config}
    for folder, patterns in kept.items():
        for inner, name in (pattern.rpartition("/")[::2] for pattern in patterns):
            for path in files_in(folder / inner, name):
                members[path.relative_to(store.root).as_posix()] = path
    return members


def _add(archive: ZipFile, name: str, content: bytes | Path) -> str:
    """Put a file into an archive; return its SHA-256."""
    info = ZipInfo(name, DATE)
    info.compress_type = ZIP_STORED if name.endswith(PACKED) else ZIP_DEFLATED
    info.external_attr = 0o644 << 16
    data = content if isinstance(content, bytes) else _read(content)
    archive.writestr(info, data)
    return hashlib.sha256(data).hexdigest()


def _read(path: Path) -> bytes:
    refuse_pipe(path, StoreError)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise StoreError(
            f"{path}: removed during the export, or a broken link; run the same command again"
        ) from None
