"""Networks of other code, adapted to what the attacks need: float32 images in, float32 logits
[n, k] out.

Every classifier that runs in torch should be usable here. When a network is loaded, ``adapted``
tries it on a few random images to find out what it needs (another type of images, for example), and
wraps it so that it gets that. A network without special needs is not wrapped, so the fast paths of
the attacks still apply to it.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.core.errors import ConfigError
from benchmark.models.formats import reason

# Largest difference, relative to the largest logit, that rounding makes between logits of the same
# images in two memory layouts: in float32, and in half precision.
_SAME, _SAME_IN_HALF = 1e-3, 0.1
# Attribute of a network that lists what was done to it and its weights when it was loaded; copies
# keep it.
_NOTES = "loading_notes"

Key = str | int


@dataclass(frozen=True)
class NetworkForm:
    """What a network needs around it.

    Attributes:
        dtype: the type of the images; None for float32.
        copies: it changes its input in place, so it gets a copy.
        contiguous: it does not work on images in channels_last layout.
        picks: its output holds other things besides the logits, which are under ``key``, or must be
            searched for at every pass (``key`` is None).
        reshapes: its logits have the shape [k] for one image, or [n, k, 1, 1].
        casts: its logits are not float32.
        has_modes: it can be switched between training and evaluation mode.
        encodes: its state holds other things besides tensors.
        returns_itself: its ``train()`` returns the network, as torch's own does.
    """

    dtype: torch.dtype | None = None
    copies: bool = False
    contiguous: bool = False
    picks: bool = False
    key: Key | None = None
    reshapes: bool = False
    casts: bool = False
    has_modes: bool = True
    encodes: bool = False
    returns_itself: bool = True


class Adapted(nn.Module):
    """``net`` behind an ordinary interface: it maps float32 images [n, c, h, w] in [0, 1], in any
    layout, to float32 logits [n, num_classes], and leaves the images unchanged.

    The state dict holds only tensors: anything else in the state of ``net`` becomes bytes (uint8).
    """

    def __init__(self, net: nn.Module, form: NetworkForm, num_classes: int) -> None:
        super().__init__()
        self.net, self.form, self.num_classes = net, form, num_classes
        self._register_state_dict_hook(_encode_state)
        self.register_load_state_dict_pre_hook(_decode_state)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        form = self.form
        if form.copies:
            x = x.clone(memory_format=torch.contiguous_format)
        elif form.contiguous:
            x = x.contiguous()
        out = self.net(x if form.dtype is None else x.to(form.dtype))
        if form.picks:
            key = form.key
            if key is None:
                key, _ = find_logits(out, len(x), self.num_classes)
            out = out if key is None else _entry(out, key)
        if form.reshapes:
            out = out.reshape(x.shape[0], self.num_classes)
        logits: Tensor = out.float()
        return logits

    def train(self, mode: bool = True) -> Adapted:
        """Set the mode, if the network has modes."""
        if self.form.has_modes:
            super().train(mode)
        self.training = mode
        return self


def adapted(
    net: nn.Module,
    spec: str,
    num_classes: int,
    shape: tuple[int, int, int],
    batches: Sequence[int],
    device: torch.device,
    advice: str = "",
) -> nn.Module:
    """``net`` in eval mode: unchanged if it needs nothing special, else wrapped in ``Adapted``.

    It is tried on random images, in batches of several sizes (one image among them) and in both
    memory layouts. ``notes_of`` says what was adapted.

    Args:
        net: the network, on ``device``.
        spec: its name, for messages.
        shape: the shape of an image: channels, height, width.
        batches: the batch sizes to try; the first is that of an ordinary batch.
        advice: what to do if a batch size does not work.

    Raises:
        ConfigError: it fails on images, returns no logits [n, num_classes] or several tensors of
            that shape, or fails on a batch of one image.
    """
    form = _modes(net, spec)
    form = replace(form, encodes=any(not isinstance(v, Tensor) for v in net.state_dict().values()))
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        images = [_images(batch, shape, device) for batch in batches]
        form = replace(form, dtype=_dtype(net, images[0], spec, advice))
        keys = []
        dtypes = []
        for x in images:
            given = x.clone()
            out = _outputs(net, _cast(given, form), spec, num_classes, len(batches), advice)
            if form.dtype is None and (given._version or not torch.equal(given, x)):
                form = replace(form, copies=True)
            key, logits = _checked(out, x, spec, num_classes, advice)
            keys.append(key)
            dtypes.append(logits.dtype)
            if logits.shape != (len(x), num_classes):
                form = replace(form, reshapes=True)
        if any(key is not None for key in keys):
            same = len(set(keys)) == 1
            form = replace(form, picks=True, key=keys[0] if same else None)
        form = replace(form, casts=any(dtype != torch.float32 for dtype in dtypes))
        half = any(dtype in (torch.float16, torch.bfloat16) for dtype in dtypes)
        trouble = _layout_trouble(Adapted(net, form, num_classes), images[-1][:7], half)
        form = replace(form, contiguous=bool(trouble))
    notes = _notes(form, keys, dtypes, trouble)
    if form == NetworkForm():
        return net
    model = Adapted(net, form, num_classes).eval()
    add_notes(model, [*notes_of(net), *notes])
    return model


def notes_of(network: nn.Module) -> tuple[str, ...]:
    """Sentences for the record: what was done to a network and its weights when it was loaded."""
    return tuple(network.__dict__.get(_NOTES, ()))


def add_notes(network: nn.Module, notes: Sequence[str]) -> None:
    """Add to what ``notes_of`` says."""
    if notes:
        network.__dict__[_NOTES] = tuple(dict.fromkeys([*notes_of(network), *notes]))


def find_logits(out: Any, n: int, num_classes: int) -> tuple[Key | None, Tensor]:
    """The place (key) of the logits [n, k] in a network's output, and the logits.

    The logits are the output itself (key None); or its attribute or entry ``logits``; or the only
    tensor of the right shape in a tuple, list, dictionary or object.

    Raises:
        ConfigError: no tensor can be the logits, or several can.
    """
    if isinstance(out, Tensor):
        return None, out
    kind = type(out).__name__
    entries: dict[Key, Any]
    if isinstance(out, Mapping):
        entries = {key: out[key] for key in out if isinstance(key, str | int)}
    elif isinstance(out, tuple | list):
        entries = dict(enumerate(out))
    else:
        entries = dict(getattr(out, "__dict__", {}))
    if "logits" not in entries and isinstance(getattr(out, "logits", None), Tensor):
        entries["logits"] = out.logits
    fitting = {
        key: value
        for key, value in entries.items()
        if isinstance(value, Tensor) and _fits(value, n, num_classes)
    }
    if "logits" in fitting:
        return "logits", fitting["logits"]
    if len(fitting) == 1:
        return next(iter(fitting.items()))
    if not fitting:
        raise ConfigError(f"returns {kind}, not a tensor of logits, and holds none [n, classes]")
    raise ConfigError(
        f"returns {kind} with several tensors [n, classes] ({', '.join(map(str, fitting))}), none "
        "of them called logits, so which one to attack is unclear; return that one alone"
    )


def _fits(value: Tensor, n: int, num_classes: int) -> bool:
    shape = list(value.shape)
    if n == 1 and shape == [num_classes]:
        return True
    return shape[:2] == [n, num_classes] and all(size == 1 for size in shape[2:])


def _entry(out: Any, key: Key) -> Any:
    if isinstance(key, int) or (isinstance(out, Mapping) and key in out):
        return out[key]
    return getattr(out, key)


def _modes(net: nn.Module, spec: str) -> NetworkForm:
    """Switch ``net`` to eval mode, in the way that works for it."""
    if not hasattr(net, "training"):
        raise ConfigError(
            f"{spec} returns frozen TorchScript, which has no modes; save it as a .ts file and "
            "give that to evaluate-model"
        )
    # An exported program has no modes and raises; foreign code may raise any exception.
    try:
        return NetworkForm(returns_itself=net.train(False) is net)
    except Exception:
        for module in net.modules():
            module.training = False
        return NetworkForm(has_modes=False)


def _images(batch: int, shape: tuple[int, int, int], device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(batch)
    return torch.rand(batch, *shape, generator=generator).to(device)


def _cast(x: Tensor, form: NetworkForm) -> Tensor:
    return x if form.dtype is None else x.to(form.dtype)


def _dtype(net: nn.Module, x: Tensor, spec: str, advice: str) -> torch.dtype | None:
    """The type of images that ``net`` needs, if it is not float32."""
    own = {weight.dtype for weight in net.parameters() if weight.is_floating_point()}
    if len(own) != 1 or own == {torch.float32}:
        return None
    try:
        with torch.no_grad():
            net(x.clone())
    except Exception:
        return own.pop()
    return None


def _outputs(
    net: nn.Module, x: Tensor, spec: str, num_classes: int, count: int, advice: str
) -> Any:
    try:
        with torch.no_grad():
            return net(x)
    # Foreign code may raise anything.
    except Exception as error:
        if len(x) == 1 and not advice:
            advice = (
                "it works on larger batches only, but an attack or the last batch of an evaluation "
                "may consist of one image; make it classify a single image too"
            )
        raise ConfigError(
            f"{spec} fails on images of shape {list(x.shape)}: {reason(error)}"
            + (f"; {advice}" if advice else "")
        ) from error


def _checked(
    out: Any, x: Tensor, spec: str, num_classes: int, advice: str
) -> tuple[Key | None, Tensor]:
    """The place of the logits and the logits. Raises ConfigError: not one logit per class."""
    try:
        key, logits = find_logits(out, len(x), num_classes)
    except ConfigError as error:
        raise ConfigError(f"{spec} {error}") from error
    if _fits(logits, len(x), num_classes):
        return key, logits
    if logits.shape[1:] != (num_classes,):
        advice = "is num_classes right?"
    raise ConfigError(
        f"{spec} maps {list(x.shape)} to {list(logits.shape)}, not to {[len(x), num_classes]}"
        + (f"; {advice}" if advice else "")
    )


def _layout_trouble(model: Adapted, x: Tensor, half: bool) -> str:
    """What is wrong with images in channels_last layout, which the loaders give; "" if nothing."""
    try:
        expected, again = _pass(model, x), _pass(model, x)
    except Exception:  # no gradient: the reliability checks report that
        return ""
    try:
        found = _pass(model, x.contiguous(memory_format=torch.channels_last))
    except Exception as error:
        return f"fails ({reason(error)})"
    scale = max(1.0, float(expected.abs().max()))
    tolerance = scale * (_SAME_IN_HALF if half else _SAME)
    # Only if two passes on the same images agree: a network with random layers is not to blame.
    if float((again - expected).abs().max()) <= tolerance / 10 and not (
        float((found - expected).abs().max()) <= tolerance
    ):
        return "gives other logits"
    return ""


def _pass(model: nn.Module, x: Tensor) -> Tensor:
    """Logits of a forward and input-gradient pass."""
    x = x.clone().requires_grad_()
    with torch.enable_grad():
        logits: Tensor = model(x)
        if logits.requires_grad:
            torch.autograd.grad(logits.sum(), x, allow_unused=True)
    return logits.detach()


def _notes(
    form: NetworkForm, keys: Sequence[Key | None], dtypes: Sequence[torch.dtype], trouble: str
) -> list[str]:
    notes = []
    if form.dtype:
        notes.append(f"images are cast to {_short(form.dtype)}, the type of the network's weights")
    if form.copies:
        notes.append("the network changes its images in place, so it is given copies")
    if trouble:
        notes.append(
            f"the network is given contiguous images: in channels_last layout it {trouble}"
        )
    if form.picks:
        named = next(key for key in keys if key is not None)
        notes.append(f"the network's output holds more than logits; they are its entry {named!r}")
    if form.reshapes:
        notes.append("the network's logits are brought into the shape [n, classes]")
    if form.casts:
        types = " and ".join(dict.fromkeys(map(_short, dtypes)))
        notes.append(
            f"the network's logits are {types}; they are cast to float32, but gradients have the "
            "precision of the network's own types"
        )
    return notes


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _encode_state(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    """Turn entries that are no tensors, such as a module's extra state, into bytes."""
    for name, value in state.items():
        if name.startswith(prefix) and not isinstance(value, Tensor):
            state[name] = torch.frombuffer(bytearray(_bytes(value)), dtype=torch.uint8)


def _bytes(value: Any) -> bytes:
    try:
        return json.dumps(value, sort_keys=True).encode()
    except (TypeError, ValueError):
        pass
    try:
        return pickle.dumps(value)
    except Exception:  # an object of any class, which cannot be encoded: its type is used instead
        return type(value).__qualname__.encode()


def _decode_state(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Put the present extra state in place of the bytes, so that loading never changes it."""
    assert isinstance(module, Adapted)
    for name, value in module.net.state_dict().items():
        if not isinstance(value, Tensor) and f"{prefix}net.{name}" in state:
            state[f"{prefix}net.{name}"] = value
