"""Whatever is in an array or a data file: a split of images in 0..255 with labels, or one DataError."""

from __future__ import annotations

import io
import os
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from strategies import JSON_VALUES, SCALARS, attempt, damaged, examples
from tiny_learners import tiny_net

from benchmark.attacks import pgd
from benchmark.attacks.norms import NORMS
from benchmark.core.crafting import crafting
from benchmark.core.errors import DataError
from benchmark.core.threat import ThreatModel
from benchmark.data.check import make_split
from benchmark.data.dataset import Dataset, StreamedSplit
from benchmark.data.loader import TrainLoader, evaluation_batches
from benchmark.data.source import DatasetConfig
from benchmark.data.sources import load

KINDS = st.one_of(
    hnp.boolean_dtypes(), hnp.integer_dtypes(), hnp.unsigned_integer_dtypes(),
    hnp.floating_dtypes(), hnp.complex_number_dtypes(), hnp.datetime64_dtypes(),
    hnp.unicode_string_dtypes(max_len=3), hnp.byte_string_dtypes(max_len=3),
)  # fmt: skip
ARRAYS = hnp.arrays(KINDS, hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=5))


@st.composite
def near_images(draw: Any) -> np.ndarray:
    """Of a kind that could be images: the right shape, any numbers."""
    kind = draw(st.one_of(hnp.unsigned_integer_dtypes(), hnp.floating_dtypes()))
    shape = draw(st.sampled_from([(4, 8, 8), (4, 8, 8, 1), (4, 8, 8, 3), (4, 5, 8, 3), (0, 8, 8)]))
    return draw(
        hnp.arrays(kind, shape, fill=st.just(kind.type(draw(st.sampled_from([0, 1, 200])))))
    )


LABELS = st.one_of(
    ARRAYS, hnp.arrays(st.sampled_from([np.int64, np.uint8, np.int8]), st.sampled_from([4, (4, 1)]))
)


def is_sound(split: Any) -> None:
    assert split.images.dtype == torch.uint8
    assert split.images.shape[1] == 3
    assert split.labels.dtype == torch.int64
    assert len(split.images) == len(split.labels) > 0
    assert int(split.labels.min()) >= 0


@given(st.one_of(ARRAYS, near_images()), LABELS)
@examples(100)
@pytest.mark.filterwarnings("error")
def test_arrays(images: np.ndarray, labels: np.ndarray) -> None:
    found = attempt(lambda: make_split("here", images, labels), DataError)
    if isinstance(found, str):
        assert found.startswith("here")
    else:
        is_sound(found)


def loaded(config: dict[str, Any], root: Path) -> Dataset | None:
    """The data set, whose first batches can be had, or None for an error in words."""
    data = attempt(lambda: load(DatasetConfig(**config), root))
    if isinstance(data, str):
        assert len(data) < 2000
        return None
    for split in (data.train, data.val, data.test):
        assert int(split.labels.max()) < data.num_classes
        if isinstance(split, StreamedSplit):  # a damaged header can say that an image is large
            attempt(partial(next, evaluation_batches(split, 4)), DataError)
            return data
        is_sound(split)
    if len(data.train) > 1:
        x, y = next(iter(TrainLoader(data.train, 4, seed=0, crop=2, flip=True).epoch(0)))
        assert 0 <= float(x.min()) <= float(x.max()) <= 1
        assert len(x) == len(y)
    assert isinstance(data, Dataset)
    return data


class Bomb:
    """Leaves a file behind where it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("executed",)


def npz_arrays() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    return {
        f"{part}_{what}": array
        for part in ("train", "val", "test")
        for what, array in (
            ("images", draw.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)),
            ("labels", np.arange(12).reshape(-1, 1) % 3),
        )
    }


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@given(st.data())
@examples(60)
def test_npz_arrays(tmp_path: Path, data: Any) -> None:
    arrays = npz_arrays()
    for _ in range(data.draw(st.integers(1, 2))):
        name = data.draw(st.sampled_from(sorted(arrays)))
        if data.draw(st.booleans()):
            arrays[name] = data.draw(st.one_of(ARRAYS, near_images(), LABELS))
        else:
            arrays[data.draw(st.sampled_from(["x", "val_labels", "images", "train_images"]))] = (
                arrays.pop(name)
            )
    np.savez(tmp_path / "set.npz", **arrays)  # type: ignore[arg-type]
    loaded({"name": "npz", "path": "set.npz"}, tmp_path)


def zipped(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(
        buffer, train_images=array, **{k: v for k, v in npz_arrays().items() if "train_im" not in k}
    )  # type: ignore[arg-type]
    return buffer.getvalue()


def plain() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **npz_arrays())  # type: ignore[arg-type]
    return buffer.getvalue()


@given(damaged(plain()))
@example(zipped(np.array([Bomb()] * 12, dtype=object)))
@example(pickle.dumps(Bomb()))
@examples(60)
def test_npz_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "set.npz").write_bytes(content)
    loaded({"name": "npz", "path": "set.npz"}, tmp_path)
    assert not Path("executed").exists()


@given(
    st.sampled_from(["data_batch_1", "test_batch", "batches.meta"]),
    st.one_of(st.binary(max_size=50), st.just(pickle.dumps(Bomb())), JSON_VALUES.map(pickle.dumps)),
)
@examples(15)
def test_cifar_pickles(tmp_path: Path, name: str, content: bytes) -> None:
    """Protects: nothing whose MD5 sum is not the official one is unpickled."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir(exist_ok=True)
    for file in ("batches.meta", "test_batch", *(f"data_batch_{i}" for i in range(1, 6))):
        (folder / file).write_bytes(content)
    assert loaded({"name": "cifar10"}, tmp_path) is None
    assert not Path("executed").exists()


def png(size: int = 32, kind: str = "PNG") -> bytes:
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


def parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def shards(count: int = 6) -> dict[str, list[Any]]:
    return {
        "img": [{"bytes": png(), "path": None}] * count,
        "label": [i % 2 for i in range(count)],
    }


@st.composite
def tables(draw: Any) -> bytes:
    """Of CIFAR's columns, with other names, types or values."""
    columns: dict[str, Any] = shards()
    name = draw(st.sampled_from(["img", "label"]))
    kind = draw(st.sampled_from(["rename", "value", "values", "drop"]))
    if kind == "rename":
        columns[draw(st.text(max_size=5))] = columns.pop(name)
    elif kind == "drop":
        del columns[name]
    elif kind == "value":
        cell = st.one_of(
            SCALARS, st.binary(max_size=60), st.builds(lambda b: {"bytes": b}, damaged(png()))
        )
        columns[name][draw(st.integers(0, 5))] = draw(cell)
    else:
        columns[name] = draw(
            st.lists(st.one_of(st.integers(-3, 300), st.none()), min_size=6, max_size=6)
        )
    try:
        return parquet(pa.table(columns))
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        assume(False)
        raise


@given(st.data())
@examples(60)
def test_parquet(tmp_path: Path, data: Any) -> None:
    whole = parquet(pa.table(shards()))
    content = data.draw(st.one_of(st.deferred(lambda: damaged(whole)), tables()))
    (tmp_path / "train-00000-of-00001.parquet").write_bytes(content)
    (tmp_path / "test-00000-of-00001.parquet").write_bytes(parquet(pa.table(shards())))
    loaded({"name": "cifar10"}, tmp_path)


@given(st.sampled_from(["PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM"]), st.data())
@examples(60)
@pytest.mark.filterwarnings("ignore")  # Pillow's, of odd tags
def test_image_files(tmp_path: Path, kind: str, data: Any) -> None:
    content = data.draw(damaged(png(16, kind)))
    for part in ("train", "val"):
        for label in ("a", "b"):
            folder = tmp_path / part / label
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(2):
                (folder / f"{i}.png").write_bytes(png(16))
    (tmp_path / "train" / "a" / "1.png").write_bytes(content)
    loaded({"name": "folder", "path": str(tmp_path)}, tmp_path)


@given(
    st.one_of(
        st.text(max_size=80).map(str.encode),
        st.deferred(
            lambda: damaged(b"filename,label,split\n0.png,a,train\n1.png,b,train\n2.png,a,val\n")
        ),
    ),
    st.sampled_from(["labels.csv", "labels.tsv", "labels.jsonl", "train.csv", "x_annotations.txt"]),
)
@examples(40)
def test_tables_of_labels(tmp_path: Path, content: bytes, name: str) -> None:
    """Protects: whatever a table of labels holds, a data set or one sentence comes of it."""
    root = tmp_path / name
    (root / "images").mkdir(parents=True, exist_ok=True)
    for number in range(4):
        (root / "images" / f"{number}.png").write_bytes(png(16))
    (root / name).write_bytes(content)
    loaded({"name": "folder", "path": str(root)}, tmp_path)


@given(
    norm=st.sampled_from(sorted(NORMS)),
    eps=st.floats(1e-6, 0.9),
    steps=st.integers(1, 3),
    loss=st.sampled_from(["ce", "kl", "cw"]),
    start=st.sampled_from(["uniform", "gaussian", "none"]),
    momentum=st.sampled_from([0.0, 1.0]),
    scale=st.sampled_from([0.0, 1e-30, 1.0, 1e20, float("inf"), float("nan")]),
    level=st.sampled_from([0.0, 1e-30, 0.5, 1.0]),
)  # fmt: skip
@examples(60)
def test_attacks(
    norm: str, eps: float, steps: int, loss: Any, start: Any, momentum: float, scale: float,
    level: float,
) -> None:  # fmt: skip
    """Protects: whatever image, radius and logits (vanishing, infinite, NaN) there are, the attacked
    images stay in the ball and in [0, 1]."""
    model: Any = tiny_net()
    images = torch.full((3, 3, 8, 8), level)
    images[:, :, ::2] = 0.25

    scaled: Any = lambda z: model(z) * scale  # noqa: E731

    threat = ThreatModel.model_validate({"norm": norm, "eps": eps, "steps": steps})
    with crafting(model):
        x_adv = pgd(scaled, images, torch.tensor([0, 1, 2]), threat, loss=loss, start=start,
                    momentum=momentum, generator=torch.Generator().manual_seed(0))  # fmt: skip
    assert x_adv.isfinite().all()
    assert 0 <= float(x_adv.min()) <= float(x_adv.max()) <= 1
    assert float(NORMS[norm].length(x_adv - images).max()) <= eps * 1.0001 + 1e-6
