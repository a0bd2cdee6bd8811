"""The start of each fit: the module as it was given, with the weights to begin from.

Layers may be there only when Lightning has called ``setup`` and ``configure_model``, which it does
in each fit, test and prediction. Weights are loaded into the layers that are there before, so the
user's own hooks see them, and into the layers that were made since when the step begins.
"""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.compile import from_compiled
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from torch.nn.parameter import is_lazy

from al_lightning.data.lightning_internals import BetweenBatches
from al_lightning.prediction.ensemble import networks_of
from al_lightning.prediction.wrapping import Wrapping, plain_name
from al_lightning.run.records import listed
from al_lightning.seeds import seeded
from al_lightning.settings import TaskName
from al_lightning.training.as_given import AsGiven
from al_lightning.training.trainers import is_of_pytorch_lightning

Weights = Mapping[str, Any]
"""A ``state_dict``."""
ModelSource = L.LightningModule | Callable[[], L.LightningModule]
"""A module, or a function that makes one: ``partial(MyModule, lr=0.1)``."""


class Start:
    """Holds the module of a run and brings it to where a fit begins, or to where a fit ended.

    Args:
        model: A module, or a function that makes one. The function is called for each fit, under
            the same seed. A module is brought back to how it was given.
        seed: Of the run.
        task: What the model predicts; an ensemble is told.

    Attributes:
        model: The module; another object after each :meth:`renew` when a function makes it.
        weights: Where the next fit begins, for each network that is trained alone.
    """

    def __init__(self, model: ModelSource, seed: int, task: TaskName = "multiclass") -> None:
        self._make = None if isinstance(model, nn.Module) or not callable(model) else model
        self._seed = seed
        self._task: TaskName = task
        self.model = self._told(model) if self._make is None else self._made()
        self._given = [AsGiven(network) for network in self.networks]
        self.weights: list[Weights] = [_there(network) for network in self.networks]
        self._expected: list[_Expected] = []

    @property
    def networks(self) -> list[L.LightningModule]:
        """The networks that are trained: the model, or the members of an ensemble."""
        return networks_of(self.model)

    @property
    def is_late(self) -> bool:
        """Tell whether layers may come with Lightning's hooks, or with the first batch."""
        return any(map(_is_late, self.networks))

    @property
    def whole(self) -> Weights:
        """The weights where the next fit begins, in one ``state_dict``."""
        return {
            f"{prefix}{name}": value
            for prefix, state in zip(self._prefixes, self.weights, strict=True)
            for name, value in state.items()
        }

    def split(self, weights: Weights) -> list[Weights]:
        """Return the ``state_dict`` of each network out of one of the whole model."""
        return [
            {n.removeprefix(prefix): v for n, v in weights.items() if n.startswith(prefix)}
            for prefix in self._prefixes
        ]

    def settle(self) -> None:
        """Take the weights of the module as the start, now that a trial has completed it.

        Raises:
            ValueError: when a lazy layer has no weights yet.
        """
        for network in self.networks:
            lazy = [name for name, weight in network.named_parameters() if is_lazy(weight)]
            if lazy:
                raise ValueError(
                    "a lazy layer gets its weights from a batch, and this strategy predicts none, "
                    f"found {listed(lazy, 3)} without; call the module once on a batch before"
                )
        self.weights = [_there(network) for network in self.networks]

    def renew(self) -> None:
        """Bring the module to the start of a fit."""
        if self._make is None:
            for given in self._given:
                given.restore()
        else:
            self.model = self._made()
            self._given = [AsGiven(network) for network in self.networks]
        self.expect(self.weights)

    def expect(
        self, weights: Sequence[Weights], changes: Sequence[Mapping[str, Any] | None] | None = None
    ) -> None:
        """Load the weights of each network, now and into layers that come with the next step.

        Args:
            weights: A ``state_dict`` for each network.
            changes: For each network what :meth:`AsGiven.changes` found; made at the next step.

        Raises:
            ValueError: when the module is not such as the weights are of.
        """
        self._expected = [
            _Expected(network, given, state, changed)
            for network, given, state, changed in zip(
                self.networks, self._given, weights, changes or [None] * len(weights), strict=True
            )
        ]
        for expected in self._expected:
            expected.load()

    def fitted(self, *, warm: bool) -> None:
        """Keep the weights of this moment, also where a later ``setup`` makes layers anew.

        Args:
            warm: The next fit begins with them too.
        """
        states = [network.state_dict() for network in self.networks]
        pairs = zip(self.networks, self._given, states, strict=True)
        self._expected = [_Expected(network, given, state) for network, given, state in pairs]
        if warm:
            self.weights = [_there(network) for network in self.networks]

    def fitted_before(
        self,
        weights: Sequence[Weights],
        changes: Sequence[Mapping[str, Any] | None],
        *,
        warm: bool,
    ) -> None:
        """Go back to a moment of the fit that is over, as a run does that is resumed after it.

        Args:
            weights: A ``state_dict`` for each network.
            changes: As in :meth:`expect`.
            warm: The next fit begins with these weights too.
        """
        for given in self._given:
            given.restore()
        self.expect(weights, changes)
        if warm:
            self.weights = list(weights)

    def given(self, network: L.LightningModule) -> AsGiven:
        """Return what is remembered of one of the networks."""
        return self._given[self.networks.index(network)]

    def leave(self, network: L.LightningModule) -> None:
        """Load nothing into this network at the next step, where Lightning does it."""
        self._expected = [one for one in self._expected if one.network is not network]

    def complete(self, model: L.LightningModule) -> None:
        """Load into the layers that came since; ValueError when the module is another one."""
        networks = networks_of(model)
        for expected in self._expected:
            if expected.network in networks:
                expected.complete()

    @property
    def _prefixes(self) -> list[str]:
        is_alone = self.networks == [self.model]
        return [""] if is_alone else [f"member_{m}." for m in range(len(self.networks))]

    def _made(self) -> L.LightningModule:
        assert self._make is not None
        with seeded(self._seed, "model"):
            return self._told(self._make())

    def _told(self, model: Any) -> L.LightningModule:
        module = checked(model)
        if isinstance(module, Wrapping):
            module.task = self._task
        return module


def checked(model: Any) -> L.LightningModule:
    """Return the module, also of one that ``torch.compile`` wraps.

    Raises:
        TypeError: when it is no LightningModule of this package.
    """
    if isinstance(model, OptimizedModule) and isinstance(model._orig_mod, L.LightningModule):
        return from_compiled(model)
    if isinstance(model, L.LightningModule):
        return model
    other = is_of_pytorch_lightning(model)
    cure = "; it is of the package pytorch_lightning: write `import lightning as L`" * other
    raise TypeError(
        "model must be a lightning.LightningModule, or a function that makes one, got "
        f"{type(model).__name__}{cure}"
    )


class Completing(BetweenBatches):
    """Loads the expected weights into layers that Lightning has made in this step."""

    def __init__(self, start: Start) -> None:
        self._start = start

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start.complete(pl_module)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start.complete(pl_module)

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start.complete(pl_module)


class _Expected:
    """Holds the weights that a network is to have when the next step begins."""

    def __init__(
        self,
        network: L.LightningModule,
        given: AsGiven,
        weights: Weights,
        changes: Mapping[str, Any] | None = None,
    ) -> None:
        self.network = network
        self._given = given
        self._weights = {plain_name(name): value for name, value in weights.items()}
        self._changes = changes
        self._owners = _owners(network)

    def load(self) -> None:
        """Load what the network has by now."""
        if not _is_late(self.network):
            self._load(self._weights)
            self._check()
            return
        own = self._own()
        # A layer of another shape is one that a hook will make anew.
        fits = [
            n
            for n, v in self._weights.items()
            if n in own and _shape(own[n][1]) in (None, _shape(v))
        ]
        self._load(fits)

    def complete(self) -> None:
        """Load into what was made since, then hold the network to its ``strict_loading``."""
        owners = _owners(self.network)
        new = [n for n in self._weights if n not in owners or owners[n] is not self._owners.get(n)]
        self._load(new)
        self._check()
        self._owners = owners
        if self._changes is not None:
            self._given.apply(self._changes)
            self._changes = None

    def _own(self) -> dict[str, tuple[str, Any]]:
        return {
            plain_name(name): (name, value) for name, value in self.network.state_dict().items()
        }

    def _load(self, names: Iterable[str]) -> None:
        own = self._own()
        state = {own[name][0]: self._weights[name] for name in names if name in own}
        if not state:
            return
        try:
            self.network.load_state_dict(state, strict=False)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"model must be as the run began with: {reason}") from error

    def _check(self) -> None:
        own = self._own().keys()
        missing, unknown = sorted(own - self._weights.keys()), sorted(self._weights.keys() - own)
        if self.network.strict_loading and (missing or unknown):
            found = [
                f"{kind} {listed(names)}"
                for kind, names in (("new", missing), ("no", unknown))
                if names
            ]
            raise ValueError(
                f"model must be as the run began with, found {' and '.join(found)} in its "
                "state_dict; give a module like that of the beginning"
            )


def _shape(value: Any) -> torch.Size | None:
    return value.shape if isinstance(value, Tensor) and not is_lazy(value) else None


def _there(network: L.LightningModule) -> Weights:
    """Return copies of the weights that the network has by now."""
    state = network.state_dict()
    return {name: copy.deepcopy(value) for name, value in state.items() if not is_lazy(value)}


def _is_late(network: L.LightningModule) -> bool:
    made_by_hooks = any(is_overridden(hook, network) for hook in ("setup", "configure_model"))
    return made_by_hooks or any(map(is_lazy, network.parameters()))


def _owners(network: nn.Module) -> dict[str, object]:
    """Return by name what a weight belongs to: it is another object when the weight was made anew.

    A buffer belongs to its layer, since a move to another device replaces the buffer.
    """
    owners: dict[str, object] = {}
    for prefix, layer in network.named_modules(remove_duplicate=False):
        names = {name: weight for name, weight in layer._parameters.items()}
        names |= dict.fromkeys(layer._buffers, layer)
        owners |= {
            plain_name(f"{prefix}.{n}" if prefix else n): owner for n, owner in names.items()
        }
    return owners
