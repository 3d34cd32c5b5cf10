"""Synthetic data sets in tmp_path, and the real ones where the environment names them."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

REAL = "GENERALIST_BENCH_TEST_DATA"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests neither read nor fill the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def real_data() -> Path:
    folder = os.environ.get(REAL)
    if not folder:
        pytest.skip(f"{REAL} is not set: no real data")
    return Path(folder)


def random_images(count: int, size: int = 32, seed: int = 0) -> np.ndarray:
    """uint8 [n, s, s, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def encode(image: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


def write_parquet(
    path: Path, images: np.ndarray, labels: object, image: str = "img", label: str = "label"
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [{"bytes": encode(one), "path": None} for one in images]
    pq.write_table(pa.table({image: cells, label: labels}), path)


def write_folders(
    root: Path, parts: dict[str, int], classes: list[str], size: int = 32, kind: str = "PNG"
) -> None:
    """``parts`` gives the number of images per class of each split."""
    for p, (part, count) in enumerate(parts.items()):
        for c, name in enumerate(classes):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i, image in enumerate(random_images(count, size, seed=100 * p + c)):
                (folder / f"{i}.{kind.lower()}").write_bytes(encode(image, kind))
