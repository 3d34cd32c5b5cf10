"""What the splits of a data set are called on disk, and which files and folders are skipped."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from benchmark.core.errors import DataError
from benchmark.data.decode import counted

# The names in torchvision, Keras, Kaggle and the Hugging Face Hub, in upper or lower case.
PARTS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
_SYSTEM = {
    "__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found",
    "__pycache__", "thumbs.db", "desktop.ini",
}  # fmt: skip


def part_of(name: str) -> str | None:
    """``train``, ``val`` or ``test``, if ``name`` is one of the words for it."""
    word = name.casefold()
    return next((part for part, words in PARTS.items() if word in words), None)


def find_parts(names: Iterable[str], where: str) -> dict[str, str]:
    """The name in ``names`` of each split (``train``, ``val``, ``test``) that is there.

    Raises:
        DataError: two names for one split, such as ``val`` and ``valid``.
    """
    found: dict[str, str] = {}
    for name in sorted(names):
        part = part_of(name)
        if part in found:
            raise DataError(
                f"{where} has both {found[part]!r} and {name!r}; rename or move away the one that "
                f"is not the {part} split"
            )
        if part:
            found[part] = name
    return {part: found[part] for part in PARTS if part in found}


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or belongs to the operating system."""
    return name.startswith(".") or name.casefold() in _SYSTEM


@dataclass
class Skipped:
    """Files and folders that were skipped, by reason."""

    names: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, name: str) -> None:
        self.names.setdefault(reason, []).append(name)

    def hidden(self, name: str) -> None:
        """A name for which ``is_hidden``."""
        self.add("hidden or of the operating system", name)

    def no_image(self, name: str) -> None:
        """A file whose ending is not that of an image."""
        ending = Path(name).suffix
        self.add(f"ending in {ending}" if ending else "without an ending", name)

    def join(self, other: Skipped) -> None:
        for reason, names in other.names.items():
            self.names.setdefault(reason, []).extend(names)

    def lines(self) -> tuple[str, ...]:
        """One sentence per reason, for the record."""
        return tuple(
            f"skipped {counted(names, 'file or folder', 'files and folders')}: {reason}"
            for reason, names in sorted(self.names.items())
        )


def foreign_format(folder: Path) -> str:
    """Advice for a folder in a format that cannot be read; empty for any other folder."""
    if (folder / "dataset_dict.json").exists() or (folder / "state.json").exists():
        return (
            "it was written by save_to_disk of Hugging Face datasets; write each split with "
            "to_parquet as train.parquet and test.parquet, and use dataset 'parquet'"
        )
    for pattern, what in (
        ("*.arrow", "Arrow files; write them as Parquet and use dataset 'parquet'"),
        ("*.tfrecord*", "TFRecord files; export them as class folders or .npz"),
        ("*.tar", "tar archives; unpack them into class folders"),
        ("*.zip", "zip archives; unpack them into class folders"),
        ("*-ubyte*", "idx files; save their arrays with numpy.savez and use dataset 'npz'"),
        ("*.h5", "HDF5 files; save their arrays with numpy.savez and use dataset 'npz'"),
    ):
        if any(folder.glob(pattern)):
            return f"it holds {what}"
    return ""
