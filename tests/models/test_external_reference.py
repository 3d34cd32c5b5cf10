"""A network that others trained gives the accuracy they published."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from benchmark.models.loading import load_external


def test_resnet2b_reaches_its_published_clean_accuracy() -> None:
    """69.25 % on 10,000 images; the standard error on 1,000 is 1.5 points."""
    folder = os.environ.get("GENERALIST_BENCH_TEST_DATA")
    if not folder:
        pytest.skip("GENERALIST_BENCH_TEST_DATA does not name a folder with cifar10/ and external/")
    model = load_external("resnet2b", Path(folder) / "external" / "resnet2b_linf_2-255.pth", 10)
    rows = pd.read_parquet(next((Path(folder) / "cifar10").glob("test-*.parquet")))
    images = np.stack([np.asarray(Image.open(io.BytesIO(row["bytes"]))) for row in rows["img"]])
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        right = model(x).argmax(1) == torch.tensor(rows["label"].to_numpy())
    assert right.float().mean().item() == pytest.approx(0.6925, abs=0.03)
