"""Counts the calls for which a CPU would wait for its accelerator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# What gives a Python value, or a tensor on the CPU.
_READS = {
    getattr(Tensor, name)
    for name in (
        "item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__", "__index__",
        "__array__", "__contains__", "is_nonzero",
    )
} | {torch.equal, torch.allclose, torch.is_nonzero}  # fmt: skip
# What gives as many values as the data say; ``.item()`` is the first of them to torch itself.
_OPERATIONS = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten._unique2.default,
    torch.ops.aten.repeat_interleave.Tensor,
}


class Waits:
    """Inside, ``found`` names each call that reads a tensor out, or whose result has a size that
    depends on the data (indexing by a boolean mask, ``nonzero``)."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self._modes = (_Functions(self.found), _Operations(self.found))

    def __enter__(self) -> Waits:
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *details: Any) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(None, None, None)


class _Functions(TorchFunctionMode):
    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self._found = found

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in _READS:
            self._found.append(func.__name__)
        return func(*args, **(kwargs or {}))


class _Operations(TorchDispatchMode):
    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self._found = found

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        masks = func in (torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default) and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if masks or func in _OPERATIONS:
            self._found.append(f"{func} by a mask" if masks else str(func))
        return func(*args, **(kwargs or {}))
