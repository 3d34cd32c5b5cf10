"""Writes one Python file that holds a network's source code and depends only on torch.

The classes and functions that a constructor needs are copied from their modules, definition by
definition, with the imports of torch and of the standard library that they use. The file imports
nothing from the packages that they came from.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import sys
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.core.errors import ConfigError
from benchmark.models.zoo import made_by

# Packages that the file may import.
_THIRD_PARTY = frozenset({"torch", "torchvision"})
_PROVIDED = _THIRD_PARTY | sys.stdlib_module_names
_OWN = __name__.partition(".")[0]
# Names that the file defines itself.
_RESERVED = ("build", "load")
_TOLERANCE = 1e-4  # of logits; memory layouts round differently

_BEGINNING = '''"""{title}

Depends only on {needs}. ``load()`` returns the trained network, which maps images
[n, 3, h, w] with pixels in [0, 1] to logits [n, classes].
"""

{imports}
'''

_ENDING = '''
def build() -> nn.Module:
    """The network without its weights."""
    return {call}


def load(checkpoint: str = "checkpoint.pt") -> nn.Module:
    """The trained network in eval mode, on the CPU; ``checkpoint`` is relative to this file."""
    path = Path(__file__).parent / checkpoint
    network = build()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval()
'''


def standalone_source(model: nn.Module, title: str, images: Tensor) -> str:
    """The text of a Python file with ``build()`` and ``load(checkpoint="checkpoint.pt")``.

    For a network of ``MODELS``, the constructor's arguments are known. Any other class, such as an
    ensemble's, must keep each argument as an attribute of the same name. The text is run once as a
    check: its network must load the weights of ``model`` strictly and give the same logits.

    Args:
        model: in eval mode, on the CPU.
        title: one line, for the file's docstring.
        images: a batch [n, 3, h, w] in [0, 1], on which the logits are compared.

    Raises:
        ConfigError: the network cannot be rebuilt from source.
    """
    collector = _Collector()
    call = collector.expression(model)
    for name in _RESERVED:
        if name in collector.owners:
            raise _cannot(f"{collector.owners[name]} defines {name!r}, which the file needs")
    needs = "torch and torchvision" if "torchvision" in collector.roots else "torch"
    body = "\n\n\n".join(collector.definitions.values())
    head = _BEGINNING.format(title=title, needs=needs, imports=collector.imports())
    source = f"{head}\n\n{body}\n\n{_ENDING.format(call=call)}"
    _check(source, model, images)
    return source


def _cannot(reason: str) -> ConfigError:
    return ConfigError(f"the deployed network cannot be rebuilt from source: {reason}")


@torch.no_grad()
def _check(source: str, model: nn.Module, images: Tensor) -> None:
    """Raise ConfigError unless the network of ``source`` computes what ``model`` does."""
    module = ModuleType("model")
    try:
        exec(compile(source, "model.py", "exec"), module.__dict__)
        rebuilt = module.build()
        rebuilt.load_state_dict(model.state_dict())
        logits = rebuilt.eval()(images)
    # the source is foreign code, which may raise anything
    except Exception as error:
        raise _cannot(f"its source fails on its own ({type(error).__name__}: {error})") from error
    if not torch.allclose(logits, model(images), rtol=_TOLERANCE, atol=_TOLERANCE):
        raise _cannot("rebuilt with the same weights, it gives other logits")


class _Collector:
    """Collects definitions, in an order in which Python can run them, and the imports they use.

    Attributes:
        definitions: source code by (module, first line).
        owners: the module of each defined or imported name.
        roots: the packages that are imported.
    """

    def __init__(self) -> None:
        self.definitions: dict[tuple[str, int], str] = {}
        self.owners: dict[str, str] = {}
        self.roots: set[str] = set()
        self._inlined = {_OWN}
        self._plain: set[str] = set()
        self._from: dict[str, set[str]] = {}
        self._begun: set[tuple[str, int]] = set()
        self._statements: dict[str, dict[str, ast.stmt]] = {}
        # imports that _ENDING uses
        for line in ("import torch", "from torch import nn", "from pathlib import Path"):
            statement = ast.parse(line).body[0]
            assert isinstance(statement, ast.Import | ast.ImportFrom)
            self._import("", statement, statement.names[0])

    def expression(self, value: Any) -> str:
        """Python source for a network, a plain value, or a sequence of these."""
        if isinstance(value, list | tuple | nn.ModuleList):
            items = ", ".join(self.expression(item) for item in value)
            if isinstance(value, tuple):
                return f"({items}{',' if len(value) == 1 else ''})"
            return f"[{items}]"
        if isinstance(value, nn.Module):
            return self._call(made_by(value) or _remembered(value))
        if value is None or isinstance(value, bool | int | float | str):
            return repr(value)
        raise _cannot(f"an argument of its constructor is a {type(value).__name__}")

    def imports(self) -> str:
        """The import statements, those of the standard library first."""
        lines = self._plain | {
            f"from {module} import {', '.join(sorted(names))}"
            for module, names in self._from.items()
        }
        standard = {line for line in lines if line.split()[1].split(".")[0] not in _THIRD_PARTY}
        groups = (standard, lines - standard)
        ordered = ("\n".join(sorted(group, key=_import_order)) for group in groups)
        return "from __future__ import annotations\n\n" + "\n\n".join(ordered)

    def _call(self, call: partial[nn.Module]) -> str:
        function: Any = call.func
        module, name = function.__module__, function.__qualname__
        if module.partition(".")[0] in _PROVIDED:
            self._import_from(module, name)
        else:
            self._inlined.add(module.partition(".")[0])
            self._require(module, name)
        arguments = [self.expression(value) for value in call.args]
        arguments += [f"{name}={self.expression(value)}" for name, value in call.keywords.items()]
        return f"{name}({', '.join(arguments)})"

    def _require(self, module: str, name: str) -> None:
        """Add the definition of ``name`` in ``module``, after everything that it uses."""
        statements = self._read(module)
        statement = statements.get(name)
        if statement is None:
            raise _cannot(f"{name!r} is not defined at the top level of {module}")
        if isinstance(statement, ast.Import | ast.ImportFrom):
            alias = next(alias for alias in statement.names if _bound_by(alias) == name)
            self._import(module, statement, alias)
            return
        self._own(name, module)
        key = module, statement.lineno
        if key in self._begun:
            return
        self._begun.add(key)
        for node in ast.walk(statement):
            if isinstance(node, ast.Import | ast.ImportFrom):
                self._allow_inside(module, node)
            elif isinstance(node, ast.Name) and node.id in statements and node.id != name:
                self._require(module, node.id)
        first = min([statement.lineno, *(d.lineno for d in _decorators(statement))])
        lines = inspect.getsource(sys.modules[module]).splitlines()[
            first - 1 : statement.end_lineno
        ]
        self.definitions[key] = "\n".join(lines)

    def _read(self, module: str) -> dict[str, ast.stmt]:
        """The top-level statements of ``module`` by the names they bind."""
        if module not in self._statements:
            try:
                source = inspect.getsource(importlib.import_module(module))
            except (OSError, TypeError, ImportError) as error:
                raise _cannot(f"the source of {module} cannot be read ({error})") from error
            self._statements[module] = {
                name: statement
                for statement in ast.parse(source).body
                for name in _names(statement)
            }
        return self._statements[module]

    def _import(
        self, module: str, statement: ast.Import | ast.ImportFrom, alias: ast.alias
    ) -> None:
        base = _origin(module, statement, alias)
        root = base.partition(".")[0]
        if root in _PROVIDED and isinstance(statement, ast.ImportFrom):
            self._import_from(base, alias.name, alias.asname)
        elif root in _PROVIDED:
            self._own(_bound_by(alias), base if alias.asname else root)
            self._plain.add(f"import {base}" + (f" as {alias.asname}" if alias.asname else ""))
            self.roots.add(root)
        elif root not in self._inlined:
            raise _cannot(f"{module} needs the package {root}, but the file may need only torch")
        elif isinstance(statement, ast.Import) or alias.asname:
            raise _cannot(
                f"{module} imports {alias.name} as a module or under another name; import what it "
                "needs from there by name"
            )
        else:
            self._require(base, alias.name)

    def _import_from(self, module: str, name: str, renamed: str | None = None) -> None:
        self._own(renamed or name, f"{module}.{name}")
        self._from.setdefault(module, set()).add(f"{name} as {renamed}" if renamed else name)
        self.roots.add(module.partition(".")[0])

    def _allow_inside(self, module: str, statement: ast.Import | ast.ImportFrom) -> None:
        for alias in statement.names:
            root = _origin(module, statement, alias).partition(".")[0]
            if root not in _PROVIDED:
                raise _cannot(f"{module} imports {root} inside a function; import it at the top")
            self.roots.add(root)

    def _own(self, name: str, origin: str) -> None:
        known = self.owners.setdefault(name, origin)
        if known != origin:
            raise _cannot(f"{name!r} means one thing in {known} and another in {origin}")


def _remembered(model: nn.Module) -> partial[nn.Module]:
    """The call of the class of ``model``, with the arguments that ``model`` keeps as attributes."""
    cls = type(model)
    arguments = {}
    for name, parameter in inspect.signature(cls).parameters.items():
        if hasattr(model, name):
            arguments[name] = getattr(model, name)
        elif parameter.default is parameter.empty:
            raise _cannot(
                f"{cls.__module__}.{cls.__qualname__} does not keep the argument {name!r} of its "
                "constructor; keep each as an attribute of the same name"
            )
    return partial(cls, **arguments)


def _names(statement: ast.stmt) -> list[str]:
    """The names that a top-level statement binds."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return [_bound_by(alias) for alias in statement.names]
    if isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    else:
        targets = statement.targets if isinstance(statement, ast.Assign) else []  # type: ignore
    return [
        node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)
    ]


def _decorators(statement: ast.stmt) -> list[ast.expr]:
    return getattr(statement, "decorator_list", [])


def _bound_by(alias: ast.alias) -> str:
    return alias.asname or alias.name.partition(".")[0]


def _origin(module: str, statement: ast.Import | ast.ImportFrom, alias: ast.alias) -> str:
    """The full name of the module in ``import module`` or ``from module import ...``."""
    if isinstance(statement, ast.Import):
        return alias.name
    package = module if hasattr(sys.modules.get(module), "__path__") else module.rpartition(".")[0]
    return importlib.util.resolve_name("." * statement.level + (statement.module or ""), package)


def _import_order(line: str) -> tuple[bool, str]:
    """``import x`` before ``from x import y``."""
    return line.startswith("from"), line
