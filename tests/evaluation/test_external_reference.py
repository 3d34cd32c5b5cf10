"""A network that others trained gives the accuracies they published, by the documented command."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tiny_suites import cli

# ResNet-2B of VNN-COMP 2021, accuracy on 10,000 test images.
PUBLISHED = {"clean": 0.6925, "pgd20_linf@1/255": 0.6224, "pgd20_linf@2/255": 0.5482}


@pytest.fixture
def data_root() -> Path:
    folder = os.environ.get("GENERALIST_BENCH_TEST_DATA")
    if not folder:
        pytest.skip("GENERALIST_BENCH_TEST_DATA does not name a folder with cifar10/ and external/")
    return Path(folder)


def test_resnet2b_reaches_its_published_accuracies(data_root: Path, tmp_path: Path) -> None:
    """Within 3 points on 1,000 images, whose standard error is 1.5 points."""
    checkpoint = data_root / "external" / "resnet2b_linf_2-255.pth"
    model = ["benchmark.models.external:resnet2b", "--checkpoint", checkpoint]
    where = ["--dataset", "cifar10", "--data-root", data_root, "--out", tmp_path / "out"]
    radii = ["--eps", "1/255", "--eps", "2/255"]
    metrics = [word for name in PUBLISHED for word in ("--metric", name)]
    called = cli("evaluate-model", *model, *where, *radii, *metrics, "--json")
    assert called.status == 0, called.err
    (found,) = called.json().values()
    for name, published in PUBLISHED.items():
        assert found[name]["n"] == 1000
        assert found[name]["mean"] == pytest.approx(published, abs=0.03), name
