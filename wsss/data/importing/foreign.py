"""Pictures and image-level labels in other layouts: a table, or a folder per class.

coco.py reads COCO's JSON; into_voc.py makes a data set of what was read.
"""

import csv
import io
import os
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
    *("labels", "label", "classes", "class", "class_name", "categories", "category", "tags", "tag"),
)
SPLIT_COLUMNS = ("split", "subset", "set")
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
SEPARATORS = (";", "|", ",")
"""Between the labels of one field."""
WORDS = {"space": " ", "none": ""}
"""What `--separator` accepts besides a character."""
YES, NO = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no", "")
RECORD = "imported.json"
"""In an imported data set: what it was made from."""
READ, UNREAD = ENDINGS["JPEGImages"], (".gif", ".tif", ".tiff", ".heic", ".avif")
"""Endings of pictures."""


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
    """Pictures of the folder that the source does not name, or of a kind that is not read."""


class Pictures:
    """The pictures below a folder, found by path, by name, and by name without ending."""

    def __init__(self, folder: Path) -> None:
        """List them, also in linked folders, but not in hidden ones and in imported data sets."""
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; name the pictures' folder with --images")
        self.folder = folder
        self.names: list[str] = []
        self.others: list[str] = []
        """Files that are no pictures, or of a kind that is not read."""
        for top, folders, files in os.walk(folder, onerror=_raise, followlinks=True):
            if RECORD in files or _leads_back(Path(top)):
                folders.clear()
                continue
            folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
            for path in (Path(top, file) for file in files if not file.startswith(".")):
                found = self.names if path.suffix.lower() in READ else self.others
                found.append(path.relative_to(folder).as_posix())
        self.names.sort()
        self._by_end: dict[str, list[str]] = defaultdict(list)
        for name in self.names:
            for end in _ends(name):
                self._by_end[_without_ending(end)].append(name)

    def find(self, named: str, path: Path) -> str | None:
        """Return the picture that `named` means: one of the two paths is the end of the other.

        Its ending may be another, as after pictures were converted. Raises DataError, naming
        `path`, if several fit.
        """
        for place, end in enumerate(_ends(named.replace("\\", "/").lstrip("/"))):
            fitting = self._by_end.get(_without_ending(end), [])
            fitting = [name for name in fitting if _ends(name)[0].endswith(end)] or fitting
            whole = [name for name in fitting if name.count("/") == end.count("/")]
            found = whole or (fitting if place == 0 else [])
            if len(found) > 1:
                raise DataError(
                    f"{path}: {quoted(named)} may be {first_of(found)} in {self.folder}; name the "
                    "pictures' folder with --images, or write the picture's path below that folder"
                )
            if found:
                return found[0]
        return None

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
            raise DataError(
                f"{path}: {len(missing):,} of {counted(len(images), 'picture')} not found in "
                f"{self.folder} ({first_of(missing)}); add them as JPEG, PNG, WEBP or BMP, remove "
                "them from the file, or name their folder with --images"
            )
        unread = [name for name in self.others if name.lower().endswith(UNREAD)]
        unnamed = [name for name in self.names if name not in of_picture]
        return Foreign(path, self.folder, classes, list(images.values()), unread + unnamed)


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


def _without_ending(path: str) -> str:
    """Return a path without a picture's ending; other dots are part of the name."""
    stem, dot, ending = path.rpartition(".")
    return stem if f"{dot}{ending}".lower() in (*READ, *UNREAD) else path


@dataclass(frozen=True)
class TableOptions:
    """Which columns of a table hold what; None: chosen by the header."""

    image_column: str | None = None
    label_column: str | None = None
    separator: str | None = None


def read_table(path: Path, pictures: Pictures, options: TableOptions) -> Foreign:
    """Read a CSV of image-level labels: a row per image, or per image and label, or 0/1 columns.

    A column `split` is used, too. Raises DataError, with the remedy, for a table that is invalid or
    ambiguous.
    """
    rows = _rows(path)
    chosen = options.image_column, options.label_column
    for name in filter(None, chosen):
        if name not in rows[0]:
            raise DataError(f"{path}: no column {quoted(name)}; there are: {', '.join(rows[0])}")
    free = [name for name in rows[0] if name not in chosen]
    image = options.image_column or _column(path, free, *IMAGE_COLUMNS)
    label = options.label_column or _column(path, free, LABEL_COLUMNS)
    split = _column(path, free, SPLIT_COLUMNS)
    if not image:
        raise DataError(
            f"{path}: no column of pictures among {first_of([*rows[0]])}; name it with "
            "--image-column, or write a header such as image,labels"
        )
    if label:
        separator = _separator(path, [row[label] for row in rows], options.separator)
        labelled = [_parts(row[label], separator) for row in rows]
        classes = sorted({name for names in labelled for name in names})
    else:
        columns = [name for name in rows[0] if name not in (image, split)]
        labelled = _one_hot(path, rows, image, columns)
        classes = [class_name(name) for name in columns]
    images: dict[str, ForeignImage] = {}
    for row, names in zip(rows, labelled, strict=True):
        found = images.setdefault(row[image], ForeignImage(row[image]))
        found.labels |= dict.fromkeys(names)
        if split:
            own = SPLITS.get(row[split].casefold())
            if not own or found.split not in ("", own):
                raise DataError(
                    f"{path}: {quoted(row[image])} is in split {quoted(row[split])}; write train, "
                    "val or test, the same in all rows of a picture"
                )
            found.split = own
    return pictures.labelled(path, classes, images)


def _rows(path: Path) -> list[dict[str, str]]:
    """Return the rows below the header: column -> field, all stripped."""
    text = read_text(path, MAX_LABEL_BYTES, DataError)
    first_line = [*text.lstrip().splitlines(), ""][0]
    delimiter = max(DELIMITERS, key=first_line.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        stripped = ([value.strip() for value in row] for row in reader)
        header, *rows = [row for row in stripped if any(row)] or [[]]
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: {error}; save it as CSV again") from None
    if not rows:
        raise DataError(f"{path}: no rows below a header; write image,labels and a row per image")
    if len({*header}) < len(header):
        raise DataError(f"{path}: two columns of {', '.join(header)} have one name; rename one")
    for row in rows:
        if len(row) != len(header):
            raise DataError(
                f"{path}: the row {quoted(delimiter.join(row))} has {counted(len(row), 'field')}, "
                f"the header {len(header)}; put a field that contains {quoted(delimiter)} into "
                "double quotes"
            )
    return [dict(zip(header, row, strict=True)) for row in rows]


def _column(path: Path, header: list[str], *known: tuple[str, ...]) -> str:
    """Return the column with a known name, of the first group that has one; "" without one."""
    for names in known:
        found = [name for name in header if name.casefold().replace(" ", "_") in names]
        if len(found) > 1:
            raise DataError(
                f"{path}: {' or '.join(found)}? choose one with --image-column or --label-column, "
                "or rename all but one"
            )
        if found:
            return found[0]
    return ""


def _one_hot(
    path: Path, rows: list[dict[str, str]], image: str, columns: list[str]
) -> list[list[str]]:
    """Return each row's labels: `columns` are classes, 1 where the image has one."""
    other = [
        f"{one_line(name)} of {quoted(row[image])} is {quoted(row[name])}"
        for row in rows
        for name in columns
        if row[name].casefold() not in (*YES, *NO)
    ]
    if other or not columns:
        raise DataError(
            f"{path}: no column of labels; name one with --label-column, or write a column of 0 "
            f"and 1 for each class ({[*other, 'there is no other column'][0]})"
        )
    return [[class_name(name) for name in columns if row[name].casefold() in YES] for row in rows]


def _separator(path: Path, fields: list[str], asked: str | None) -> str:
    """Return what separates the labels of a field; "" if each holds one."""
    if asked is not None:
        return WORDS.get(asked, asked)
    for known in (SEPARATORS, (" ",)):  # beside another a space is none, as in `traffic light; dog`
        found = [each for each in known if any(each in text for text in fields)]
        if found == [" "] or len(found) > 1:
            example = next(text for text in fields if found[0] in text)
            raise DataError(
                f"{path}: {quoted(example)}: one label or several? say what separates labels: "
                "--separator none, space, ',' or ';'"
            )
        if found:
            return found[0]
    return ""


def _parts(text: str, separator: str) -> list[str]:
    parts = text.split(separator) if separator else [text]
    # A list of Python's or JSON's is often in a CSV as it is printed.
    return [name for part in parts if (name := class_name(part.strip(" []'\"")))]


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
            f"{path}: {first_of(sorted(tops - splits))} beside the splits "
            f"{first_of(sorted(splits))}; move it elsewhere, or into one of them"
        )
    images = {
        name: ForeignImage(
            name, {class_name(folders[depth]): None}, SPLITS[folders[0].casefold()] if depth else ""
        )
        for name, folders in parts.items()
        if len(folders) > depth
    }
    if not images:
        labels = (".json", ".csv", ".tsv", ".xml")
        found = first_of(sorted(name for name in pictures.others if name.endswith(labels)))
        raise DataError(
            f"{path}: no folder of a class; make one per class with its pictures, or give COCO's "
            f"JSON or a CSV of labels{f' (there is {found})' * bool(found)}; VOC's XML needs no "
            "import: put it into Annotations, pictures into JPEGImages"
        )
    classes = sorted({label for image in images.values() for label in image.labels})
    return pictures.labelled(path, classes, images)
