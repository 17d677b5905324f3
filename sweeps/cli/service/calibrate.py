"""The command `sweeps calibrate`: reproduce IRN's published CAM score first."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweeps.cli import options
from wsss.basics.printable import command

if TYPE_CHECKING:
    from sweeps.evidence.calibration import Calibration
    from sweeps.plan.sweep import Sweep
    from sweeps.store.store import Store


@options.with_options_of(
    options.base_options, options.resources, options.prior_limits, without=("recipe",)
)
def calibrate(
    preset: Annotated[
        str | None,
        typer.Option(
            help="irn (default on the full VOC 2012, and the only one that calibrates) | tiny "
            "(drawn data) | short (other data) | paper"
        ),
    ] = None,
    seeds: options.Seeds = 1,
    store: options.StoreOption = "results",
    retry_failed: options.RetryFailed = False,
    accept_changes: options.AcceptChanges = False,
    notify: options.Notify = None,
    **given: Any,
) -> None:
    """Train IRN's plain CAM and say whether its published score is reproduced. Resumable.

    sweeps calibrate --data /data/VOC2012 --gpus 1

    Reproduces: the mean mIoU at .15 is within the noise of the known runs of IRN's code. Does not
    reproduce: it is not; a list says what to check. Calibrates nothing here: data or settings are
    not IRN's, as on the drawn data. Exit code 0: reproduces, or calibrates nothing; 1: does not
    reproduce, or a training failed; 2: refused; 130: interrupted.
    """
    from sweeps.evidence.calibration import TABLE, lines, weigh, write
    from sweeps.evidence.calibration_checks import data_facts
    from sweeps.plan.sweep import make_sweep
    from sweeps.run.subjects.tables import DrivenSweep
    from sweeps.stages.stage import Conduct
    from sweeps.store.store import open_store
    from wsss.identity import run_id

    may_use = options.reached(options.call(options.resources, given), store, "sweep")
    chosen = preset or default_preset(data := given["data"], options.data_folder(data))
    base = options.call(options.base_options, given | {"preset": chosen})
    sweep, report = make_sweep([TABLE], base, seeds)
    options.say_idle(base.settings, [trial.config for trial in sweep.plan.trials], run_id)
    facts = data_facts(sweep, report)
    results = open_store(store)
    conduct = Conduct(
        accept_changes=accept_changes, limits=options.call(options.prior_limits, given)
    )
    subject = DrivenSweep(sweep, results, conduct, retry_failed=retry_failed)

    def weighed() -> int:
        verdict = weigh(sweep, results, facts)
        if write(results, sweep, verdict):
            publish(sweep, results, verdict)
        print("\n".join(["", *lines(verdict)]))
        return verdict.exit_code

    options.run_to_end(subject, may_use, notify, weighed)


def default_preset(data: str, root: Path) -> str:
    """Return tiny for the drawn data, irn for the full VOC 2012 by its lists, else short."""
    from sweeps.evidence.calibration_checks import is_full_voc

    usual = options.default_preset(data)
    return "irn" if usual == "short" and is_full_voc(root) else usual


def publish(sweep: "Sweep", store: "Store", verdict: "Calibration") -> None:
    """Bring the verdict into the sweep's report, its MLflow run and the store's bucket."""
    from sweeps.plan.sweep import report_folder
    from sweeps.report.tables.document import write_report
    from sweeps.track.runs.sweep import SweepRuns, verdict_counts
    from sweeps.track.tracker import Tracker

    report, folder = write_report(sweep, store), report_folder(store, sweep)
    tracker = Tracker(store, SweepRuns(store, sweep))
    if tracker.finish():
        tracker.log_report(folder.iterdir(), verdict_counts(report))
    again = command("sweeps", "sync", "--store", store.address, "--sweep", sweep.name)
    for line in tracker.remarks("the verdict", f"`{again}`"):
        print(line)
    store.folder(f"sweeps/{sweep.name}").push()
