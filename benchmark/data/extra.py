"""Extra training images, such as generated ones, read from an .npz file when a batch needs them."""

from __future__ import annotations

import hashlib
import math
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np

from benchmark.core.errors import DataError
from benchmark.data.arrays import load_npz, locate, npz_names
from benchmark.data.check import check_labels
from benchmark.data.dataset import WHOLE_BYTES, AnySplit, ExtraImages, Split
from benchmark.data.decode import cached, printable
from benchmark.data.source import ExtraConfig

# Of pixels beyond WHOLE_BYTES, the hash covers so many blocks of so many bytes.
_BLOCKS, _BLOCK_BYTES = 2000, 1 << 16
_LOCAL_HEADER_BYTES = 30  # of a member of a zip archive, before its name


def read_extra(
    config: ExtraConfig, data_root: Path, train: AnySplit, classes: tuple[str, ...]
) -> ExtraImages:
    """The extra images in the file ``config.path``, which join the training images ``train``.

    The .npz file holds ``image``, uint8 [n, s, s, c], of the size of the training images and stored
    without compression, and ``label``, integers [n] or [n, 1], indices into ``classes``. Labels are
    read here, pixels when a batch needs them.

    Raises:
        DataError: no such file or arrays, compressed or of another form, labels out of range, or
            ``train`` is not held in memory.
    """
    path = locate(config.path, data_root)
    where = f"dataset.extra: {printable(path.name)}"
    if not isinstance(train, Split):
        raise DataError(
            f"{where} cannot be mixed with images that are streamed from files; extra images are "
            "for data sets that are held in memory (of at most 64 pixels and 4 GiB)"
        )
    if not path.is_file():
        raise DataError(
            f"dataset.extra: there is no file {config.path!r} below the data root or at that path; "
            "correct path or --data-root"
        )
    present = npz_names(path)
    for name in ("image", "label"):
        if name not in present:
            raise DataError(
                f"{where} has no array {name!r} (it has: {', '.join(map(printable, present))}); "
                "save image=[n, s, s, 3] and label=[n] with numpy.savez"
            )
    offset, shape = _place(path, where)
    side, channels = train.image_size, train.channels
    if shape[1:] != (side, side, channels):
        wanted = f"[n, {side}, {side}, {channels}]"
        raise DataError(
            f"{where}: image has shape {list(shape)}, but the images of the data set require "
            f"{wanted}; save them in that form"
        )
    labels = check_labels(where, load_npz(path, ["label"])["label"])
    if len(labels) != shape[0]:
        raise DataError(f"{where}: {shape[0]} images but {len(labels)} labels")
    if not len(labels):
        raise DataError(f"{where} has no images")
    if int(labels.max()) >= len(classes):
        raise DataError(
            f"{where}: label {labels.max()} is out of range; the data set's {len(classes)} classes "
            f"are 0 to {len(classes) - 1}"
        )
    labels = labels.astype(np.min_scalar_type(len(classes) - 1))  # 50 million labels: 50 MB
    pixels = math.prod(shape)

    def contents() -> dict[str, np.ndarray]:
        digest = hashlib.sha256(f"{shape}".encode())
        digest.update(labels.astype(np.int64).tobytes())
        with open(path, "rb") as file:
            for start, size in _blocks(pixels):
                file.seek(offset + start)
                digest.update(file.read(size))
        return {"digest": np.frombuffer(digest.digest(), dtype=np.uint8)}

    known_by = cached([path], contents, "extra", offset)["digest"].tobytes().hex()[:16]
    return ExtraImages(path, offset, shape, labels, config.share, known_by)


def _place(path: Path, where: str) -> tuple[int, tuple[int, ...]]:
    """Where the pixels of ``image`` begin in the file, in bytes, and its shape [n, h, w, c].

    Raises:
        DataError: compressed, not uint8, not of four axes, or cut off.
    """
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("image.npy")
    if member.compress_type != zipfile.ZIP_STORED:
        raise DataError(
            f"{where} is compressed, so its images cannot be read one by one; write it again "
            f'once (all of it must fit in memory): python -c "import numpy as np; old = np.load('
            f"'{path.name}'); np.savez('plain-{path.name}', image=old['image'], "
            "label=old['label'])\""
        )
    with open(path, "rb") as file:
        file.seek(member.header_offset)
        header = file.read(_LOCAL_HEADER_BYTES)
        lengths = header[26:28], header[28:30]
        file.seek(sum(int.from_bytes(length, "little") for length in lengths), 1)
        begin = file.tell()
        shape, fortran, dtype = _array_header(file, where)
        offset = file.tell()
    if dtype != np.uint8:
        raise DataError(
            f"{where}: image is {dtype}; expected uint8, 0 (black) to 255: save it as numpy.uint8"
        )
    if len(shape) != 4 or fortran:
        hint = " in C order" if fortran else ""
        raise DataError(f"{where}: image has shape {list(shape)}; expected [n, s, s, 3]{hint}")
    if member.file_size != offset - begin + math.prod(shape):
        raise DataError(f"{where} is damaged: the size of image does not match its shape")
    return offset, shape


def _array_header(file: BinaryIO, where: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether in Fortran order, and type of the .npy array that begins here."""
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        return readers[np.lib.format.read_magic(file)](file)
    except (ValueError, KeyError, OSError) as error:
        raise DataError(f"{where} is damaged: image is no array ({error})") from error


def _blocks(pixels: int) -> list[tuple[int, int]]:
    """(start, size) of the blocks of ``pixels`` bytes that the hash covers: everything up to 1 GiB,
    beyond that 2,000 evenly spaced blocks of 64 KiB."""
    if pixels <= WHOLE_BYTES:
        starts = range(0, pixels, _BLOCK_BYTES)
    else:
        starts = np.linspace(0, pixels - _BLOCK_BYTES, _BLOCKS).astype(np.int64).tolist()
    return [(start, min(_BLOCK_BYTES, pixels - start)) for start in starts]
