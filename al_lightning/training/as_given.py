"""The module as it was given: attributes, buffers and flags that no ``state_dict`` holds.

A counter, the state of a metric, a frozen layer or a layer that a fit puts in the place of another
would go on into the next cycle, and would be lost when the run is resumed. Each cycle begins with
the module as it was given, so both are the same run.
"""

import copy
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import move_data_to_device, rank_zero_warn
from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, Dataset

OF_TORCH = frozenset(vars(nn.Module()))
"""Attributes of every module: layers, weights, buffers and hooks in dictionaries, and a flag."""

LEFT = frozenset(
    {"_trainer", "_fabric", "_fabric_optimizers", "_device", "_dtype", "_device_mesh"}
    | {"_compiler_ctx"}
)
"""Attributes that say where a module is at present, which Lightning keeps."""

DATA = (Dataset, DataLoader)
"""Kinds of attributes that are large and do not change."""

PLAIN = (type(None), bool, int, float, complex, str, bytes)
CONTAINERS = (list, tuple, set)


class AsGiven:
    """Remembers a module; :meth:`restore` makes it so again, with the same layers and weights.

    The values in its ``state_dict`` are not remembered; those of other weights that train are.

    Args:
        model: Not changed. Its layers, weights and data sets are not copied.

    Warns:
        UserWarning: for attributes that cannot be copied, such as a lock; they go on as they are.
    """

    def __init__(self, model: L.LightningModule) -> None:
        self._model = model
        modules = [one for one in model.modules() if _is_ordinary(one)]
        states = [_of(one) for one in modules]
        values = [value for state in states for value in state.values()]
        held = [held for one in modules for held in _dictionaries(one).values()]
        fixed: list[Any] = [*model.modules(), *model.parameters()]
        fixed += [value for value in values if isinstance(value, DATA)]
        # Handles of hooks refer to these dictionaries, which are changed in place.
        fixed += [*held, *(one for each in held for one in each.values() if not _is_buffer(one))]
        self._memo: dict[int, Any] = {id(one): one for one in fixed}
        try:
            self._states = self._copied(states)
        except Exception:  # a class may raise anything when it is copied
            self._share_what_fails(modules)
            self._states = self._copied(states)
        self._kinds = [(one, type(one)) for one in modules]
        self._trains = {name: one.requires_grad for name, one in model.named_parameters()}
        self._hidden = [(one, one.detach().clone()) for one in _outside_state_dict(model)]

    def restore(self) -> None:
        """Give the module its attributes, buffers, layers, hooks and flags of the beginning."""
        states = self._copied(self._states)
        for (module, kind), state in zip(self._kinds, states, strict=True):
            module.__class__ = kind  # a lazy layer becomes another kind
            now = vars(module)
            for name, held in _dictionaries(module).items():
                held.clear()
                held.update(state.get(name) or {})
                state[name] = held
            state |= {name: value for name, value in now.items() if name in LEFT}
            now.clear()
            now.update(state)
        self._set_flags({})
        for weight in self._model.parameters():
            weight.grad = None
        for weight, value in self._hidden:
            weight.data.copy_(value)

    def changes(self) -> dict[str, Any]:
        """Return the attributes and flags that differ by now, in tensors and plain values.

        Attributes of other kinds are left out: a file that must not run code cannot hold them.
        """
        before = {id(one): state for (one, _), state in zip(self._kinds, self._states, strict=True)}
        found = {}
        for name, module in self._model.named_modules():
            known = before.get(id(module), {})
            changed = {
                key: value
                for key, value in (_of(module) if _is_ordinary(module) else {}).items()
                if key not in OF_TORCH and _is_plain(value)
                if key not in known or not _is_same(value, known[key])
            }
            kept = {key: module._buffers.get(key) for key in module._non_persistent_buffers_set}
            if changed or kept:
                on_device = [key for key, value in changed.items() if _is_on_device(value)]
                found[name] = {"attributes": changed, "buffers": kept, "on_device": on_device}
        flags = {name: one.requires_grad for name, one in self._model.named_parameters()}
        differ = {n: flag for n, flag in flags.items() if flag != self._trains.get(n, True)}
        return {"modules": found, "requires_grad": differ}

    def apply(self, changes: Mapping[str, Any]) -> None:
        """Make the changes that :meth:`changes` found; layers that are not there are left out."""
        modules, device = dict(self._model.named_modules()), self._model.device
        for name in changes["modules"].keys() & modules.keys():
            module, changed = modules[name], changes["modules"][name]
            on_device = {key: changed["attributes"][key] for key in changed["on_device"]}
            moved = move_data_to_device(on_device, device)
            module.__dict__.update({**copy.deepcopy(changed["attributes"]), **moved})
            module._buffers.update(move_data_to_device(copy.deepcopy(changed["buffers"]), device))
        self._set_flags(changes["requires_grad"])

    def _set_flags(self, changed: Mapping[str, bool]) -> None:
        wanted = {**self._trains, **changed}
        for name, weight in self._model.named_parameters():
            weight.requires_grad = wanted.get(name, weight.requires_grad)

    def _share_what_fails(self, modules: list[nn.Module]) -> None:
        failed = []
        for module in modules:
            for name, value in _of(module).items():
                try:
                    copy.deepcopy(value, dict(self._memo))
                except Exception:
                    self._memo[id(value)] = value
                    failed.append(f"{type(module).__name__}.{name}")
        rank_zero_warn(
            "each cycle begins with the module as it was given, but these attributes cannot be "
            f"copied and go on from cycle to cycle: {', '.join(failed)}; give a function that "
            "makes the module, such as model=partial(MyModule, lr=0.1)"
        )

    def _copied(self, states: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return copy.deepcopy(states, dict(self._memo))


def _of(module: nn.Module) -> dict[str, Any]:
    """Return the attributes by name, with copies of the dictionaries that torch keeps."""
    state = {name: value for name, value in vars(module).items() if name not in LEFT}
    return state | {name: copy.copy(held) for name, held in _dictionaries(module).items()}


def _dictionaries(module: nn.Module) -> dict[str, dict[str, Any]]:
    """Return layers, weights, buffers and hooks, which a module keeps in dictionaries."""
    return {name: v for name, v in vars(module).items() if name in OF_TORCH and isinstance(v, dict)}


def _is_buffer(value: Any) -> bool:
    return isinstance(value, Tensor) and not isinstance(value, nn.Parameter)


def _is_ordinary(module: nn.Module) -> bool:
    """Tell whether a module keeps its attributes as any object does."""
    return not isinstance(module, OptimizedModule | torch.jit.ScriptModule)


def _outside_state_dict(model: nn.Module) -> list[nn.Parameter]:
    """Return the weights that train and that a ``state_dict`` of the user's own leaves out."""
    held = [value for value in model.state_dict().values() if isinstance(value, Tensor)]
    inside = {value.data_ptr() for value in held if not is_lazy(value)}
    known = [weight for weight in model.parameters() if not is_lazy(weight)]
    return [one for one in known if one.requires_grad and one.data_ptr() not in inside]


def _is_plain(value: Any) -> bool:
    if type(value) in (dict, OrderedDict):
        return all(_is_plain(key) and _is_plain(one) for key, one in value.items())
    if type(value) in CONTAINERS:
        return all(map(_is_plain, value))
    return type(value) in (*PLAIN, Tensor)


def _is_on_device(value: Any) -> bool:
    return any(one.device.type != "cpu" for one in tree_leaves(value) if isinstance(one, Tensor))


def _is_same(value: Any, other: Any) -> bool:
    """Compare plain values, and tensors on whatever device they are."""
    if type(value) is not type(other):
        return False
    if isinstance(value, Tensor):
        same_form = (value.shape, value.dtype) == (other.shape, other.dtype)
        return same_form and torch.equal(value.cpu(), other.cpu())
    if isinstance(value, dict):
        return list(value) == list(other) and all(_is_same(v, other[k]) for k, v in value.items())
    if isinstance(value, list | tuple):
        return len(value) == len(other) and all(map(_is_same, value, other))
    return bool(value == other)
