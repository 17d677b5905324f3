"""The command `sweeps headline`."""

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweeps.cli import options

if TYPE_CHECKING:
    from sweeps.plan.chains.best_cell import Choice
    from sweeps.plan.chains.headline import Headline
    from sweeps.plan.sweep import BaseOptions, Sweep
    from sweeps.store.store import Store

DEFAULT_SOURCES = ["none", "random_walk", "masks"]


@options.with_options_of(options.base_options, own_first=True)
def planned_headline(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            help="labels to train on, one network each: none (plain CAM) | crf | pamr | "
            "random_walk | random_walk_crf | masks (supervised bound); default: none, "
            "random_walk, masks",
            metavar="LABELS",
        ),
    ] = None,
    cell: Annotated[
        str | None,
        typer.Option(
            help="table cell whose configuration makes the CAMs, or best: the finished "
            "configuration with the best held-out mIoU, a choice that sees pixel masks; default: "
            "best if the store has an ended sweep of the project's tables with the same settings, "
            "else III[yes,yes]; what a grid found is given with --set"
        ),
    ] = None,
    label_settings: Annotated[
        list[str] | None,
        typer.Option("--set-labels", help="replace a label setting, e.g. crf.preset=psa"),
    ] = None,
    segmentation_settings: Annotated[
        list[str] | None,
        typer.Option("--set-segmentation", help="replace a DeepLab setting, e.g. iterations=2000"),
    ] = None,
    eval_split: Annotated[str, typer.Option(help="split to segment and score")] = "val",
    export: Annotated[
        str | None,
        typer.Option(
            help="split to predict for VOC's evaluation server, e.g. test, as a checked archive; "
            "it needs no masks; by all networks from image labels, or by the bound if it is alone",
            metavar="SPLIT",
        ),
    ] = None,
    store: options.StoreOption = "results",
    **given: Any,
) -> "tuple[Headline, Store]":
    """Plan a headline and open its store. Raises ForeseenError for wrong options."""
    from sweeps.plan.chains.headline import Headline, check_sources, make_chains
    from wsss.overrides import apply_overrides, parse_assignments
    from wsss.presets import DEEPLAB_PRESETS, LABEL_PRESETS
    from wsss.recipes import preset_and_recipe

    wanted = sources or DEFAULT_SOURCES
    check_sources(wanted)
    base = options.base_options(**given)
    of_labels = _of_labels(label_settings or [])
    of_network = parse_assignments(segmentation_settings or [], option="--set-segmentation")
    results = options.opened(store)
    sweep, choice = _choose_cams(results, base, cell)
    plain, _ = preset_and_recipe(base.preset)
    network = {"weights": sweep.base.network.weights} | of_network
    segmentation = apply_overrides(DEEPLAB_PRESETS[plain], network)
    labels = apply_overrides(LABEL_PRESETS[plain], of_labels)
    splits = _check_splits(sweep, eval_split, export, recheck=given["recheck"])
    planned = Headline(
        sweep=sweep,
        cell=choice.cell,
        chains=make_chains(sweep, choice.cell, wanted, labels, segmentation, splits),
        choice=choice.why,
        chosen_by_masks=choice.by_masks,
        export=export,
    )
    _say_idle(planned, base.settings, of_labels, of_network)
    _check_trainings(planned)
    return planned, results


@options.with_options_of(
    planned_headline, options.resources, options.prior_limits, without=("max_concurrent",)
)
def headline(
    ctx: typer.Context,
    label_workers: Annotated[
        int,
        typer.Option(
            min=1,
            rich_help_panel=options.EXECUTION,
            help="processes that refine labels without Ray",
        ),
    ] = max(1, (os.cpu_count() or 2) // 2),
    notify: options.Notify = None,
    **given: Any,
) -> None:
    """Train segmentation networks on refined pseudo-labels: Tables I and II.

    sweeps headline none random_walk --data /data/VOC2012 --gpus 1

    CAM -> refined label maps -> DeepLabv2 -> mIoU and IoU per class, beside the paper's rows. Each
    stage is kept in the store: run the command again to resume, or with other labels or settings,
    and only what depends on them is done again. A report is written at the end.

    Without --address, --workers and --gpus, everything runs in this process; else images are shared
    among Ray tasks, and a network is trained by Ray Train workers or, with --workers 0, in a task.
    """
    from sweeps.stages.stage import Conduct

    one_by_one = options.call(options.resources, given | {"max_concurrent": 1})
    if one_by_one.address or one_by_one.gpus or not one_by_one.inline:
        options.refuse_idle("with Ray, whose tasks refine labels", ctx, "label_workers")
    else:
        options.refuse_idle("without --address, --workers and --gpus", ctx, "cpus")
    may_use = options.reached(one_by_one, given["store"], "headline")
    from sweeps.run.subjects.headline import DrivenHeadline  # it loads torch

    planned, results = options.call(planned_headline, given)
    conduct = Conduct(accept_changes=True, limits=options.call(options.prior_limits, given))
    subject = DrivenHeadline(planned, results, conduct, label_workers)
    options.run_to_end(subject, may_use, notify)


def _choose_cams(store: "Store", base: "BaseOptions", cell: str | None) -> "tuple[Sweep, Choice]":
    """Return the cell whose configuration makes the CAMs, and a sweep of its table.

    cell: as asked for. Raises what `make_sweep` and `choose_cell` raise.
    """
    from sweeps.plan.chains.best_cell import BEST, DEFAULT_CELL, choose_cell
    from sweeps.plan.sweep import make_sweep

    def sweep_of(cell: str) -> "Sweep":
        return make_sweep([cell.split("[")[0]], base)[0]

    first = cell if cell not in (None, BEST) else DEFAULT_CELL
    choice = choose_cell(store, sweep_of(first), cell)
    return sweep_of(choice.cell), choice


def _of_labels(assignments: list[str]) -> dict[str, Any]:
    """Return the label settings asked for. Raises ConfigError, also for the kind of labels."""
    from wsss.overrides import ConfigError, parse_assignments

    found = parse_assignments(assignments, option="--set-labels")
    if "refinement" in found:
        raise ConfigError(
            "--set-labels refinement: the labels are named as arguments, as in "
            f"`sweeps headline {found['refinement']}`; leave it out"
        )
    return found


def _check_splits(
    sweep: "Sweep", scored: str, exported: str | None, *, recheck: bool
) -> dict[str, str]:
    """Return the splits to predict, each with a digest of its content; the scored one is first.

    Raises DataError if one cannot be scored or exported.
    """
    from sweeps.stages.export import check_exportable
    from wsss.data.check import check_data_once
    from wsss.data.check_splits import overlaps
    from wsss.data.errors import DataError
    from wsss.data.voc import VocDataset

    dataset, trained = VocDataset(sweep.data), sweep.base.data.train_split
    report = check_data_once(
        dataset, [scored], scored=[scored], may_be_empty=[scored], recheck=recheck
    )
    report.raise_if_broken()
    ids = {split: dataset.image_ids(split) for split in (trained, scored)}
    if shared := overlaps(ids):
        raise DataError(f"{dataset.root}: {shared[0]}")
    if seen := {*ids[trained]} & {*ids[scored]}:
        options.say(f"{len(seen)} of {len(ids[scored])} images of {scored} are also trained on")
    splits = dict(report.fingerprints)
    if exported:
        splits.setdefault(exported, check_exportable(dataset, exported))
    return splits


def _check_trainings(planned: "Headline") -> None:
    """Raise DataError or WeightsError if the networks cannot be trained."""
    from wsss.config import NetworkConfig
    from wsss.data.check import require_batch
    from wsss.data.voc import VocDataset
    from wsss.networks.initial_weights import check_initial_weights

    sweep, network = planned.sweep, planned.chains[0].segmentation
    if any(chain.labels is None for chain in planned.chains):
        dataset = VocDataset(sweep.data)
        dataset.mask_paths(dataset.image_ids(sweep.base.data.train_split))
    require_batch(
        sweep.num_train_images, network.batch_size, setting="--set-segmentation batch_size"
    )
    for chain in planned.chains:
        if chain.labels and chain.labels.walks:
            require_batch(
                sweep.num_train_images,
                chain.labels.random_walk.batch_size,
                setting="--set-labels random_walk.batch_size",
            )
    start = NetworkConfig(backbone=network.backbone, weights=network.weights)
    check_initial_weights([start], sweep.weights_file)


def _say_idle(
    planned: "Headline", of_cams: Iterable[str], of_labels: Iterable[str], of_network: Iterable[str]
) -> None:
    """Say which of the settings have no effect."""
    from wsss.identity import run_id

    chains = planned.chains
    options.say_idle(of_cams, [chains[0].run], run_id)
    options.say_idle(
        of_labels,
        [chain.labels for chain in chains if chain.labels],
        lambda labels: chains[0].model_copy(update={"labels": labels}).labels_id,
        "--set-labels",
    )
    options.say_idle(
        of_network,
        [chains[0].segmentation],
        lambda network: chains[0].model_copy(update={"segmentation": network}).prediction_id,
        "--set-segmentation",
    )
