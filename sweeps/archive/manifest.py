"""The content of an archive, and its manifest.

    manifest.json                       this
    README.txt  CITATION.cff            a description; licence, and what to cite
    requirements.lock                   the packages' exact versions
    report/report.html .md .csv .tex .txt  table.tex     the tables with their evidence
    trials.csv                          a row per trial
    sweeps/<name>/sweep.json            tables and settings
    runs/<id>/  counts/<id>/  cams/<id>/    of each trial, as the store has them: configuration,
                                        scores, counted pixels, losses; networks only if asked for

Unpacked, it is a store for `sweeps report`, `table` and `sweeps.api`.
"""

from typing import Literal

from wsss.basics.strict import Strict

FILE = "manifest.json"
REPORT = "report"
TRIALS = "trials.csv"


class TrialEntry(Strict):
    """One trial of the sweep's plan."""

    run_id: str
    cam_id: str
    cells: tuple[str, ...]
    seed: int
    state: str


class Manifest(Strict):
    """What an archive holds, and where it comes from."""

    format: Literal[1] = 1
    sweep: str
    """Its name."""
    written_by: str
    """Version of the code that wrote the archive, with its commit."""
    trained_by: tuple[str, ...]
    """The same for the code that made the results."""
    command: str
    """Repeats the sweep, with the original paths of data and weights."""
    data: str
    """Fingerprint of lists, pictures, labels and masks."""
    trials: tuple[TrialEntry, ...]
    files: dict[str, str]
    """Path of every other file -> its SHA-256."""
