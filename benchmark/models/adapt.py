"""Foreign networks as the attacks need them: float32 images in, float32 logits [n, k] out.

Whatever evaluates in torch should evaluate here, so what a network asks for beyond the ordinary is
found out on a few random images when it is loaded, and done for it from then on: see ``adapted``.
A network that asks for nothing stays as it is, and with it the fast paths of the attacks.
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

# Logits of the same images in two memory layouts differ by rounding alone, relative to the largest
# of them; those of networks in half precision by more.
_SAME, _SAME_IN_HALF = 1e-3, 0.1
# Attribute with what was done to a network and its weights when it was loaded; copies keep it.
_NOTES = "loading_notes"

Key = str | int


@dataclass(frozen=True)
class NetworkForm:
    """What a network asks for.

    Attributes:
        dtype: of the images; None for float32.
        copies: it changes its input in place, so it gets a copy.
        contiguous: it does not take images in channels_last layout.
        picks: its output holds the logits beside other things; they are under ``key``, or to be
            looked for at every pass (None).
        reshapes: logits come as [k] for one image, or as [n, k, 1, 1].
        casts: logits are not float32.
        has_modes: it can be switched between training and evaluation.
        encodes: its state holds more than tensors.
        returns_itself: ``train()`` returns the network, as torch's own does.
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
    """``net`` behind an ordinary interface: float32 images [n, c, h, w] in [0, 1] in any layout,
    which stay as they are, to float32 logits [n, num_classes].

    The state holds tensors alone: what else ``net`` keeps in its state becomes bytes (uint8).
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
        """Sets the mode where the network has one."""
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
    """``net`` itself if it asks for nothing special, or an ``Adapted`` one; in eval mode.

    Random images are given to it in batches of several sizes, one image among them, and in both
    memory layouts. What was adapted is told by ``notes_of``.

    Args:
        net: on ``device``.
        spec: its name, for messages.
        shape: of an image: channels, height, width.
        batches: numbers of images; the first is that of an ordinary batch.
        advice: what to do if a batch size does not work.

    Raises:
        ConfigError: it fails on images, gives no logits [n, num_classes], gives several tensors
            that could be meant, or does not take one image by itself.
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
    """What was done to a network and its weights when it was loaded; sentences for the record."""
    return tuple(network.__dict__.get(_NOTES, ()))


def add_notes(network: nn.Module, notes: Sequence[str]) -> None:
    """Add to what ``notes_of`` says."""
    if notes:
        network.__dict__[_NOTES] = tuple(dict.fromkeys([*notes_of(network), *notes]))


def find_logits(out: Any, n: int, num_classes: int) -> tuple[Key | None, Tensor]:
    """Where the logits [n, k] are in a network's output, and they.

    They are the output itself (key None); or what is called ``logits`` in it, as an attribute or a
    key; or the only tensor of fitting shape in a tuple, list, dictionary or object.

    Raises:
        ConfigError: there are none, or several tensors could be meant.
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
    """Switch ``net`` to eval mode, in whatever way it can be."""
    if not hasattr(net, "training"):
        raise ConfigError(
            f"{spec} returns frozen TorchScript, which has no modes; save it as a .ts file and "
            "give that to evaluate-model"
        )
    # An exported program refuses; foreign code may raise any exception.
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
    """The type of images that ``net`` takes, if it is not float32."""
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
                "it takes larger batches alone, but attacks and an evaluation's last batch may "
                "leave one image, so each must be classified by itself"
            )
        raise ConfigError(
            f"{spec} fails on images of shape {list(x.shape)}: {reason(error)}"
            + (f"; {advice}" if advice else "")
        ) from error


def _checked(
    out: Any, x: Tensor, spec: str, num_classes: int, advice: str
) -> tuple[Key | None, Tensor]:
    """Where the logits are, and they, if they are one per class."""
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
    except Exception:  # of the gradient: the reliability checks name that
        return ""
    try:
        found = _pass(model, x.contiguous(memory_format=torch.channels_last))
    except Exception as error:
        return f"fails ({reason(error)})"
    scale = max(1.0, float(expected.abs().max()))
    tolerance = scale * (_SAME_IN_HALF if half else _SAME)
    # A random network differs from itself.
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
            f"the network's logits are {types}; they are cast to float32, and gradients are as "
            "fine as the network's own types"
        )
    return notes


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _encode_state(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    """Make bytes of what is no tensor, such as a module's extra state."""
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
    except Exception:  # of whatever class it is: then its type must do
        return type(value).__qualname__.encode()


def _decode_state(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Extra state is never changed by loading: its present value takes the place of the bytes."""
    assert isinstance(module, Adapted)
    for name, value in module.net.state_dict().items():
        if not isinstance(value, Tensor) and f"{prefix}net.{name}" in state:
            state[f"{prefix}net.{name}"] = value
