"""Images in files: class folders, or folders with a table of labels; in memory or streamed."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from benchmark.core.errors import DataError
from benchmark.data.arrays import locate
from benchmark.data.check import make_split
from benchmark.data.chosen import places, read_list
from benchmark.data.classes import Named, Order, agreed, ordered
from benchmark.data.dataset import AnySplit, FileNames, StreamedSplit
from benchmark.data.decode import (
    Decoding,
    DeepImageError,
    Remarks,
    cached,
    counted,
    decode_all,
    find_white,
    open_image,
    printable,
)
from benchmark.data.labelled import (
    LabelTable,
    by_split,
    find_files,
    find_table,
    read_table,
    whole_tables,
)
from benchmark.data.layout import Skipped, find_parts, foreign_format, is_hidden
from benchmark.data.raw import Raw
from benchmark.data.source import Board, DatasetConfig, PublishedSizes, Source

# Formats that Pillow decodes without another program. torchvision's ImageFolder reads the first
# nine.
SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp",
    ".apng", ".avif", ".dib", ".gif", ".ico", ".j2c", ".j2k", ".jfif", ".jp2", ".jpe", ".jpf",
    ".jpx", ".mpo", ".pbm", ".pcx", ".pfm", ".pnm", ".qoi", ".ras", ".sgi", ".tga",
)  # fmt: skip
SMALL = 64  # pixels; larger images are resized and augmented as ImageNet's are
MEMORY_BYTES = 4 << 30  # of one split: 350,000 images of 64 pixels, 1.4 million of 32
STREAMED_SIZE = 224
LOOKED_AT = 64  # evenly spaced images of each split that are decoded at the start


@dataclass(frozen=True)
class Listing:
    """Image files of one split, relative to ``root``, with int64 labels [n]."""

    root: Path
    files: FileNames
    labels: np.ndarray
    classes: tuple[str, ...]
    skipped: Skipped = field(default_factory=Skipped)


def read_imagenet(config: DatasetConfig, data_root: Path) -> Raw:
    """ImageNet below ``data_root/imagenet`` or directly in ``data_root``."""
    for folder in (data_root / "imagenet", data_root):
        if folder.is_dir() and find_parts(_folders_in(folder), folder.name):
            return read_class_folders(folder, config, data_root=data_root)
    raise DataError(
        "ImageNet was not found: looked for imagenet/train/<class>/* and train/<class>/* below "
        "the data root; unpack your copy in this layout and give its parent folder with --data-root"
    )


def read_folder(config: DatasetConfig, data_root: Path) -> Raw:
    """Class folders, or a folder with a table of labels, at ``config.path``."""
    folder = locate(config.path or "", data_root)
    if not folder.is_dir():
        raise DataError(
            f"there is no folder {config.path!r} below the data root or at that path; correct "
            "path or --data-root"
        )
    return read_class_folders(folder, config, data_root=data_root)


def read_class_folders(
    folder: Path,
    config: DatasetConfig,
    names: Mapping[str, str] | None = None,
    data_root: Path = Path(),
) -> Raw:
    """The splits below ``folder``; if only one of val and test is there, it is the test set.

    Splits are the folders of ``layout.PARTS``, each with class folders or with a table of labels
    (``labelled.find_table``). Where there are none, tables in ``folder`` itself are read, and class
    folders in ``folder`` itself are a test set.

    Images whose side is at most 64 pixels are read into memory, up to 4 GiB per split; the side is
    ``config.size``, or else the largest among the images decoded at the start. Larger images are
    streamed. Small images that exceed 4 GiB are streamed too, with the same pixels and augmentation
    as in memory.

    Args:
        names: the names of the classes by folder name, where the two differ.
        data_root: where a relative ``config.test_list`` is looked for first.

    Raises:
        DataError: missing or empty folders, different classes, images of different sizes.
    """
    found, notes = _splits_below(folder)
    if names is not None:
        found = {part: _renamed(files, names) for part, files in found.items()}
    if "test" not in found:
        if "val" not in found:
            raise DataError(
                f"{folder.name} has no val folder or test folder with labels; expected "
                "{train,val}/<class>/<image>, where val is the test set"
            )
        found["test"] = found.pop("val")
    order: Order = config.class_order
    words = {part: files.word for part, files in found.items()}
    classes, labels = agreed({part: files.named for part, files in found.items()}, order, words)
    for files in found.values():
        notes += files.skipped.lines()
    listings = {part: _in_turn(files, labels[part], classes, part) for part, files in found.items()}
    if config.test_list is not None:
        listings["test"] = _chosen(listings["test"], config.test_list, data_root, words["test"])
        notes.append(f"test: the {len(listings['test'].files):,} images of {config.test_list}")
    storage = _Storage.choose(listings, words, config)
    splits, remarks = storage.splits(listings, words)
    count = sum(len(listing.files) for listing in listings.values())
    shown = ", ".join(words[part] for part in ("train", "val", "test") if part in words)
    kind = "class folders" if all(files.named.folders for files in found.values()) else "folders"
    return Raw(
        train=splits.get("train"),
        val=splits.get("val"),
        test=splits["test"],
        classes=tuple(map(printable, classes)),
        source=f"{kind} {shown} ({count:,} images), {storage.says(splits)}",
        notes=(f"test: {_said(found['test'])}, classes in turn", *notes, *storage.notes, *remarks),
    )


def _chosen(listing: Listing, test_list: str, data_root: Path, word: str) -> Listing:
    """The images that ``test_list`` names, in its order."""
    where = places(read_list(test_list, data_root), listing.files, word)
    files = FileNames(listing.files.at(where))
    return replace(listing, files=files, labels=listing.labels[where])


def _said(files: _Files) -> str:
    return f"the {files.word} folder" if files.named.folders else files.word


@dataclass(frozen=True)
class _Files:
    """Image files of one split, relative to ``root``, before classes have labels."""

    word: str
    root: Path
    files: FileNames
    named: Named
    skipped: Skipped


def _renamed(files: _Files, names: Mapping[str, str]) -> _Files:
    """The same files, with classes renamed as ``names`` says."""
    called = tuple(names[name] for name in files.named.names)
    return replace(files, named=replace(files.named, names=called))


def _folders_in(folder: Path) -> list[str]:
    return sorted(e.name for e in os.scandir(folder) if e.is_dir() and not is_hidden(e.name))


def _splits_below(folder: Path) -> tuple[dict[str, _Files], list[str]]:
    """The splits in ``folder``, and notes on what is not read."""
    folders = _folders_in(folder)
    parts = find_parts(folders, folder.name)
    notes: list[str] = []
    if not parts:
        tables = whole_tables(folder)
        if tables:
            return _from_tables(folder, tables), notes
        hint = foreign_format(folder)
        if not folders or hint:
            raise DataError(
                f"{folder.name} has no train folder and no val folder"
                + (f": {hint}" if hint else "; expected {train,val}/<class>/<image>")
            )
        return {"test": _class_folders(folder, folder.name)}, notes
    if list(parts) == ["train"]:
        raise DataError(
            f"{folder.name} has no val folder and no test folder beside {parts['train']}; expected "
            "{train,val}/<class>/<image>, where val is the test set"
        )
    others = sorted(set(folders) - set(parts.values()))
    if others:
        notes.append(f"{counted(others, 'folder', 'folders')} beside the splits not read")
    found: dict[str, _Files] = {}
    for part, entry in parts.items():
        files = _labelled_part(folder, entry)
        if part == "test" and files is None and _without_labels(folder / entry, found):
            notes.append(f"{entry} has no labels and is not read")
            continue
        found[part] = files or _class_folders(folder / entry, entry)
    return found, notes


def _without_labels(root: Path, found: Mapping[str, _Files]) -> bool:
    """Whether the test folder has images without labels, as in competitions, while the validation
    folder has labels."""
    folders = _folders_in(root)
    if not {"train", "val"} <= set(found):
        return False
    known = set(found["train"].named.names)
    if folders and (folders != ["images"] or "images" in known):
        return False
    return any(Path(file).suffix.lower() in SUFFIXES for file in _walk(root, root, Skipped()))


def _labelled_part(folder: Path, entry: str) -> _Files | None:
    """A split whose labels are in a table; None if class folders give the labels."""
    folders = _folders_in(folder / entry)
    if folders not in ([], ["images"]):
        return None
    path = find_table(folder, entry)
    if path is None:
        return None
    return _from_table(read_table(path), folder / entry, entry)


def _from_tables(folder: Path, tables: Mapping[str, Path]) -> dict[str, _Files]:
    read = {part: read_table(path) for part, path in tables.items()}
    if "all" not in read:
        return {part: _from_table(table, folder, table.path.name) for part, table in read.items()}
    table = read["all"]
    rows = by_split(table) or {"test": list(range(len(table.files)))}
    return {
        part: _from_table(table, folder, f"{part} of {table.path.name}", chosen)
        for part, chosen in rows.items()
    }


def _from_table(
    table: LabelTable, root: Path, word: str, rows: Sequence[int] | None = None
) -> _Files:
    skipped = Skipped()
    present = [file for file in _walk(root, root, skipped) if _is_image(file, skipped)]
    skipped.names.pop(f"ending in {table.path.suffix}", None)  # the table itself
    chosen = range(len(table.files)) if rows is None else rows
    files = find_files(table, chosen, present, root.name)
    if rows is None and root.name == word:
        for file in sorted(set(present) - set(files)):
            skipped.add(f"not named in {table.path.name}", file)
    named = Named.of([table.labels[row] for row in chosen])
    return _Files(word, root, FileNames(files), named, skipped)


def list_images(root: Path, part: str, order: Order = "name") -> Listing:
    """The images in the class folders of ``root``; see ``classes.ordered`` for their order.

    Training images are listed class by class. Other splits are listed with one image of each class
    in turn, so that their first n images are balanced. No seed is involved.

    Raises:
        DataError: no class folder, or a class folder without an image.
    """
    files = _class_folders(root, part)
    classes = ordered(files.named.names, order, part)
    places = np.array([classes.index(name) for name in files.named.names], dtype=np.int64)
    return _in_turn(files, places[files.named.labels], classes, part)


def _in_turn(files: _Files, labels: np.ndarray, classes: tuple[str, ...], part: str) -> Listing:
    found = files.files
    if part == "train":
        order = np.argsort(labels, kind="stable")
    else:
        by_class = np.argsort(labels, kind="stable")
        counts = np.bincount(labels)
        ranks = np.empty(len(labels), dtype=np.int64)
        ranks[by_class] = np.concatenate([np.arange(count) for count in counts])
        order = np.lexsort((labels, ranks))
    found, labels = FileNames(found.at(order)), labels[order]
    return Listing(files.root, found, labels, classes, files.skipped)


def _class_folders(root: Path, part: str) -> _Files:
    """The images below ``root``, class folder by class folder in plain order of their names."""
    skipped = Skipped()
    entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    for entry in entries:
        if is_hidden(entry.name):
            skipped.hidden(entry.name)
        elif not entry.is_dir():
            skipped.add("beside the class folders", entry.name)
    names = [entry.name for entry in entries if entry.is_dir() and not is_hidden(entry.name)]
    if not names:
        loose = f"{len(entries):,} files but no" if entries else "no"
        raise DataError(
            f"{part} has {loose} class folders; sort the images into {part}/<class>/, or name "
            f"their classes in {part}/labels.csv with the columns filename,label"
        )
    counts = array("q")

    def class_by_class() -> Iterator[str]:
        for name in names:
            here = Skipped()
            files = sorted(file for file in _walk(root / name, root, here) if _is_image(file, here))
            if not files:
                only = "; ".join(
                    f"{counted(what, 'file', 'files')} {reason}"
                    for reason, what in here.names.items()
                )
                raise DataError(
                    f"{part}/{printable(name)} holds no image{f' ({only})' if only else ''}; "
                    "remove the folder or fill it"
                )
            skipped.join(here)
            counts.append(len(files))
            yield from files

    found = FileNames(class_by_class())
    labels = np.repeat(np.arange(len(names)), counts)
    return _Files(part, root, found, Named(tuple(names), labels, folders=True), skipped)


def _is_image(file: str, skipped: Skipped) -> bool:
    if file.lower().endswith(SUFFIXES):
        return True
    skipped.no_image(file)
    return False


def _walk(top: Path, root: Path, skipped: Skipped) -> Iterator[str]:
    """All files below ``top``, relative to ``root``. Follows links; reads no folder twice."""
    # Tiny-ImageNet keeps its images one level lower, in <class>/images
    seen: set[str] = set()
    for base, folders, files in os.walk(top, followlinks=True):
        real = os.path.realpath(base)
        if real in seen:
            folders[:] = []
            continue
        seen.add(real)
        below = Path(os.path.relpath(base, root)).as_posix()
        prefix = "" if below == "." else f"{below}/"
        for name in (*folders, *files):
            if is_hidden(name):
                skipped.hidden(prefix + name)
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        yield from (prefix + name for name in sorted(files) if not is_hidden(name))


@dataclass(frozen=True)
class _Storage:
    """Whether images are kept in memory or streamed, and how they are decoded.

    Attributes:
        small: whether they are treated as small images, in memory or streamed.
        size: the configured size; None for small images that keep the size of their files.
        side: side of the square images in pixels.
        white: the configured value of white.
    """

    small: bool
    size: int | None
    side: int
    decoding: Decoding
    white: float | None
    notes: tuple[str, ...]

    @staticmethod
    def choose(
        listings: Mapping[str, Listing], words: Mapping[str, str], config: DatasetConfig
    ) -> _Storage:
        """Decide from a few images of each split. They are decoded here, so that widespread damage
        is reported early."""
        sources, names = [], []
        for part, listing in listings.items():
            last = len(listing.files) - 1
            for index in np.unique(np.linspace(0, last, LOOKED_AT).round().astype(int)):
                file = listing.files[int(index)]
                sources.append(listing.root / file)
                names.append(f"{words[part]}/{file}")
        white = find_white(sources, names.__getitem__, config.white)
        decoding = replace(config.decoding, white=white)
        remarks = Remarks()
        images = [
            open_image(source, name, decoding, remarks)
            for source, name in zip(sources, names, strict=True)
        ]
        side = config.size or max(max(image.size) for image in images)
        small = side <= SMALL
        notes: tuple[str, ...] = ()
        if not small:
            side = config.size or STREAMED_SIZE
            notes = ("augmentation: random resized crop and flip",)
            seen = remarks.lines(decoding)
            notes += tuple(f"of {len(images):,} images that were checked, {line}" for line in seen)
            if white is not None:
                notes += (_white_note(white),)
        elif config.size is None:
            for name, image in zip(names, images, strict=True):
                if image.size != images[0].size:
                    raise DataError(
                        f"{printable(name)} has {image.width}x{image.height} pixels but "
                        f"{printable(names[0])} has {images[0].width}x{images[0].height}; set size "
                        "to resize all of them"
                    )
        return _Storage(small, config.size, side, decoding, config.white, notes)

    def splits(
        self, listings: Mapping[str, Listing], words: Mapping[str, str]
    ) -> tuple[dict[str, AnySplit], tuple[str, ...]]:
        """The splits, and notes on those that were decoded."""
        per_image = self.side * self.side * self.decoding.channels
        in_memory = {
            part: self.small and len(listing.files) * per_image <= MEMORY_BYTES
            for part, listing in listings.items()
        }
        held = {part: listing for part, listing in listings.items() if in_memory[part]}
        if self.decoding.white is not None and self.white is None:
            return self._with_white_of(held).splits(listings, words)
        try:
            decoded, lines = self._decoded(held, words)
        except DeepImageError:  # not among the images decoded at the start, but among the others
            return self._with_white_of(held).splits(listings, words)
        splits: dict[str, AnySplit] = {}
        for part, listing in listings.items():
            if part in decoded:
                splits[part] = make_split(
                    f"{words[part]} split",
                    decoded[part],
                    listing.labels,
                    channels=self.decoding.channels,
                )
            else:
                labels = torch.from_numpy(listing.labels)
                splits[part] = StreamedSplit(
                    listing.root, listing.files, labels, self.side, self.decoding, self.small
                )
        return splits, lines

    def _with_white_of(self, listings: Mapping[str, Listing]) -> _Storage:
        """With the value of white inferred from all images that are read into memory."""
        files = [listing.root / file for listing in listings.values() for file in listing.files]
        white = find_white(files, lambda index: f"{files[index].parent.name}/{files[index].name}")
        white = self.decoding.white if white is None else white
        return replace(self, decoding=replace(self.decoding, white=white), white=white)

    def _decoded(
        self, listings: Mapping[str, Listing], words: Mapping[str, str]
    ) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
        found: dict[str, np.ndarray] = {}
        lines: dict[str, None] = {}
        for part, listing in listings.items():
            sources = [listing.root / file for file in listing.files]

            def compute(
                part: str = part, listing: Listing = listing, sources: list[Path] = sources
            ) -> dict[str, np.ndarray]:
                remarks = Remarks()
                images = decode_all(
                    sources,
                    lambda index: f"{words[part]}/{listing.files[index]}",
                    self.size,
                    self.decoding,
                    remarks,
                )
                said = np.array([f"{words[part]}: {line}" for line in remarks.lines(self.decoding)])
                return {"images": images, "notes": said.astype(np.str_)}

            arrays = cached(sources, compute, self.size, self.decoding)
            found[part] = arrays["images"]
            lines.update(dict.fromkeys(arrays["notes"].tolist()))
        white = self.decoding.white
        notes = () if white is None or not found else (_white_note(white),)
        return found, (*lines, *notes)

    def says(self, splits: Mapping[str, AnySplit]) -> str:
        streamed = [part for part, split in splits.items() if isinstance(split, StreamedSplit)]
        if not streamed:
            return "read into memory"
        which = "" if len(streamed) == len(splits) else f"{' and '.join(streamed)} "
        return f"{which}streamed at {self.side} pixels"


def _white_note(white: float) -> str:
    return f"white is {white:g} in images of more than 8 bits (dataset.white changes it)"


IMAGENET = Source(
    f"ImageNet: {{train,val}}/<class>/* below the data root, streamed at {STREAMED_SIZE}",
    read_imagenet,
    takes_class_order=True,
    takes_test_list=True,
    size=STREAMED_SIZE,
    published=PublishedSizes(1_281_167, 50_000, 1000, STREAMED_SIZE),
    # those of the full training set, which public networks expect
    statistics=((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    radii={"linf": "4/255", "l2": "3.0"},
    boards={"linf": Board(5_000, None, ("4/255",), chosen=True, preprocessing="Res256Crop224")},
)
FOLDER = Source(
    "images at path: class folders {train,val}/<class>/*, or folders with a table of labels",
    read_folder,
    takes_path=True,
    takes_class_order=True,
    takes_test_list=True,
)
