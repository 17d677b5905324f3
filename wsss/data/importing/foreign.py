"""Pictures and image-level labels in other layouts: a table, or a folder per class.

coco.py reads COCO's JSON; into_voc.py makes a data set of what was read.
"""

import csv
import io
import os
import shlex
import unicodedata
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from wsss.basics.files import read_text
from wsss.basics.printable import counted, first_of, one_line, quoted
from wsss.data.classes import class_name
from wsss.data.errors import DataError
from wsss.data.voc import ENDINGS

MAX_LABEL_BYTES = 4 << 30
"""Of a table or JSON; COCO's own instances have 0.5 GB."""
IMAGE_COLUMNS = (
    ("file_name", "filename", "file", "path", "image", "image_path", "image_name", "picture"),
    ("image_id", "id", "name"),
)
"""Columns that name pictures; the second group is used if a table has none of the first."""
LABEL_COLUMNS = (
    ("labels", "label", "classes", "class", "class_name", "categories", "category", "tags", "tag"),
)
SPLIT_COLUMNS = (("split", "subset", "set"),)
SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
"""What other data sets call a split -> its name here."""
DELIMITERS = (",", ";", "\t")
SEPARATORS = (";", "|", ",", " ")
"""Between the labels of one field, the most certain first."""
WORDS = {"space": " ", "none": ""}
"""What `--separator` accepts besides a character."""
YES, NO = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no", "")
RECORD = "imported.json"
"""In an imported data set: what it was made from."""
UNREAD = (".gif", ".tif", ".tiff", ".heic", ".avif")
SHOWN = 3
"""Names in a message; the others are counted."""


class Region(NamedTuple):
    """One annotated object of a picture, or a crowd of them."""

    name: str
    outline: object
    """COCO's `segmentation`; None or empty for a box alone."""
    is_crowd: bool


@dataclass
class ForeignImage:
    """A picture with its labels."""

    name: str
    """Path below the folder of pictures, with `/`."""
    labels: dict[str, None] = field(default_factory=dict)
    """Class names, in the order in which they were found."""
    split: str = ""
    """train, val or test; "" if the source does not say."""
    size: tuple[int | None, int | None] = (None, None)
    """(width, height) according to the source."""
    regions: list[Region] = field(default_factory=list)


@dataclass
class Foreign:
    """What a source holds: all pictures that it names, even those without a label."""

    path: Path
    folder: Path
    """Of the pictures."""
    classes: list[str]
    """In label order, including those that no picture has."""
    images: list[ForeignImage]
    unnamed: list[str]
    """Pictures of the folder that the source does not name."""
    unread: list[str]
    """Pictures of the folder in formats that are not read."""


def some(names: list[str]) -> str:
    """Return names for a message; those after SHOWN are counted."""
    return first_of([one_line(name) for name in names], SHOWN)


class Pictures:
    """The pictures below a folder, found by path, by name, and by name without ending."""

    def __init__(self, folder: Path) -> None:
        """List them, also in linked folders, but not in hidden ones and in imported data sets."""
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; name the pictures' folder with --images")
        self.folder = folder
        self.names: list[str] = []
        self.others: list[str] = []
        for top, folders, files in os.walk(folder, onerror=_raise, followlinks=True):
            if RECORD in files or _leads_back(Path(top)):
                folders.clear()
                continue
            folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
            for path in (Path(top, file) for file in files if not file.startswith(".")):
                is_taken = path.suffix.lower() in ENDINGS["JPEGImages"]
                found = self.names if is_taken else self.others
                found.append(path.relative_to(folder).as_posix())
        self.names.sort()
        self._by_end: dict[str, list[str]] = defaultdict(list)
        for name in self.names:
            for end in _ends(name):
                for key in (end, str(PurePosixPath(end).with_suffix(""))):
                    self._by_end[key].append(name)

    def find(self, named: str, path: Path) -> str | None:
        """Return the picture that `named` means: one of the two paths is the end of the other.

        Its ending may be another, as after pictures were converted. Raises DataError, naming
        `path`, if several fit.
        """
        found: list[str] = []
        path_there = named.replace("\\", "/").removeprefix("./").lstrip("/")
        for place, end in enumerate(_ends(path_there)):
            fitting = self._by_end.get(end, [])
            whole = [name for name in fitting if name.count("/") == end.count("/")]
            found = [named] if named in whole else whole or (fitting if place == 0 else [])
            if found:
                break
        if len(found) > 1:
            raise DataError(
                f"{path}: {quoted(named)} may be {some(found)} in {self.folder}; name the "
                "pictures' folder with --images, or write the picture's path below that folder"
            )
        stem, ending = os.path.splitext(path_there)  # noqa: PTH122 - of a name in a file
        if not found and ending.lower() in (*ENDINGS["JPEGImages"], *UNREAD):
            return self.find(stem, path)
        return found[0] if found else None

    def labelled(self, path: Path, classes: list[str], images: dict[str, ForeignImage]) -> Foreign:
        """Return what `path` holds, each image with its picture's name in place of its own.

        images: name in `path` -> image. Raises DataError for missing pictures, and for one that is
        named in two ways.
        """
        missing, of_picture = [], dict[str, str]()
        for named, image in images.items():
            name = self.find(named, path)
            if name is None:
                missing.append(named)
            elif (other := of_picture.setdefault(name, named)) != named:
                raise DataError(
                    f"{path}: {quoted(other)} and {quoted(named)} are both {one_line(name)}; name "
                    "it in one way"
                )
            else:
                image.name = name
        if missing:
            unread = any(named in self.others for named in missing)
            raise DataError(
                f"{path}: {len(missing):,} of {counted(len(images), 'picture')} not found in "
                f"{self.folder}{' as JPEG or PNG' * unread} ({some(missing)}); "
                f"{'convert those of another kind, ' * unread}add them, remove them from the file, "
                "or name their folder with --images"
            )
        return Foreign(
            path,
            self.folder,
            classes,
            list(images.values()),
            unnamed=[name for name in self.names if name not in of_picture],
            unread=[name for name in self.others if name.lower().endswith(UNREAD)],
        )


def _raise(error: OSError) -> None:
    raise error


def _leads_back(folder: Path) -> bool:
    """Return whether a folder is a link to one that it lies in, where a walk would not end."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


def _ends(name: str) -> list[str]:
    """Return a path, the path without its first folder, and so on: a/b.jpg, b.jpg."""
    # macOS stores accents separate from their letters.
    parts = PurePosixPath(unicodedata.normalize("NFC", name)).parts
    return ["/".join(parts[start:]) for start in range(len(parts))]


@dataclass(frozen=True)
class TableOptions:
    """Which columns of a table hold what; None: chosen by the header."""

    image_column: str | None = None
    label_column: str | None = None
    separator: str | None = None


def read_table(path: Path, pictures: Pictures, options: TableOptions) -> Foreign:
    """Read a CSV of image-level labels: a row per image, or per image and label, or 0/1 columns.

    A column `split` is used, too. Raises DataError, with line and remedy, for a table that is
    invalid or ambiguous.
    """
    header, rows = _rows(path)
    chosen = {"--image-column": options.image_column, "--label-column": options.label_column}
    image = _column(path, header, IMAGE_COLUMNS, "--image-column", chosen)
    label = _column(path, header, LABEL_COLUMNS, "--label-column", chosen)
    split = _column(path, header, SPLIT_COLUMNS, "", chosen)
    if image is None:
        raise DataError(
            f"{path}: no column of pictures among {some(header)}; name it with --image-column, or "
            "write a header such as image,labels"
        )
    if label is None:
        hot = [k for k in range(len(header)) if k not in (image, split)]
        labelled = _one_hot(path, header, rows, hot)
        classes = [class_name(header[k]) for k in hot]
    else:
        separator = _separator(path, [row[label] for _, row in rows], options.separator)
        labelled = [_parts(row[label], separator) for _, row in rows]
        classes = sorted({name for names in labelled for name in names})
    images: dict[str, ForeignImage] = {}
    for (line, row), names in zip(rows, labelled, strict=True):
        found = images.setdefault(row[image], ForeignImage(row[image]))
        found.labels |= dict.fromkeys(names)
        if split is not None:
            own = _split(row[split], path, line)
            if found.split not in ("", own):
                raise DataError(
                    f"{path}: line {line} puts {quoted(row[image])} into {own}, another line into "
                    f"{found.split}; keep it in one split"
                )
            found.split = own
    return pictures.labelled(path, classes, images)


def _rows(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the header and, with their line numbers, the rows, all fields stripped."""
    text = read_text(path, MAX_LABEL_BYTES, DataError)
    first = next((line for line in text.splitlines() if line.strip()), "")
    counts = {delimiter: first.count(delimiter) for delimiter in DELIMITERS}
    delimiter = max(counts, key=lambda each: counts[each])
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        rows = [
            (reader.line_num, [value.strip() for value in row])
            for row in reader
            if any("".join(row).split())
        ]
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: {error}; save it as CSV again") from None
    if len(rows) < 2:
        raise DataError(f"{path}: no rows below a header; write image,labels and a row per image")
    header = rows[0][1]
    if twice := [name for k, name in enumerate(header) if name in header[:k]]:
        raise DataError(f"{path}: two columns are named {quoted(twice[0])}; rename one")
    for line, row in rows[1:]:
        if len(row) != len(header):
            raise DataError(
                f"{path}: line {line} has {counted(len(row), 'field')}, the header {len(header)}; "
                f"put a field that contains {quoted(delimiter)} into double quotes"
            )
    return header, rows[1:]


def _column(
    path: Path,
    header: list[str],
    known: tuple[tuple[str, ...], ...],
    option: str,
    chosen: dict[str, str | None],
) -> int | None:
    """Return the index of the column chosen with `option`, or of one with a known name."""
    if name := chosen.get(option):
        if name not in header:
            raise DataError(f"{path}: no column {quoted(name)}; there are: {', '.join(header)}")
        return header.index(name)
    spelled = [name.casefold().replace(" ", "_") for name in header]
    for names in known:
        found = [k for k, name in enumerate(spelled) if name in names]
        found = [k for k in found if header[k] not in chosen.values()]
        if len(found) > 1:
            remedy = f"choose one with {option}" if option else "rename all but one"
            raise DataError(f"{path}: {' or '.join(header[k] for k in found)}? {remedy}")
        if found:
            return found[0]
    return None


def _one_hot(
    path: Path, header: list[str], rows: list[tuple[int, list[str]]], columns: list[int]
) -> list[list[str]]:
    """Return each row's labels: `columns` are classes, 1 where the image has one."""
    other = [
        f"line {line}, {one_line(header[k])}: {quoted(row[k])}"
        for line, row in rows
        for k in columns
        if row[k].casefold() not in (*YES, *NO)
    ]
    if other or not columns:
        only = [header[k] for k in columns if len(columns) == 1]
        raise DataError(
            f"{path}: no column of labels: name one with --label-column"
            f"{''.join(f' {shlex.quote(name)}' for name in only)}, or write a column of 0 and 1 "
            f"for each class{f' ({other[0]})' if other else ''}"
        )
    return [[class_name(header[k]) for k in columns if row[k].casefold() in YES] for _, row in rows]


def _separator(path: Path, fields: list[str], asked: str | None) -> str:
    """Return what separates the labels of a field; "" if each holds one."""
    if asked is not None:
        return WORDS.get(asked, asked)
    found = [each for each in SEPARATORS if any(each in text for text in fields)]
    if " " in found and found != [" "]:
        found.remove(" ")  # another one separates, as in `traffic light; dog`
    if found == [" "] or len(found) > 1:
        example = next(text for text in fields if found[0] in text)
        raise DataError(
            f"{path}: {quoted(example)}: one label or several? say what separates labels: "
            "--separator none, space, ',' or ';'"
        )
    return found[0] if found else ""


def _parts(text: str, separator: str) -> list[str]:
    parts = text.split(separator) if separator else [text]
    # A list of Python's or JSON's is often in a CSV as it is printed.
    return [name for part in parts if (name := class_name(part.strip(" []'\"")))]


def _split(text: str, path: Path, line: int) -> str:
    if text.casefold() not in SPLITS:
        raise DataError(f"{path}: line {line}: no split {quoted(text)}; write train, val or test")
    return SPLITS[text.casefold()]


def read_folders(path: Path, pictures: Pictures) -> Foreign:
    """Read a folder per class, perhaps below one per split: dog/1.jpg, or train/dog/1.jpg."""
    if (path / "JPEGImages").is_dir():
        raise DataError(f"{path}: already in VOC layout; give the folder itself as --data")
    parts = {name: PurePosixPath(name).parts[:-1] for name in pictures.names}
    tops = {folders[0] for folders in parts.values() if folders}
    splits = {top for top in tops if top.casefold() in SPLITS}
    depth = int(bool(tops) and splits == tops)
    if not depth and len({SPLITS[top.casefold()] for top in splits}) > 1:  # `train` is VOC's class
        raise DataError(
            f"{path}: {some(sorted(tops - splits))} beside the splits {some(sorted(splits))}; move "
            "it elsewhere, or into one of them"
        )
    images = {
        name: ForeignImage(
            name, {class_name(folders[depth]): None}, SPLITS[folders[0].casefold()] if depth else ""
        )
        for name, folders in parts.items()
        if len(folders) > depth
    }
    if not images:
        found = sorted(name for name in pictures.others if name.endswith((".json", ".csv", ".tsv")))
        hint = f"; or give {path / found[0]}" if found else ", or a CSV or COCO's JSON of labels"
        if len(found) > 1:
            hint = f"; or give one of {some(found)}, and another of them with --val"
        elif not found and any(name.endswith(".xml") for name in pictures.others):
            hint = "; VOC's XML needs no import: put it into Annotations, pictures into JPEGImages"
        raise DataError(f"{path}: no folder of a class; make one per class with its pictures{hint}")
    classes = sorted({label for image in images.values() for label in image.labels})
    return pictures.labelled(path, classes, images)
