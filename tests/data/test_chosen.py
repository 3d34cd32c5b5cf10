"""Test images chosen by a list."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmark.config.suite import load_suite
from benchmark.core.errors import DataError
from benchmark.data.source import DatasetConfig
from benchmark.data.sources import load

from .conftest import write_folders


def config(**options: object) -> DatasetConfig:
    return DatasetConfig.model_validate({"name": "imagenet", "size": 72, "val_size": 2, **options})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_folders(tmp_path / "imagenet", {"train": 5, "val": 4}, ["a", "b"], size=80)
    return tmp_path


def test_the_images_of_a_list_in_its_order(root: Path) -> None:
    (root / "mine.txt").write_text("b/3.png\na/0.png\n\nb/1.png\n")
    chosen = load(config(test_list="mine.txt"), root)
    assert list(chosen.test.files) == ["b/3.png", "a/0.png", "b/1.png"]  # type: ignore[union-attr]
    assert chosen.test.labels.tolist() == [1, 0, 1]
    whole = load(config(), root)
    assert len(whole.test) == 8
    assert list(chosen.train.files) == list(whole.train.files)  # type: ignore[union-attr]
    assert chosen.fingerprint != whole.fingerprint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a/0.png\nc/9.png\n", r"1 of its 2 images are not in val \(c/9.png\)"),
        ("a/0.png\na/0.png\n", "names a/0.png twice"),
        ("\n", "names no image"),
        (None, "cannot read mine.txt: No such file"),
    ],
)
def test_lists_that_cannot_be(root: Path, text: str | None, message: str) -> None:
    if text is not None:
        (root / "mine.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        load(config(test_list="mine.txt"), root)


def test_other_data_sets_have_no_files_to_name() -> None:
    with pytest.raises(ValueError, match="test_list is only for folder and imagenet"):
        DatasetConfig.model_validate({"name": "cifar10", "test_list": "mine.txt"})


def test_the_list_of_robustbench(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found in the installed package, which is not imported."""
    monkeypatch.delitem(sys.modules, "robustbench", raising=False)
    package = root / "site" / "robustbench"
    (package / "helper_files").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('never imported')")
    (package / "helper_files" / "imagenet_test_image_ids.txt").write_text("a/2.png\nb/0.png")
    monkeypatch.syspath_prepend(str(root / "site"))
    chosen = load(config(test_list="robustbench"), root)
    assert list(chosen.test.files) == ["a/2.png", "b/0.png"]  # type: ignore[union-attr]


def test_the_list_is_no_part_of_training() -> None:
    """Networks trained for one list can be evaluated on another."""
    with_list = load_suite("imagenet-resnet50").cells()[0].config
    assert with_list.dataset.test_list == "robustbench"
    aside = with_list.dataset.model_copy(update={"test_list": None})
    assert with_list.model_copy(update={"dataset": aside}).hash == with_list.hash
