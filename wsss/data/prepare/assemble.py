"""Turns the public archives of VOC 2012 and SBD into one folder in VOC layout, with train_aug.

Three steps: `voc` (pictures, masks, lists), `sbd` (SegmentationClassAug, train_aug.txt) and, if
asked for, `test`. Each works in a temporary folder on the same disk, and renames its result into
place; a step whose last file or folder is there is not done again.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.progress import Progress

from wsss.basics.printable import counted
from wsss.data.building import alone, is_vacant, put_in_place, temporary
from wsss.data.check_splits import OFFICIAL_SPLITS, is_official, split_digest
from wsss.data.errors import DataError
from wsss.data.prepare.archives import (
    PrepareRequest,
    Source,
    check_files,
    extract,
    obtain,
    public_sources,
    require_space,
)
from wsss.data.prepare.sbd import MaskJob, convert_masks, read_id_list
from wsss.data.voc import VocDataset

LISTS, MASKS = "ImageSets/Segmentation", "SegmentationClassAug"
ID = r"[A-Za-z0-9][A-Za-z0-9._-]*"
VOC_MEMBER = re.compile(
    rf"(?:.*/)?VOC2012/(JPEGImages/{ID}\.jpg|Annotations/{ID}\.xml|SegmentationClass/{ID}\.png"
    rf"|{LISTS}/(?:train|val|trainval)\.txt)"
)
TEST_MEMBER = re.compile(rf"(?:.*/)?VOC2012/(JPEGImages/{ID}\.jpg|{LISTS}/test\.txt)")
"""Without Annotations: those of test do not name the objects to be segmented."""
SBD_MEMBER = re.compile(rf"(?:.*/)?dataset/(cls/{ID}\.mat|(?:train|val)\.txt)")


@dataclass
class Prepared:
    """What a call did."""

    root: Path
    done: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    """Steps whose results were there: of an earlier call, or unpacked by hand."""

    def describe(self) -> str:
        """Return the splits, one a line, and what was done."""
        dataset, lines = VocDataset(self.root), []
        for split in [split for split in OFFICIAL_SPLITS if split in dataset.split_names()]:
            ids = dataset.image_ids(split)
            known = "VOC 2012's list" if is_official(split, ids) else "not VOC 2012's full list"
            lines.append(f"{split}: {counted(len(ids), 'image')}, {known}")
        done, kept = (", ".join(steps) or "nothing" for steps in (self.done, self.kept))
        return "\n".join([*lines, f"{self.root}: prepared {done}; already there: {kept}"])


def prepare_voc(
    request: PrepareRequest, *, progress: Progress, sources: Mapping[str, Source] | None = None
) -> Prepared:
    """Do the steps that are not done yet; return what was done.

    Raises DataError, with file and remedy, for an archive that cannot be obtained, is not the known
    one, unsafe or incomplete, and for a folder that holds something else. Downloads are kept.
    """
    root, result = request.root, Prepared(request.root)
    steps: dict[str, tuple[Callable[[PrepareRequest, Path, Progress], None], list[str]]] = {
        "voc": (_prepare_voc, ["JPEGImages"]),
        "sbd": (_prepare_sbd, [f"{LISTS}/train_aug.txt", MASKS]),
        "test": (_prepare_test, [f"{LISTS}/test.txt"]),
    }
    """Step -> what does it, and what is there when it is done."""
    if not (request.with_test or "test" in request.archives):
        del steps["test"]
    with alone(root, "wsss data prepare"):
        result.kept = [
            name for name, (_, made) in steps.items() if all((root / m).exists() for m in made)
        ]
        for name in result.kept:  # of a call that was killed when its step was done
            shutil.rmtree(root / f".{name}.part", ignore_errors=True)
        todo = [name for name in steps if name not in result.kept]
        if todo:
            sources = sources or public_sources()  # imports torchvision, which takes seconds
            check_files(request, sources, todo)
        if "voc" in todo and not is_vacant(root):
            raise DataError(f"{root}: holds other files but no JPEGImages; name an empty folder")
        for name in todo:
            archive = obtain(name, (sources or {})[name], request, progress)
            steps[name][0](request, archive, progress)
            result.done.append(name)
    return result


def _prepare_voc(request: PrepareRequest, archive: Path, progress: Progress) -> None:
    root = request.root
    part = root.with_name(f".{root.name}.part")
    with _unpacked(part, archive, VOC_MEMBER, progress) as building:
        _require_files(archive, building, [f"{LISTS}/{split}.txt" for split in ("train", "val")])
        dataset = VocDataset(building)
        for split in ("train", "val"):
            ids = dataset.image_ids(split)
            _require_official(split, ids, request)
            for folder, ending in (("JPEGImages", "jpg"), ("SegmentationClass", "png")):
                _require_files(archive, building, [f"{folder}/{i}.{ending}" for i in ids])
        put_in_place(building, root)


def _prepare_sbd(request: PrepareRequest, archive: Path, progress: Progress) -> None:
    root, dataset = request.root, VocDataset(request.root)
    target, list_path = root / MASKS, root / LISTS / "train_aug.txt"
    if target.exists():
        raise DataError(f"{target}: holds other masks; move it away, it is made from SBD")
    train, val = dataset.image_ids("train"), dataset.image_ids("val")
    _require_official("train", train, request)
    _require_official("val", val, request)
    own = {path.stem: path for path in (root / "SegmentationClass").glob("*.png")}
    with _unpacked(root / ".sbd.part", archive, SBD_MEMBER, progress) as building:
        _require_files(archive, building, ["train.txt", "val.txt"])
        sbd_train, sbd_val = (read_id_list(building / f"{name}.txt") for name in ("train", "val"))
        ids = sorted({*sbd_train, *sbd_val, *train} - {*val})  # 10,582 of the full sets
        _require_official("train_aug", ids, request)
        if list_path.exists() and sorted(dataset.image_ids("train_aug")) != ids:
            raise DataError(f"{list_path}: is another list; move it away, it is made from SBD")
        masks = building / MASKS
        masks.mkdir()
        jobs = [
            MaskJob(building / f"cls/{i}.mat", root / f"JPEGImages/{i}.jpg", masks / f"{i}.png")
            for i in ids
            if i not in own
        ]
        _require_files(archive, building, [f"cls/{job.mat.name}" for job in jobs])
        convert_masks(jobs, num_workers=request.num_workers, progress=progress)
        for image_id, path in own.items():
            shutil.copyfile(path, masks / f"{image_id}.png")
        partial = building / "train_aug.txt"
        partial.write_text("".join(f"{image_id}\n" for image_id in ids))
        os.sync()  # before anything gets its name
        if not list_path.exists():
            partial.replace(list_path)
        masks.rename(target)  # last: masks without the list are somebody else's


def _prepare_test(request: PrepareRequest, archive: Path, progress: Progress) -> None:
    root = request.root
    with _unpacked(root / ".test.part", archive, TEST_MEMBER, progress) as building:
        _require_files(archive, building, [f"{LISTS}/test.txt"])
        ids = VocDataset(building).image_ids("test")
        _require_official("test", ids, request)
        _require_files(archive, building, [f"JPEGImages/{i}.jpg" for i in ids])
        os.sync()  # a picture that is there is not written again
        for image_id in ids:  # the archive's other pictures are for VOC's other tasks
            name = f"JPEGImages/{image_id}.jpg"
            if not (root / name).exists():
                (building / name).replace(root / name)
        (building / LISTS / "test.txt").replace(root / LISTS / "test.txt")


def _require_official(split: str, ids: list[str], request: PrepareRequest) -> None:
    if request.allow_partial or is_official(split, ids):
        return
    official = OFFICIAL_SPLITS[split]
    raise DataError(
        f"{split}: {len(ids)} ids with SHA-256 {split_digest(ids)}; VOC 2012 has "
        f"{official.num_images} with {official.sha256}; use the official archives, or "
        "--allow-partial for others"
    )


def _require_files(archive: Path, folder: Path, names: Iterable[str]) -> None:
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"{archive}: {missing[0]} is missing, {counted(len(missing), 'file')} in all; get the "
            "archive again, or another one (VOC's trainval, SBD's benchmark.tgz)"
        )


@contextmanager
def _unpacked(
    folder: Path, archive: Path, wanted: re.Pattern[str], progress: Progress
) -> Iterator[Path]:
    """Make a temporary folder of the archive's wanted members, if its disk has room for them."""
    with temporary(folder) as building:
        require_space(folder.parent, archive.stat().st_size, f"the content of {archive.name}")
        extract(archive, building, wanted, progress=progress)
        yield building
