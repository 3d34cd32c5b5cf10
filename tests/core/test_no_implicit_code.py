"""Nothing in the source unpickles, evaluates or imports what a user's file says, but where asked to."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
# What may run code if it is called otherwise: the keyword that keeps it from that.
SAFE_WITH = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}
NEVER = {
    "pickle.load", "pickle.loads", "pickle.Unpickler", "pd.read_pickle", "joblib.load", "yaml.load",
    "yaml.unsafe_load", "yaml.full_load", "dill.load", "marshal.loads", "eval", "__import__",
}  # fmt: skip
# What the user names on the command line, a package of ours by name, source that we have written.
MEANT = {
    # once the hash in a record is that of the file
    "benchmark/core/outside.py": {"importlib.import_module", "spec.loader.exec_module"},
    "benchmark/commands/ray_engine.py": {"importlib.import_module"},
    "benchmark/models/robustbench.py": {"importlib.import_module"},
    "benchmark/speed/libraries.py": {"importlib.import_module"},
    "benchmark/models/standalone.py": {"importlib.import_module", "exec"},
    # inside only_tensors, which makes torch.load read tensors alone
    "benchmark/models/formats.py": {"torch.export.load"},
}
WATCHED = {"importlib.import_module", "spec.loader.exec_module", "exec", "torch.export.load"}


def calls(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def problems(source: str, file: str) -> list[str]:
    found = []
    for name, call in calls(ast.parse(source)):
        given = {k.arg: k.value.value for k in call.keywords if isinstance(k.value, ast.Constant)}
        key, value = SAFE_WITH.get(name, ("", None))
        unsafe = bool(key) and given.get(key, ...) is not value
        if unsafe or name in NEVER or (name in WATCHED and name not in MEANT.get(file, set())):
            found.append(f"{file}:{call.lineno}: {name}")
    return found


def test_the_source_reads_data_as_data() -> None:
    files = [path for room in ("benchmark", "baselines", "generalist", "generalist_bench")
             for path in sorted((ROOT / room).rglob("*.py"))]  # fmt: skip
    assert len(files) > 50
    found = [p for path in files for p in problems(path.read_text(), str(path.relative_to(ROOT)))]
    assert found == []


def test_what_it_would_find() -> None:
    """Protects: a guard that is blind."""
    for bad in (
        "torch.load(path)", "torch.load(path, weights_only=False)", "np.load(path)",
        "np.load(path, allow_pickle=True)", "pickle.loads(x)", "yaml.load(x)", "eval(x)",
        "importlib.import_module(x)", "exec(x)",
    ):  # fmt: skip
        assert problems(bad, "benchmark/x.py") != [], bad
    assert problems("torch.load(path, weights_only=True); model.eval()", "benchmark/x.py") == []
