"""The commands train-cam, infer, evaluate and pseudo-label: one stage of the method at a time.

Heavy packages are imported by the functions that need them, so that `wsss --help` answers at once.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweeps.cli import options
from wsss.basics.printable import command, counted

if TYPE_CHECKING:
    from sweeps.cli.method.run_folder import Run

Data = Annotated[Path, typer.Option(help="folder in VOC layout: JPEGImages, ImageSets, ...")]
RunDir = Annotated[
    Path,
    typer.Option("--run", file_okay=False, help="folder of a training: config and checkpoints"),
]


def configured(
    run: RunDir,
    data: Data,
    preset: Annotated[str, typer.Option(help="tiny | short | paper | irn")] = "short",
    recipe: options.Recipe = "default",
    config: Annotated[Path | None, typer.Option(help="YAML, JSON or TOML file of settings")] = None,
    settings: options.Set = None,
    weights: options.Weights = None,
) -> "Run":
    """Return the training that these options describe, after a check of its data set."""
    from sweeps.cli.method.run_folder import Run
    from sweeps.plan.sweep import checked_data
    from wsss.data.check import require_batch
    from wsss.data.voc import VocDataset
    from wsss.identity import run_id
    from wsss.labels.sources import sources_of
    from wsss.networks.initial_weights import check_initial_weights
    from wsss.overrides import parse_assignments, settle
    from wsss.recipes import named_config, with_recipe

    start, given = named_config(with_recipe(preset, recipe)), parse_assignments(settings or [])
    settled = settle(start, given, weights=weights, file=config)
    report, chosen = checked_data(settled, data, only_trains=True)
    trained = chosen.data.train_split
    require_batch(report.num_images[trained], chosen.train.batch_size)
    check_initial_weights([chosen.network], settled.weights_file)
    options.say_idle(given, [chosen], run_id)
    dataset = VocDataset(data.absolute())
    trained_on = sources_of(dataset, dataset.image_ids(trained))
    return Run(
        folder=run,
        config=chosen,
        data=dataset.root,
        weights_file=settled.weights_file,
        classes=dataset.classes,
        trained_on=trained_on,
    )


@options.with_options_of(configured, options.execution, options.prior_limits)
def train_cam(**given: Any) -> None:
    """Train a CAM network. Run it again to continue from its last checkpoint.

    wsss train-cam --run runs/b0 --data /data/VOC2012 --preset short
    """
    from sweeps.cli.method import work
    from sweeps.stages.stage import Conduct
    from sweeps.stages.train_cam import TrainCam
    from wsss.segmentation_config import PseudoLabelConfig

    how = options.call(options.execution, given)
    chosen = options.call(configured, given)
    chosen.remember()
    place = chosen.place(
        chosen.chain(PseudoLabelConfig()),
        execution=how,
        conduct=Conduct(accept_changes=True, limits=options.call(options.prior_limits, given)),
    )
    for record in work.records(TrainCam(chosen.config), place):
        if record.numbers:
            work.print_epoch(record, chosen.config.train.epochs)
    print(f"{chosen.folder}: trained; next: {command('wsss', 'infer', '--run', chosen.folder)}")


def infer(
    run: RunDir,
    split: Annotated[str | None, typer.Option(help="default: the configured eval split")] = None,
    out: Annotated[
        Path | None, typer.Option(file_okay=False, help="folder of CAM files; default: RUN/cams")
    ] = None,
) -> None:
    """Write multi-scale CAMs as <id>.npz: `classes` [P], `cams` [P, H, W] in [0, 1].

    wsss infer --run runs/b0 --split train_aug
    """
    from sweeps.cli.method import work

    work.write_cams(run, split, out)


def evaluate(
    run: RunDir,
    split: Annotated[str | None, typer.Option(help="default: the configured eval split")] = None,
    cams: Annotated[
        Path | None, typer.Option(file_okay=False, help="folder of CAM files; default: RUN/cams")
    ] = None,
) -> None:
    """Score CAM files against pixel masks: mIoU at the fixed and at the best threshold.

    wsss evaluate --run runs/b0
    """
    from sweeps.cli.method import work

    work.score_cams(run, split, cams)


@options.with_options_of(options.execution, own_first=True)
def pseudo_label(
    ctx: typer.Context,
    run: RunDir,
    refinement: Annotated[
        str | None, typer.Option(help="none (default) | crf | pamr | random_walk | random_walk_crf")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="a label setting, e.g. background_score=0.3, background=confident, crf.preset=psa",
        ),
    ] = None,
    split: Annotated[str | None, typer.Option(help="default: the split trained on")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            file_okay=False, help="folder of labels; default: RUN/pseudo_labels/REFINEMENT"
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=0, help="processes that refine labels without Ray")
    ] = 1,
    address: Annotated[
        str | None,
        typer.Option(help="share the images among Ray tasks of this cluster; `local` starts one"),
    ] = None,
    cpus: options.Cpus = 1.0,
    gpus: options.Gpus = 0.0,
    **given: Any,
) -> None:
    """Write palette PNGs of pseudo-labels at image size, and score them before and after.

    wsss pseudo-label --run runs/b0 --refinement random_walk

    CAMs -> (learned affinity -> random walk) -> background by a fixed score, or by IRN's confident
    pair with 255 between -> (dense CRF or PAMR). Run it again to do only what is missing.
    """
    if address is None:
        options.refuse_idle("without --address", ctx, "cpus", "gpus")
    else:
        options.refuse_idle("with --address, whose tasks refine labels", ctx, "workers")
    from sweeps.cli.method import work
    from sweeps.cli.method.run_folder import recall
    from sweeps.stages.labels import WriteLabels, label_score
    from sweeps.stages.segmentation import require_packages
    from wsss.overrides import apply_overrides, parse_assignments
    from wsss.segmentation_config import PseudoLabelConfig

    resources = work.resources_at(address, cpus, gpus)
    how, known = options.call(options.execution, given), recall(run)
    known = known.with_images(split or known.config.data.train_split)
    words = [f"refinement={refinement}"] if refinement is not None else []
    asked = parse_assignments([*words, *(settings or [])])
    labels, own = apply_overrides(PseudoLabelConfig(), asked), run / "pseudo_labels"
    wanted = [(labels, out or own / labels.refinement)]
    if labels.refinement != "none":
        wanted.insert(0, (labels.model_copy(update={"refinement": "none"}), own / "none"))
    chain = known.chain(labels, split)
    work.check_labels(known, chain, labels, asked)
    if resources is None:
        require_packages(chain, known.place(chain, labels=wanted[-1][1]))
    found = {}
    with work.crew_of(workers, resources) as crew:
        for each, folder in wanted:
            chain = known.chain(each, split)
            place = known.place(chain, crew=crew, execution=how, labels=folder)
            work.require_trained(known, place)
            stage = WriteLabels(chain)
            work.complete_shown(stage, place)
            found[each.refinement] = label_score(chain, place)
            maps = counted(place.result(stage)["num_images"], "label map")
            print(f"{folder / 'png'}: {maps}")
    for name, score in found.items():
        print(f"{name}: {work.told(score, labels, known)}")
