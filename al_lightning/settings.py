"""The options of a run: each option of the loop is defined here and nowhere else."""

import difflib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

FUNCTION = "a function"
"""The word in a journal for an oracle that is a function."""

PEOPLE = ("files", "page")
"""Oracles that are people: in files, or on a page that the program itself serves."""

Labeler = Literal["dataset", "files", "page"] | Callable[..., Any]

TaskName = Literal["multiclass", "binary", "multilabel", "dense", "regression"]
TASK_NAMES: tuple[str, ...] = get_args(TaskName)

Target = tuple[str, float] | tuple[str, float, Literal["min", "max"]]

MAX_GROWTH = 40.0
"""Logarithm of the largest factor of growth; no pool has as many rows."""

FREE = {"free": True}
LATER = {"later": True}
OF_STRATEGY = {"of_strategy": True}
"""Marks of fields, see :class:`Settings`."""


def check_at_least(least: int, **values: int | None) -> None:
    """Raise ValueError for a value below ``least``; None is no value."""
    for name, value in values.items():
        if value is not None and value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")


def is_number(value: Any) -> bool:
    """Tell whether a value is a number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def hint(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return a question that names the known name nearest to ``name``; empty when none is near.

    >>> hint("margn", ["entropy", "margin"])
    "did you mean 'margin'? "
    """
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f"did you mean {near[0]!r}? " if near else ""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Holds the options of a run and checks them.

    An option that is added here becomes an argument of the loop and of the command line. The
    journal holds it. It must be the same on resume, unless its field is marked: ``free`` may be
    another at any time, and another one of ``later`` is written in the journal and holds from then
    on. It must be the same in all runs of a comparison, unless its field is marked ``of_strategy``:
    then each strategy may have its own.

    Args:
        strategy: A name in ``STRATEGIES``, a ``Strategy``, or a function
            ``select(pool, num, generator) -> positions``.
        acquisition_size: Rows to ask for in a cycle; a smaller rest of the pool is asked whole. Or
            a list, for each cycle in turn; its last number holds for all that follow.
        acquisition_growth: Each query is larger than the one before by this factor.
        max_per_group: A query holds at most so many rows of one group, such as a patient or a
            video; the data module's ``group_key`` says which row is whose.
        min_distance: Rows of a query are at least so far apart, by the Euclidean distance of their
            embeddings. Of near-copies the one that is wanted most is asked for.
        num_cycles: Number of fits; after the last one nothing is asked.
        seed: Each cycle's randomness derives from it; ``data.seed`` when not given.
        warm_start: Keep the weights from cycle to cycle.
        ckpt_path: The weights of a fit to test, to ask and, when warm, to go on with: ``"last"``,
            or ``"best"`` for those of the Trainer's ``ModelCheckpoint(monitor=...)``.
        candidate_size: Score a random subset of that size instead of the whole pool.
        task: What the model predicts, and what a label is. ``"multiclass"``: one of C classes.
            ``"binary"``: no or yes, of one logit. ``"multilabel"``: several yes/no labels a row.
            ``"dense"``: a class for each pixel or token. ``"regression"``: numbers. See
            :mod:`~al_lightning.prediction.tasks`.
        strategy_args: The strategy's own arguments, by name: ``{"beta": 4.0}`` for ``power_bald``.
        mc_samples: Predict the pool with that many samples of MC dropout, for any model with
            dropout layers; see :class:`~al_lightning.prediction.mc_dropout.MCDropout`.
        embedding_layer: Name of a layer of the model. The input of that layer is the embedding; for
            a model whose ``predict_step`` returns none.
        target: A metric's name and value, ``("test_acc", 0.99)``; the run ends once the metric
            reaches it from below. ``("test_loss", 0.1, "min")`` is reached from above.
        stop_when: Rules of which any ends the run: names, ``{name: arguments}``, or functions of
            the results so far. ``["stable", {"max_labels": 3000}, {"no_gain": "val_acc"}]``. See
            :mod:`~al_lightning.run.stop_rules`.
        labels_in_doubt: After each fit, list the labels that the model finds least likely in
            ``labels_in_doubt.csv``; the labeling page shows them behind the query.
        oracle: The source of labels. ``"dataset"`` reveals the data set's own labels. With
            ``"page"`` the program serves a page on which people label, and trains between their
            queries. With ``"files"`` people fill in files of the run folder or label on a page that
            another program serves, and the run stops until they have. Or a function, see
            :data:`~al_lightning.label.oracle.Oracle`.
        add_class: When a run is resumed, the name of a further class, which comes last. Rows may
            then get it as a label. The module that is given must predict one class more; each fit
            begins with its weights from then on.
        accept_unasked: Accept answers of files and functions to rows that were not asked.

    Raises:
        ValueError: for a size below 1, fewer candidates than rows to ask for, an unknown task, a
            target or arguments of a strategy that cannot be kept.
    """

    strategy: Any = field(default="least_confidence", metadata=LATER | OF_STRATEGY)
    acquisition_size: int | list[int] = field(default=500, metadata=LATER)
    acquisition_growth: float = field(default=1.0, metadata=LATER)
    max_per_group: int | None = field(default=None, metadata=LATER | OF_STRATEGY)
    min_distance: float | None = field(default=None, metadata=LATER | OF_STRATEGY)
    num_cycles: int = field(default=5, metadata=LATER)
    task: TaskName = "multiclass"
    seed: int | None = None
    warm_start: bool = field(default=False, metadata=OF_STRATEGY)
    ckpt_path: Literal["last", "best"] = "last"
    candidate_size: int | None = field(default=None, metadata=LATER | OF_STRATEGY)
    strategy_args: dict[str, Any] | None = field(default=None, metadata=LATER | OF_STRATEGY)
    mc_samples: int | None = field(default=None, metadata=LATER | OF_STRATEGY)
    embedding_layer: str | None = field(default=None, metadata=LATER | OF_STRATEGY)
    target: Target | None = field(default=None, metadata=LATER)
    stop_when: Any = field(default=None, metadata=LATER)
    labels_in_doubt: bool = field(default=False, metadata=LATER)
    add_class: str | None = field(default=None, metadata=LATER)
    oracle: Labeler = field(default="dataset", metadata=FREE)
    accept_unasked: bool = field(default=False, metadata=FREE)

    def __post_init__(self) -> None:
        if self.task not in TASK_NAMES:
            raise ValueError(
                f"task must be one of {[*TASK_NAMES]}, got {self.task!r}; "
                f"{hint(str(self.task), TASK_NAMES)}detection, ranking and others take part by a "
                "score of their own, {'score': (B,)}, under any task"
            )
        if self.labels_in_doubt and self.task not in ("multiclass", "binary"):
            raise ValueError(
                f"labels_in_doubt needs one class a row, got task={self.task!r}; leave it out"
            )
        if self.ckpt_path not in ("last", "best"):
            raise ValueError(f'ckpt_path must be "last" or "best", got {self.ckpt_path!r}')
        check_at_least(1, num_cycles=self.num_cycles, candidate_size=self.candidate_size)
        self._check_sizes()
        self._check_kept()

    def _check_sizes(self) -> None:
        sizes = self.acquisition_size
        for size in sizes if isinstance(sizes, list) else [sizes]:
            check_at_least(1, acquisition_size=size)
        if sizes == []:
            raise ValueError("acquisition_size must list one number or more, got []")
        if not 1 <= self.acquisition_growth < float("inf"):
            raise ValueError(
                f"acquisition_growth must be at least 1, got {self.acquisition_growth}; 1.5 asks "
                "for half as many more in each cycle, and a list in acquisition_size for fewer"
            )
        if isinstance(sizes, list) and self.acquisition_growth != 1:
            raise ValueError(
                f"give either a list of sizes or acquisition_growth, got {sizes} and "
                f"{self.acquisition_growth}"
            )
        largest = max(sizes) if isinstance(sizes, list) else self.size_of_query(self.num_cycles - 1)
        if self.candidate_size is not None and self.candidate_size < largest:
            raise ValueError(
                f"candidate_size must be at least acquisition_size={largest}, got "
                f"{self.candidate_size}"
            )

    def size_of_query(self, cycle: int) -> int:
        """Return the number of rows to ask for in a cycle, counted from 1.

        >>> Settings(acquisition_size=100, acquisition_growth=1.5).size_of_query(3)
        225
        """
        sizes = self.acquisition_size
        if isinstance(sizes, list):
            return sizes[min(cycle, len(sizes)) - 1]
        most = (
            MAX_GROWTH / math.log(self.acquisition_growth) if self.acquisition_growth > 1 else cycle
        )
        return round(sizes * self.acquisition_growth ** min(max(cycle, 1) - 1, most))

    def _check_kept(self) -> None:
        try:
            json.dumps(self.strategy_args)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"strategy_args must be plain values, which a journal can keep ({error}), got "
                f"{self.strategy_args}; bind other values to the function: "
                "strategy=Strategy(partial(select, ...), ...)"
            ) from error
        target = self.target
        if target is not None and not (
            len(target) in (2, 3)
            and isinstance(target[0], str)
            and isinstance(target[1], float | int)
            and target[2:] in ((), ("min",), ("max",), [], ["min"], ["max"])
        ):
            raise ValueError(
                'target must be a metric\'s name, a value and, if it is to fall, "min", such as '
                f'("test_loss", 0.1, "min"), got {target!r}'
            )

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Settings":
        """Return the settings with these options; raise TypeError for an unknown name."""
        known = cls.__dataclass_fields__
        for name in given.keys() - known.keys():
            raise TypeError(
                f"unexpected keyword argument {name!r}; {hint(name, known)}options are {[*known]}"
            )
        return cls(**given)

    @classmethod
    def names(cls, kind: str) -> tuple[str, ...]:
        """Return the names of the options that are ``"free"``, ``"later"`` or ``"of_strategy"``.

        >>> Settings.names("free")
        ('oracle', 'accept_unasked')
        """
        return tuple(option.name for option in fields(cls) if kind in option.metadata)

    def plain(self, *, free: bool) -> dict[str, Any]:
        """Return the options that are free, or those that are not, as a journal holds them.

        A function that labels or stops becomes :data:`FUNCTION`; the strategy stays as it is.
        """
        options = {
            option.name: getattr(self, option.name)
            for option in fields(self)
            if ("free" in option.metadata) == free
        }
        for name in {"oracle", "stop_when"} & options.keys():
            options[name] = _without_functions(options[name])
        return options


def _without_functions(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_without_functions(one) for one in value]
    return FUNCTION if callable(value) else value


class WithOptions:
    """Shows the options in ``settings`` as attributes: ``loop.num_cycles``."""

    settings: Settings

    def __getattr__(self, name: str) -> Any:
        if name not in Settings.__dataclass_fields__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.settings, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in Settings.names("free"):
            name, value = "settings", replace(self.settings, **{name: value})
        elif name in Settings.__dataclass_fields__:
            raise AttributeError(f"an option must not change, got another {name}; make a new loop")
        super().__setattr__(name, value)
