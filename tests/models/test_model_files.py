"""Networks in files of their own: each kind is the network it was made from, or says what is wrong."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import sys
import zipfile
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from tiny_suites import Called, cli, tiny_data
from torch import Tensor, nn

from benchmark.attacks.autoattack import run_autoattack
from benchmark.core.crafting import crafting
from benchmark.core.errors import CheckpointError, ConfigError
from benchmark.core.hashing import tensors_hash
from benchmark.data.dataset import Split
from benchmark.evaluation.reliability import check
from benchmark.models.loading import load_external

onnx = pytest.importorskip("onnx")
helper = onnx.helper

KINDS = ("script.ts", "trace.torchscript", "frozen.jit", "net.pt2", "net.onnx")


class Net(nn.Module):
    """All that files treat in ways of their own: BatchNorm, dropout and a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 12, 3, padding=1, stride=2)
        self.norm1 = nn.BatchNorm2d(12)
        self.conv2 = nn.Conv2d(12, 24, 3, padding=1, stride=2)
        self.norm2 = nn.BatchNorm2d(24)
        self.drop = nn.Dropout(0.2)
        self.linear = nn.Linear(24 * 16, 10)
        self.mean = torch.full((1, 3, 1, 1), 0.3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm1(self.conv1(x - self.mean)))
        x = torch.relu(self.norm2(self.conv2(x)))
        return self.linear(self.drop(x).flatten(1))


def images(split: Split, n: int) -> tuple[Tensor, Tensor]:
    return split.images[:n].float() / 255, split.labels[:n]


@pytest.fixture(scope="module")
def net() -> Net:
    """Trained on the digits for a moment."""
    data = tiny_data(None)
    assert isinstance(data.train, Split)
    x, y = images(data.train, len(data.train))
    torch.manual_seed(0)
    net = Net()
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    for _ in range(60):
        rows = torch.randint(len(x), (48,))
        optimizer.zero_grad()
        F.cross_entropy(net(x[rows]), y[rows]).backward()
        optimizer.step()
    return net.eval()


def export(net: nn.Module, path: Path, batch: int = 4, *, dynamic: bool = True) -> Path:
    """``net`` as a file of the kind that ``path`` is named as."""
    x = torch.rand(batch, 3, 16, 16, dtype=next(net.parameters()).dtype)
    if path.suffix == ".pt2":
        shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
        torch.export.save(torch.export.export(net, (x,), dynamic_shapes=shapes), path)
    elif path.suffix == ".onnx":
        axes = {"dynamic_axes": {"x": {0: "batch"}}} if dynamic else {}
        torch.onnx.export(
            net, (x,), path, dynamo=False, opset_version=17, input_names=["x"], **axes
        )
    elif path.stem == "trace":
        torch.jit.save(torch.jit.trace(net, x, check_trace=False), path)
    else:
        script = torch.jit.script(net)
        torch.jit.save(torch.jit.freeze(script) if path.stem == "frozen" else script, path)
    return path


@pytest.fixture(scope="module")
def files(net: Net, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    for kind in KINDS:
        export(net, folder / kind)
    return folder


def load(path: Path, classes: int = 10) -> nn.Module:
    return load_external(str(path), None, classes, image_size=16)


def evaluate(spec: object, out: Path) -> Called:
    arguments = ["--dataset", "digits", "--limit", 300, "--n", 40, "--eps", "8/255"]
    arguments += ["--metric", "clean", "--metric", "pgd20_linf", "--out", out, "--json"]
    return cli("evaluate-model", spec, *arguments)


@pytest.fixture(scope="module")
def plain(net: Net, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The evaluation of the network itself, by a factory."""
    folder = tmp_path_factory.mktemp("plain")
    module = SimpleNamespace(factory=lambda: net)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "users_plain_net", module)  # type: ignore[arg-type]
        called = evaluate("users_plain_net:factory", folder)
    assert called.status == 0, called.err
    return folder


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "evaluation.json").read_text())


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_evaluated_as_the_network_it_was_made_from(
    kind: str, files: Path, plain: Path, tmp_path: Path
) -> None:
    """Protects: loading, modes, gradients and batches of each kind, from the command to the record."""
    called = evaluate(files / kind, tmp_path)
    assert called.status == 0, called.err
    (found,) = called.json().values()
    expected, own = record(plain), record(tmp_path)
    outcomes = [pd.read_parquet(folder / "outcomes.parquet") for folder in (plain, tmp_path)]
    assert found["clean"]["correct"] > 20
    assert found["pgd20_linf"]["correct"] < found["clean"]["correct"]
    assert outcomes[0]["clean"].equals(outcomes[1]["clean"])
    assert abs(found["pgd20_linf"]["correct"] - expected["metrics"]["pgd20_linf"]["correct"]) <= 1
    # A function's name holds its source, which a file brings in another form.
    for key in ("images", "findings"):
        assert own["reliability"][key] == expected["reliability"][key]
    assert json.loads((tmp_path / "model.json").read_text())["model"] == kind


@pytest.mark.parametrize("kind", KINDS)
def test_autoattack_finds_as_much_on_a_file(kind: str, net: Net, files: Path) -> None:
    split = tiny_data(300).test
    assert isinstance(split, Split)
    x, y = images(split, 40)
    how: Any = {"norm": "linf", "eps": 8 / 255, "seed": 0, "attacks": ["apgd-ce"], "batch_size": 32}
    expected, model = run_autoattack(net, x, y, **how), load(files / kind)
    found = run_autoattack(model, x, y, **how)
    assert torch.equal(found.clean, expected.clean)
    assert 0 < int(expected.robust.sum()) < int(expected.clean.sum())
    assert abs(int(found.robust.sum()) - int(expected.robust.sum())) <= 1
    assert not found.disputed.any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_keeps_its_outputs_and_state_through_crafting(
    kind: str, net: Net, files: Path
) -> None:
    """Protects: exported programs refuse eval(), frozen TorchScript has no mode at all."""
    model, x = load(files / kind), torch.rand(5, 3, 16, 16, requires_grad=True)
    before = tensors_hash(model.state_dict())
    model.train()
    with crafting(model):
        assert not model.training
        (grad,) = torch.autograd.grad(model(x).logsumexp(1).sum(), x)
    assert model.training
    assert tensors_hash(model.state_dict()) == before
    (expected,) = torch.autograd.grad(net(x).logsumexp(1).sum(), x)
    assert torch.allclose(grad, expected, atol=1e-5)
    assert torch.allclose(model.eval()(x[:1]), net(x[:1]), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_another_graph_with_the_same_weights_is_another_network(
    kind: str, net: Net, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects: the constant is in no state dict, so results of one were kept for the other."""
    monkeypatch.setattr(net, "mean", net.mean + 0.1)
    first, second = load(files / kind), load(export(net, tmp_path / kind))
    assert tensors_hash(first.state_dict()) != tensors_hash(second.state_dict())
    again = load(files / kind)
    assert tensors_hash(first.state_dict()) == tensors_hash(again.state_dict())


@pytest.mark.parametrize("kind", ["trace.ts", "net.pt2"])
@pytest.mark.parametrize(
    ("part", "name"), [("drop", "random"), ("norm1", "batch-dependent"), ("norm1", "state-changes")]
)
def test_a_graph_made_in_train_mode_is_found(
    kind: str, part: str, name: str, net: Net, tmp_path: Path
) -> None:
    """Protects: such a graph has no layers that could be seen to be in train mode."""
    mixed = copy.deepcopy(net)
    mixed.get_submodule(part).train()
    model = load(export(mixed, tmp_path / kind))
    split = tiny_data(None).test
    assert isinstance(split, Split)
    assert name in [finding.name for finding in check(model, *images(split, 64))]


class Misfit(nn.Module):
    """Wrong in one way.

    ``fixed`` takes batches of 4 alone, and the others return what is no tensor of logits.
    """

    def __init__(self, how: str) -> None:
        super().__init__()
        self.linear = nn.Linear(768, 10)
        self.how = how

    def forward(self, x: Tensor) -> Any:
        logits = self.linear(x.reshape(4, 768) if self.how == "fixed" else x.flatten(1))
        if self.how == "tuple":
            return logits, logits.exp()
        return {"features": x, "loss": x.sum()} if self.how == "dict" else logits


MISFITS = {
    "fixed": "float32 images in batches of 1 to 256.* dynamic batch dimension",
    "classes": r"to \[2, 10\], not to \[2, 7\]; is num_classes right",
    "tuple": r"returns (tuple|list) with several tensors \[n, classes\] \(0, 1\)",
    "dict": "returns dict, not a tensor of logits",  # which neither tracing nor ONNX has
}


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        (kind, how)
        for kind in ("trace.ts", "net.pt2", "net.onnx")
        for how in MISFITS
        if how != "dict" or kind == "net.pt2"
    ],
)
def test_files_that_are_no_classifier_are_explained(kind: str, how: str, tmp_path: Path) -> None:
    path = export(Misfit(how).eval(), tmp_path / kind, dynamic=how != "fixed")
    with pytest.raises(ConfigError, match=MISFITS[how]) as error:
        load(path, 7 if how == "classes" else 10)
    assert "\n" not in str(error.value)


def test_a_bound_on_the_batch_is_explained(net: Net, tmp_path: Path) -> None:
    x, path = torch.rand(4, 3, 16, 16), tmp_path / "net.pt2"
    shapes = ({0: torch.export.Dim("batch", max=64)},)
    torch.export.save(torch.export.export(net, (x,), dynamic_shapes=shapes), path)
    with pytest.raises(ConfigError, match=r"\[256, 3, 16, 16\].* dynamic batch dimension"):
        load(path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kept", [0, 1, 300, 0.5, 0.99])
def test_truncated_files(kind: str, kept: float, files: Path, tmp_path: Path) -> None:
    content, path = (files / kind).read_bytes(), tmp_path / kind
    path.write_bytes(content[: int(kept * len(content)) if kept < 1 else int(kept)])
    with pytest.raises(
        CheckpointError, match="is damaged, is no .* file, or was written by a later"
    ):
        load(path)


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_another_kind(kind: str, net: Net, tmp_path: Path) -> None:
    path = tmp_path / kind
    path.write_text("<html>not found</html>")
    with pytest.raises(CheckpointError, match="is damaged, is no") as error:
        load(path)
    assert "\n" not in str(error.value)
    torch.save(net.state_dict(), path)
    with pytest.raises(CheckpointError, match="is damaged, is no"):
        load(path)
    with pytest.raises(CheckpointError, match="is missing"):
        load(tmp_path / "other" / kind)
    with pytest.raises(ConfigError, match="leave --checkpoint out"):
        load_external(str(path), path, 10, image_size=16)
    with pytest.raises(ConfigError, match="model.width is for registered"):
        load_external(str(path), None, 10, image_size=16, settings={"width": 8})


def test_weights_of_a_file_that_are_not_finite(net: Net, tmp_path: Path) -> None:
    for kind in ("script.ts", "net.pt2", "net.onnx"):
        broken = copy.deepcopy(net)
        broken.linear.bias.data[3] = torch.nan
        with pytest.raises(CheckpointError, match="not finite.*linear"):
            load(export(broken, tmp_path / kind))


class Payload:
    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, ("planted",))


def pickled() -> bytes:
    buffer = io.BytesIO()
    torch.save((Payload(),), buffer)
    return buffer.getvalue()


def in_a_record(name: str, content: bytes, path: Path) -> None:
    """Replaces or adds a record of the archive, and makes it the first constant."""
    with zipfile.ZipFile(path) as archive:
        records = {entry: archive.read(entry) for entry in archive.namelist()}
    (config,) = (entry for entry in records if entry.endswith("constants_config.json"))
    constants = json.loads(records[config])
    folder = config.rpartition("data/")[0]
    for meta in constants["config"].values():
        if "constants/" in name:
            meta |= {"path_name": name.rpartition("/")[2].lower(), "use_pickle": True}
    records[config] = json.dumps(constants).encode()
    records[folder + name] = content
    with zipfile.ZipFile(path, "w") as archive:
        for entry, value in records.items():
            archive.writestr(entry, value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("data/sample_inputs/model.pt", pickled),
        ("data/constants/tensor_0", pickled),
        ("data/constants/opaque_obj_0", lambda: pickle.dumps(Payload())),
        ("data/constants/OPAQUE_OBJ_0", lambda: pickle.dumps(Payload())),
    ],
)
def test_objects_in_an_exported_program_are_refused_and_not_made(
    name: str,
    content: Callable[[], bytes],
    files: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Protects: torch.export.load makes any object that it finds, also where tensors should be."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "net.pt2"
    path.write_bytes((files / "net.pt2").read_bytes())
    in_a_record(name, content(), path)
    with pytest.raises(CheckpointError, match="could run code, so it is not opened"):
        load(path)
    assert not (tmp_path / "planted").exists()


def test_compiled_code_is_refused(files: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    path.write_bytes((files / "net.pt2").read_bytes())
    in_a_record("data/aotinductor/model/x.so", b"", path)
    with pytest.raises(CheckpointError, match="compiled code without gradients"):
        load(path)


def test_a_missing_converter_is_named(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx2torch", None)
    with pytest.raises(ConfigError, match=r"pip install 'generalist-bench\[onnx\]'"):
        load(files / "net.onnx")


@pytest.mark.parametrize(
    ("operator", "opset", "said"), [("Identity", 21, "opset 21"), ("Det", 17, "'Det'")]
)
def test_what_the_converter_does_not_know_is_named(
    operator: str, opset: int, said: str, tmp_path: Path
) -> None:
    def value(name: str) -> Any:
        return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 3, 16, 16])

    nodes = [helper.make_node(operator, ["x"], ["y"])]
    graph = helper.make_graph(nodes, "net", [value("x")], [value("y")])
    opsets = [helper.make_opsetid("", opset)]
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    with pytest.raises(ConfigError, match=said) as error:
        load(path)
    assert "opset_version=17 or lower" in str(error.value)
    assert "\n" not in str(error.value)


def test_layers_with_equal_weights_in_onnx(tmp_path: Path) -> None:
    """Protects: the exporter keeps equal weights once, which the converter does not follow."""
    equal = nn.Sequential(*(nn.Conv2d(3, 3, 3, bias=True) for _ in range(3)), nn.Flatten())
    for layer in equal[:3]:
        nn.init.constant_(layer.bias, 0.5)
    equal.append(nn.Linear(300, 10)).eval()
    path, x = export(equal, tmp_path / "net.onnx"), torch.rand(3, 3, 16, 16)
    assert "Identity" in [node.op_type for node in onnx.load(path).graph.node]
    assert torch.allclose(load(path)(x), equal(x), atol=1e-5)


def zoo(load_model: Callable[..., nn.Module]) -> SimpleNamespace:
    """The part of RobustBench that is used."""

    class Of(Enum):
        CIFAR10 = "cifar10"
        CIFAR100 = "cifar100"

    class Under(Enum):
        LINF = "Linf"
        L2 = "L2"

    networks = {"Carmon2019Unlabeled": {"gdrive_id": "1"}, "Pair": {"gdrive_id": ["2", "3"]}}
    dicts = {Of.CIFAR10: {Under.LINF: networks}, Of.CIFAR100: {Under.L2: networks}}
    return SimpleNamespace(load_model=load_model, model_zoo=SimpleNamespace(model_dicts=dicts))


@pytest.fixture
def robustbench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Puts a zoo of one's own in RobustBench's place."""
    monkeypatch.chdir(tmp_path)

    def put(load_model: Callable[..., nn.Module]) -> None:
        shim = SimpleNamespace(import_robustbench=lambda: zoo(load_model))
        monkeypatch.setitem(sys.modules, "benchmark.models.robustbench", shim)  # type: ignore[arg-type]

    return put


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ((), ("cifar10", "Linf")),
        (("model.dataset=cifar100", "model.threat=L2"), ("cifar100", "L2")),
    ],
)
def test_a_network_of_the_model_zoo_is_evaluated(
    settings: tuple[str, ...],
    where: tuple[str, str],
    net: Net,
    robustbench: Callable[..., None],
    tmp_path: Path,
) -> None:
    """Protects: the zoo's prints in --json, its data set and threat model, and its unpickling."""
    asked = []

    def load_model(name: str, *, model_dir: str, dataset: str, threat_model: str) -> nn.Module:
        print("Downloading")
        torch.save(net.state_dict(), "net.pt")
        asked.append((name, model_dir, dataset, threat_model))
        with pytest.raises(pickle.UnpicklingError):
            torch.load(io.BytesIO(pickled()), weights_only=False)
        return copy.deepcopy(net)

    robustbench(load_model)
    arguments = ["robustbench:Carmon2019Unlabeled", "--dataset", "digits", "--json"]
    arguments += [word for setting in settings for word in ("--set", setting)]
    called = cli("evaluate-model", *arguments, "--limit", 60, "--metric", "clean")
    (found,) = called.json().values()
    assert found["clean"]["mean"] > 0.5
    assert asked == [("Carmon2019Unlabeled", "models", *where)]
    (out,) = (tmp_path / "runs" / "evaluate").iterdir()
    assert out.name.startswith("robustbench-Carmon2019Unlabeled-")


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("Carmon2019", {}, "did you mean 'Carmon2019Unlabeled'"),
        ("Pair", {"threat": "L2"}, "no zoo for cifar10 L2; known: cifar10 Linf, cifar100 L2"),
        ("Pair", {"treat": "L2"}, "no model.treat"),
    ],
)
def test_unknown_names_of_the_model_zoo(
    name: str, settings: dict[str, str], said: str, robustbench: Callable[..., None]
) -> None:
    robustbench(lambda *_, **__: nn.Identity())
    with pytest.raises(ConfigError, match=said):
        load_external(f"robustbench:{name}", None, 10, settings=settings)


def test_a_failed_download_says_where_to_put_the_file(
    robustbench: Callable[..., None], tmp_path: Path
) -> None:
    def load_model(*_: Any, **__: Any) -> nn.Module:
        raise ConnectionError("no network\nand more")

    robustbench(load_model)
    for name, file in (("Carmon2019Unlabeled", "Carmon2019Unlabeled.pt"), ("Pair", "Pair_m0.pt")):
        path = Path("models", "cifar10", "Linf", file)
        with pytest.raises(
            CheckpointError, match=f"no network.*put its weights at {path}"
        ) as error:
            load_external(f"robustbench:{name}", None, 10)
        assert "more" not in str(error.value)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        with pytest.raises(CheckpointError, match=f"{path} may be damaged"):
            load_external(f"robustbench:{name}", None, 10)
    with pytest.raises(ConfigError, match="leave --checkpoint out"):
        load_external("robustbench:Pair", tmp_path / "net.pt", 10)
