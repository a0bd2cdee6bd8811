"""A new Trainer for every cycle, from the user's factory; without Lightning's repeated messages.

A Trainer that has fitted once trains 0 epochs the second time, without an error. A callback that
has seen a fit keeps its best score. So both are made anew.
"""

import copy
import inspect
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import BatchSizeFinder, TQDMProgressBar
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.profilers import PassThroughProfiler
from torch import nn
from tqdm import tqdm  # type: ignore[import-untyped]

from al_lightning.acquisition.progress import listening
from al_lightning.data.datamodule import ActiveDataModule
from al_lightning.monitor.notebook import NotebookBar
from al_lightning.training.checkpoints import check_keeps_best
from al_lightning.training.loggers import UserLoggers

TrainerFactory = Callable[..., L.Trainer]
"""Makes a new Trainer at each call: ``partial(L.Trainer, max_epochs=10)``, or a function."""

IDLE_WARNINGS = (
    ".*does not have many workers.*",
    ".*is smaller than the logging interval.*",
    ".*Checkpoint directory .* exists and is not empty.*",  # for a fit that goes on, it must be
    ".*`isinstance.treespec, LeafSpec.` is deprecated.*",  # Lightning 2.6 on torch 2.15
)

NO_VALIDATION_WARNINGS = (
    ".*Total length of `list` across ranks is zero.*",
    ".*You passed in a `val_dataloader` but have no `validation_step`.*",
)

IDLE_MESSAGES = re.compile(
    r"([GTH]PU available|💡|LOCAL_RANK: |`Trainer.*` (stopped|was configured so)|Using .*(bit|AMP)"
    r"|Restor(ing|ed) |Loaded model weights|Loading `train_dataloader`|-+\ndistributed_backend="
    r"|\nDetected KeyboardInterrupt)"
)
"""Beginnings of messages that Lightning logs at every fit, test and prediction."""


class CycleCurves(TensorBoardLogger):
    """Logs the curves of one cycle, without the number of the epoch, which draws a staircase."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        super().log_metrics({k: v for k, v in metrics.items() if k != "epoch"}, step)


def new_trainer(factory: TrainerFactory, **defaults: Any) -> L.Trainer:
    """Make a Trainer by ``factory``, with ``defaults`` for arguments that it leaves open.

    Arguments that the factory sets stay, and arguments that it does not take are not passed.
    Callbacks in a ``partial`` are copied, so each Trainer gets them as they were given.
    """
    fixed = _fixed(factory)
    taken = inspect.signature(factory).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in taken.values())
    arguments = {
        name: value
        for name, value in {"enable_model_summary": False, **defaults}.items()
        if name not in fixed and (takes_any or name in taken)
    }
    if fixed.get("callbacks") is not None:
        arguments["callbacks"] = _copied(fixed["callbacks"])
    return factory(**arguments)


def _fixed(factory: TrainerFactory) -> dict[str, Any]:
    return factory.keywords if isinstance(factory, partial) else {}


def _copied(callbacks: Any) -> Any:
    """Return copies; raise ValueError where a copy would not do what the callback does."""
    memo: dict[int, Any] = {}
    cause: Exception | None = None
    try:
        copies = copy.deepcopy(callbacks, memo)
    except Exception as error:  # a class may raise anything when it is copied
        cause, found = error, f"cannot be ({error})"
    else:
        modules = [one for one in memo.values() if isinstance(one, nn.Module)]
        networks = [one for one in modules if any(True for _ in one.parameters())]
        if not networks:
            return copies
        found = f"would hold a copy of {type(networks[0]).__name__}"
    raise ValueError(
        "each cycle needs new callbacks, and those of a partial are copied, found that "
        f"{callbacks!r} {found}; make them in a function that makes the Trainer: "
        "def trainer(**given): return L.Trainer(callbacks=[...], **given)"
    ) from cause


def cycle_trainer(
    factory: TrainerFactory,
    data: ActiveDataModule,
    folder: Path | None,
    loggers: UserLoggers,
    bar: NotebookBar | None = None,
) -> L.Trainer:
    """Make the Trainer of a cycle, whose curves and checkpoints go into ``folder``.

    Without a folder it writes nothing, unless the user has set a logger or a checkpoint.

    Args:
        factory: The user's.
        data: Served in the cycle.
        folder: Of the cycle.
        loggers: Knows the user's loggers of earlier cycles.
        bar: Shown in the place of Lightning's bars, where the user has not asked for them.
    """
    # With few labels an epoch has fewer batches than the 50 Lightning waits before it logs.
    batches = -(-(data.epoch_size or data.num_labeled) // data.batch_size)
    arguments: dict[str, Any] = {"log_every_n_steps": max(1, min(50, batches // 4))}
    if bar is not None:
        arguments["enable_progress_bar"] = False
    ours: Logger = DummyLogger()  # none at all would fail in a module that logs by itself
    if folder is not None:
        arguments["default_root_dir"] = folder
        ours = CycleCurves(folder.parent, name="", version=folder.name, default_hp_metric=False)
    try:
        keeps = {} if folder is not None else {"enable_checkpointing": False}
        trainer = new_trainer(factory, logger=ours, **keeps, **arguments)
    except MisconfigurationException:  # the user has a ModelCheckpoint
        trainer = new_trainer(factory, logger=ours, **arguments)
    loggers.take(trainer, ours)
    if bar is not None and "enable_progress_bar" not in _fixed(factory):
        trainer.callbacks.append(bar)  # type: ignore[attr-defined]
    return trainer


def trial_trainer(factory: TrainerFactory, run_dir: Path | None) -> L.Trainer:
    """Make a Trainer that writes nothing and has no callbacks or profiler, to try a batch."""
    arguments: dict[str, Any] = {"logger": False, "enable_progress_bar": False}
    # Weights that a lazy layer gets in inference mode could not be trained.
    arguments["inference_mode"] = False
    if run_dir is not None:
        # In the present folder SLURM may have left a checkpoint of something else.
        arguments["default_root_dir"] = run_dir / "trial"
    trainer = new_trainer(factory, **arguments)
    trainer.callbacks = []  # type: ignore[attr-defined]
    trainer.loggers = [DummyLogger()]
    trainer.profiler = PassThroughProfiler()  # type: ignore[attr-defined]
    return trainer


def check_factory(factory: TrainerFactory, ckpt_path: str = "last") -> L.Trainer:
    """Make two Trainers, see that they are new ones, and return one of them.

    Args:
        factory: The user's.
        ckpt_path: With ``"best"`` they must keep the best weights.

    Raises:
        TypeError: when ``factory`` is not a function that returns a Trainer.
        ValueError: when it hands out the same Trainer or the same callback twice, a callback that
            cannot be copied or is of the package pytorch_lightning, or a Trainer that predicts only
            some batches, logs nothing, or does not keep the best weights where they are wanted.
    """
    if not callable(factory):
        raise TypeError(
            "trainer must be a function that makes a new Trainer, such as "
            f"partial(L.Trainer, max_epochs=10), got {type(factory).__name__}"
        )
    made = _made_twice(factory)
    for trainer in made:
        if not isinstance(trainer, L.Trainer):
            raise TypeError(
                f"trainer must make a lightning.Trainer, got {type(trainer).__name__}; import it "
                "from `lightning`, not from `pytorch_lightning`"
            )
    if made[0].barebones:
        raise ValueError(
            "a run needs the Trainer's metrics, found barebones=True, which turns them off; leave "
            "it out"
        )
    others = [*made[0].callbacks, *made[0].loggers]  # type: ignore[attr-defined]
    strange = [type(one).__name__ for one in others if is_of_pytorch_lightning(one)]
    if strange:
        raise TypeError(
            "callbacks and loggers must be of the package lightning, found "
            f"{', '.join(strange)} of pytorch_lightning; import them from `lightning.pytorch`"
        )
    limit = made[0].limit_predict_batches
    if not (isinstance(limit, float) and limit == 1.0):
        raise ValueError(
            f"the whole pool must be predicted, found limit_predict_batches={limit} (fast_dev_run "
            "sets it too); to score a part of the pool use candidate_size"
        )
    first, second = ([trainer, *trainer.callbacks] for trainer in made)  # type: ignore[attr-defined]
    shared = [type(one).__name__ for one in first if any(one is other for other in second)]
    if shared:
        raise ValueError(
            "trainer must make a new Trainer with new callbacks at each call, found "
            f"{', '.join(shared)} handed out twice; make them inside the function"
        )
    if ckpt_path == "best":
        check_keeps_best(made[0])
    return made[0]


def _made_twice(factory: TrainerFactory) -> list[L.Trainer]:
    made = [new_trainer(factory, logger=False)]
    try:
        return [*made, new_trainer(factory, logger=False)]
    except Exception as error:  # a class may raise anything when it is made a second time
        raise ValueError(
            f"trainer is called for each cycle, and the second call failed: {error}; make what can "
            "be made only once, such as a logger, before, and use it in each call"
        ) from error


def without_tuners(trainer: L.Trainer) -> None:
    """Remove callbacks that would look for a batch size once more, in the test and prediction."""
    kept = [one for one in trainer.callbacks if not isinstance(one, BatchSizeFinder)]  # type: ignore[attr-defined]
    trainer.callbacks = kept  # type: ignore[attr-defined]


def is_of_pytorch_lightning(value: Any) -> bool:
    """Tell whether an object is of Lightning's other package, which does not go with this one."""
    return any(kind.__module__.startswith("pytorch_lightning.") for kind in type(value).__mro__)


def _is_news(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or not IDLE_MESSAGES.match(record.getMessage())


@contextmanager
def quiet(*, validates: bool = True) -> Iterator[None]:
    """Hide messages and warnings that Lightning repeats at every fit, test and prediction.

    Nobody can act on them here. All others come through.

    Args:
        validates: False hides the warnings that there is no validation data, too.
    """
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    is_outermost = _is_news not in logger.filters
    logger.addFilter(_is_news)
    try:
        with warnings.catch_warnings():
            for message in (*IDLE_WARNINGS, *(() if validates else NO_VALIDATION_WARNINGS)):
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        if is_outermost:
            logger.removeFilter(_is_news)


@contextmanager
def choosing_bar(trainer: L.Trainer) -> Iterator[None]:
    """Show a progress bar for a choice of over two seconds, where ``trainer`` has bars."""
    shown = trainer.progress_bar_callback is not None and trainer.is_global_zero
    with tqdm(desc="Choosing", delay=2, leave=False, disable=not shown) as bar:

        def show(done: int, total: int) -> None:
            if total != bar.total or done < bar.n:
                bar.total, bar.n = total, 0  # bar.reset() would show it before its two seconds
            bar.update(done - bar.n)

        with listening(show):
            yield


class PassingProgressBar(TQDMProgressBar):
    """Removes Lightning's bar when its fit or test is over, so one line a cycle remains."""

    def init_train_tqdm(self) -> Any:
        """Make the bar of an epoch."""
        return _passing(super().init_train_tqdm())

    def init_test_tqdm(self) -> Any:
        """Make the bar of a test."""
        return _passing(super().init_test_tqdm())

    def init_predict_tqdm(self) -> Any:
        """Make the bar of a prediction."""
        return _passing(super().init_predict_tqdm())


def _passing(bar: Any) -> Any:
    bar.leave = False
    return bar
