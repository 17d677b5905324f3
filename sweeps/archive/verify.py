"""Checks an archive of a sweep with this code: files, ids, scores, tables, data.

Each check reports what it found. What no check can tell is reported, too.
"""

import csv
import hashlib
import math
import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from zipfile import ZipFile

import numpy as np

from sweeps.archive.manifest import FILE, REPORT, TRIALS, Manifest
from sweeps.evidence.image_counts import (
    THRESHOLDS,
    count_images,
    load_image_counts,
    load_threshold_counts,
)
from sweeps.plan.chains.chain import counts_id
from sweeps.plan.sweep import Sweep, sweep_from_json
from sweeps.plan.trials import Trial
from sweeps.report.formats.csv_file import records_text
from sweeps.report.formats.write import rendered
from sweeps.report.tables.document import sweep_document
from sweeps.report.tables.model import build_report
from sweeps.report.trials import trial_records, trial_rows
from sweeps.store.code_version import code_version, sources_of
from sweeps.store.errors import StoreError
from sweeps.store.store import Store, read_json, read_written
from wsss.basics.errors import FULL, ForeseenError, let_through, named_in_errors
from wsss.basics.files import BROKEN_ZIP, open_file
from wsss.basics.printable import counted, first_of
from wsss.config import RunConfig
from wsss.evaluation.score import Score, score_counts
from wsss.identity import cam_id, run_id
from wsss.overrides import ConfigError, validate

MOST_BYTES = 8 << 30
"""Limit of the unpacked files: more than any sweep has, less than a zip bomb."""
NETWORKS = ".pt"
"""Suffix of files that are not unpacked, as no check reads them."""
TOLERANCE = 1e-6
"""Relative: another machine may round the last digits differently."""
NUMBER = re.compile(r"\d+(?:\.\d+)?")
PICTURE = re.compile(r"data:image/[^\"]*")
"""In a page; matplotlib's other versions draw other bytes."""
SHOWN = 3
"""Names listed in a finding."""


@dataclass(frozen=True)
class Finding:
    """The result of a check. open: it could not be checked."""

    kind: Literal["ok", "wrong", "open"]
    text: str


def verify(path: Path, data: Path | None) -> Iterator[Finding]:
    """Yield what each check finds. data: the folder of the data set; None: it is not checked.

    If files are altered, their content is not checked. Raises StoreError if it is not an archive of
    `sweeps export`, or if its code's settings are unknown here.
    """
    with tempfile.TemporaryDirectory(prefix="wsss-verify-") as name:
        root = Path(name)
        try:
            with named_in_errors(root), open_file(path) as file, ZipFile(file) as archive:
                manifest = Manifest.model_validate_json(archive.read(FILE))
                files = _check_files(archive, manifest, root)
        except FileNotFoundError:
            raise StoreError(f"{path}: no such file; `sweeps export` writes one") from None
        except BROKEN_ZIP as error:
            if isinstance(error, ForeseenError) or getattr(error, "errno", None) in FULL:
                raise
            let_through(error, path)
            raise StoreError(
                f"{path}: not an archive of `sweeps export`, or cut off ({type(error).__name__}); "
                "get it again, or export the sweep again"
            ) from None
        yield files
        if files.kind == "wrong":
            return
        try:
            yield from _check_content(Store(root), manifest, data)
        except (StoreError, KeyError, TypeError, ValueError, AttributeError) as error:
            said = f"{type(error).__name__}: {error}"
            if isinstance(error, StoreError):  # whose path is temporary, and whose remedy no help
                said = str(error).replace(f"{root}/", "").partition("; ")[0]
            elif isinstance(error, ForeseenError):
                raise
            raise StoreError(
                f"{path}: its results are not what this version writes ({said}); verify it with "
                f"the code that wrote it: {manifest.written_by}"
            ) from None


def _check_files(archive: ZipFile, manifest: Manifest, root: Path) -> Finding:
    """Unpack all files and check their digests. Raises StoreError for a path that leads out."""
    there = {info.filename: info for info in archive.infolist() if info.filename != FILE}
    if sum(i.file_size for i in there.values() if not i.filename.endswith(NETWORKS)) > MOST_BYTES:
        raise StoreError(f"{archive.filename}: larger than any sweep; get it from a trusted source")
    problems = [f"{name} is missing" for name in manifest.files.keys() - there.keys()]
    problems += [f"{name} is not listed" for name in there.keys() - manifest.files.keys()]
    for name in sorted(there.keys() & manifest.files.keys()):
        parts = PurePosixPath(name).parts
        if name.startswith("/") or ".." in parts or "\\" in name or ":" in name:
            raise StoreError(f"{archive.filename}: {name} is outside the archive; nothing is used")
        if _digest(archive, name) != manifest.files[name]:
            problems.append(f"{name} is altered")
        elif not name.endswith(NETWORKS):
            archive.extract(name, root)
    num_files = counted(len(manifest.files), "file")
    return _finding(f"{num_files}: each is as the manifest's SHA-256 says", sorted(problems))


def _digest(archive: ZipFile, name: str) -> str:
    """Return the SHA-256 of a file, "" if it is damaged."""
    try:
        with archive.open(name) as source:
            return hashlib.file_digest(source, "sha256").hexdigest()  # type: ignore[arg-type]
    except BROKEN_ZIP as error:
        let_through(error, Path(archive.filename or name))
        return ""


def _check_content(store: Store, manifest: Manifest, data: Path | None) -> Iterator[Finding]:
    path = store.sweep(manifest.sweep) / "sweep.json"  # a folder of another name is found by `ids`
    sweep = read_written(path, "sweeps run", sweep_from_json)
    yield _check_ids(sweep, store, manifest)
    yield from _check_figures(sweep, store)
    yield from _check_tables(sweep, store, manifest)
    name = sweep.base.data.name
    unchecked = Finding("open", f"data: not checked; with --data FOLDER, {name} is checked")
    yield _check_data(sweep, data) if data else unchecked
    yield from _what_is_open(sweep, store, manifest)


def _check_ids(sweep: Sweep, store: Store, manifest: Manifest) -> Finding:
    """Compute every id again: of the sweep, of its plan's results, of each configuration."""
    problems = [] if sweep.name == manifest.sweep else [f"the sweep is {sweep.name}"]
    trials = sweep.plan.trials
    planned = {(t.run_id, t.cam_id, t.cells, t.config.rng_seed) for t in trials}
    listed = {(t.run_id, t.cam_id, t.cells, t.seed) for t in manifest.trials}
    problems += [f"trial {other[0]} is not the plan's" for other in sorted(planned ^ listed)]
    wanted = {
        "runs": {t.run_id for t in trials},
        "cams": {t.cam_id for t in trials},
        "counts": {counts_id(t.config) for t in trials},
    }
    for room, ids in wanted.items():
        there = {path.name for path in store.root.glob(f"{room}/*")}
        problems += [f"{room}/{name} is no part of the sweep" for name in sorted(there - ids)]
    for room, id_of in (("runs", run_id), ("cams", cam_id)):
        for path in sorted(store.root.glob(f"{room}/*/config.json")):
            name = path.parent.name
            try:
                if name != id_of(validate(RunConfig, read_json(path))):
                    problems.append(f"{room}/{name} has another configuration")
            except ConfigError as error:
                problems.append(f"{room}/{name}: {error}")
    return _finding(
        f"ids: each of {counted(len(trials), 'trial')} follows from its configuration", problems
    )


def _check_figures(sweep: Sweep, store: Store) -> Iterator[Finding]:
    """Score the counted pixels of each finished trial again."""

    def has_counts(trial: Trial) -> bool:
        return (store.root / "counts" / counts_id(trial.config)).exists()

    finished = [trial for trial in sweep.plan.trials if store.run(trial.run_id).result()]
    lacking = [trial.name for trial in finished if not has_counts(trial)]
    if scored := list(filter(has_counts, finished)):
        text = f"figures: those of {counted(len(scored), 'trial')} follow from the counted pixels"
        yield _finding(text, (f"{t.name}: {name}" for t in scored for name in _wrong(t, store)))
    if lacking:
        yield Finding("open", f"figures: no counted pixels of {first_of(lacking, SHOWN)}")


def _wrong(trial: Trial, store: Store) -> Iterator[str]:
    """Yield the names of a trial's scores that do not follow from its counted pixels."""
    metrics = store.run(trial.run_id).result() or {}
    counts = load_threshold_counts(store, trial.config)
    score = score_counts(counts, trial.config.labels)
    for field in fields(Score):
        if not _same(getattr(score, field.name), metrics[field.name]):
            yield field.name
    cut = count_images(counts, fixed=score.fixed_threshold, best=score.best_threshold)
    for name in THRESHOLDS:
        ours = getattr(cut, name)
        image_ids, theirs = load_image_counts(store.run(trial.run_id), name)
        if cut.image_ids != image_ids or not (
            np.array_equal(ours.intersection, theirs.intersection)
            and np.array_equal(ours.union, theirs.union)
        ):
            yield f"pixels per image at the {name} threshold"


def _check_tables(sweep: Sweep, store: Store, manifest: Manifest) -> Iterator[Finding]:
    """Write the report and a row per trial again, and compare them: all but the pictures.

    Other code may word a sentence or lay out a page differently, so that only numbers count, and
    those only of the CSV files and table.tex.
    """
    same_code = sources_of(manifest.written_by) == sources_of(code_version())
    document = sweep_document(build_report(sweep, store, portable=True))
    texts = {f"{REPORT}/{name}": text for name, text in rendered(document, "report")}
    texts[TRIALS] = records_text(trial_records(trial_rows(sweep, store)))
    problems = []
    for name, ours in texts.items():
        there = _text(store.root / name)
        if name.endswith(".csv"):
            if wrong := list(_differences(there, ours, sentences=same_code)):
                problems.append(f"{name}: {first_of(wrong, 1)}")
        elif same_code:
            problems += [name] if PICTURE.sub("", there) != PICTURE.sub("", ours) else []
        elif name.endswith("table.tex") and NUMBER.findall(there) != NUMBER.findall(ours):
            problems.append(name)
    where = "the whole report" if same_code else "report.csv and table.tex"
    yield _finding(
        f"tables: means, SDs, intervals and verdicts of {where} follow from the trials' figures",
        problems,
    )
    if same_code:
        yield Finding("open", "pictures in report.html: not compared")
    else:
        yield Finding(
            "open",
            "sentences and report.html, .md, .tex, .txt: not compared, as other code, "
            f"{manifest.written_by}, wrote them; unpacked, `sweeps report` writes its own",
        )


def _differences(there: str, ours: str, *, sentences: bool) -> Iterator[str]:
    """Yield where two CSV texts differ. sentences: whether those count, too."""
    tables = [csv.DictReader(text.splitlines()) for text in (there, ours)]
    if tables[0].fieldnames != tables[1].fieldnames:  # also for two columns of one name
        yield "line 1"
    for line, (left, right) in enumerate(zip_longest(*tables, fillvalue={}), start=2):
        for name in left | right:
            differ = not _same(left.get(name), right.get(name))
            if differ and (sentences or not str(name).endswith("reason")):
                yield f"line {line}, {name}"


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _same(a: Any, b: Any) -> bool:
    """Whether values are equal, numbers within TOLERANCE."""
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    try:
        return math.isclose(float(a), float(b), rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    except (TypeError, ValueError):
        return a == b


def _check_data(sweep: Sweep, data: Path) -> Finding:
    """Read the whole data set. Raises DataError if it is broken."""
    from wsss.data.check import check_data_once
    from wsss.data.voc import VocDataset

    base = sweep.base.data
    dataset = VocDataset(data.absolute())
    splits = sorted({base.train_split, base.eval_split})
    report = check_data_once(dataset, splits, scored=[base.eval_split])
    report.raise_if_broken()
    problems = []
    if report.fingerprint != base.fingerprint:
        problems.append(f"its fingerprint is {report.fingerprint}, not {base.fingerprint}")
    if report.training_fingerprints[base.train_split] != base.train_fingerprint:
        problems.append(f"{base.train_split} has other images or labels")
    return _finding(f"data: {data} is what was trained on and scored", problems)


def _what_is_open(sweep: Sweep, store: Store, manifest: Manifest) -> Iterator[Finding]:
    states = [store.run(trial.run_id).result() is not None for trial in sweep.plan.trials]
    if not all(states):
        missing = f"{states.count(False)} of {counted(len(states), 'trial')}"
        yield Finding("open", f"{missing} have no result; the report says which cells lack them")
    here = code_version()
    others = [each for each in manifest.trained_by if sources_of(each) != sources_of(here)]
    if others:
        yield Finding("open", f"code: trained by {first_of(others, SHOWN)}, checked by {here}")
    yield Finding(
        "open",
        "the trainings: only training again can show that they give these pixels, with: "
        f"{manifest.command}",
    )
    yield Finding("open", "who wrote it: the archive is not signed")


def _finding(text: str, problems: Iterable[str]) -> Finding:
    if found := list(problems):
        return Finding("wrong", f"{text}? No: {first_of(found, SHOWN)}")
    return Finding("ok", text)
