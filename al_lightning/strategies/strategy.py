"""A query strategy: the columns that it keeps of the model's outputs, and how it chooses.

Shape suffixes: N candidates, M labeled rows, K posterior samples, C classes, D embedding
dimensions.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Generator, Tensor


class PoolOutputs:
    """Holds columns of the candidate rows, in ascending order of data-set index.

    Each column that the strategy keeps is an attribute: ``pool.probs``, ``pool.scores``,
    ``pool.embeddings``. Columns of the labeled rows are called ``labeled_...``, those of
    the validation rows ``validation_...``. All are on the device that predicted.

    Args:
        indices: Data-set indices (N,), int64.
        cycle: Number of the cycle that asks, from 1.
        columns: Tensors (N, ...), or (M, ...) of the labeled rows, by name. ``predicted``, the
            likeliest class (N,), or what the task tells instead, is there when the model predicts.

    Raises:
        AttributeError: for a column that is not kept; says how to keep it.

    >>> pool = PoolOutputs(torch.arange(2), scores=torch.tensor([0.5, 0.25]))
    >>> len(pool), pool.scores
    (2, tensor([0.5000, 0.2500]))
    """

    def __init__(self, indices: Tensor, *, cycle: int = 1, **columns: Tensor) -> None:
        self.indices = indices
        self.cycle = cycle
        self.columns = columns

    def __len__(self) -> int:
        return len(self.indices)

    def __getattr__(self, name: str) -> Tensor:
        columns: dict[str, Tensor] = vars(self).get("columns", {})
        if name in columns:
            return columns[name]
        raise AttributeError(
            f"a strategy finds the columns that it keeps, found no {name!r} among "
            f"{sorted(columns)}; name it in Strategy(select, keep={{...}}), or in labeled=(...)"
        )

    def renamed(self, names: Mapping[str, str]) -> "PoolOutputs":
        """Return the same rows with some of the columns, under other names.

        Args:
            names: The name here of each column by its name there. Columns of labeled and of
                validation rows come with them.
        """
        pairs = {
            (f"{beside}{new}", f"{beside}{old}") for beside in BESIDE for new, old in names.items()
        }
        pairs |= {(name, name) for name in ("predicted", *LABELS)}
        columns = {new: self.columns[old] for new, old in pairs if old in self.columns}
        return PoolOutputs(self.indices, cycle=self.cycle, **columns)

    def of(self, positions: Tensor, taken: Tensor) -> "PoolOutputs":
        """Return some of the rows, as they are for who chooses after others have.

        Args:
            positions: The rows, int64, ascending.
            taken: Positions of rows that are chosen already: they count as labeled, except where
                labels are a column too, since theirs are not known.
        """
        beside = {f"{prefix}{name}" for prefix in BESIDE[1:] for name in self.columns} | {*LABELS}
        is_whole = len(positions) == len(self)  # then nothing is copied
        columns = {
            name: column if is_whole or name in beside else column[positions.to(column.device)]
            for name, column in self.columns.items()
        }
        for name in self.columns if LABELS[0] not in columns else ():
            if (labeled := f"labeled_{name}") in columns and len(taken):
                chosen = self.columns[name][taken.to(self.columns[name].device)]
                columns[labeled] = torch.cat([columns[labeled], chosen])
        return PoolOutputs(self.indices[positions.cpu()], cycle=self.cycle, **columns)


Select = Callable[..., Tensor]
"""``select(pool, num, generator) -> positions``: ``num`` distinct positions in ``pool``, int64.

Keyword-only parameters after these three are the strategy's own arguments.
"""

Score = Callable[..., Tensor] | Literal["score"]
"""``score(probs) -> scores_N``: row-wise, higher = label sooner. One whose parameters are called
``mean``, or ``mean`` and ``variance``, is of predicted numbers. ``"score"`` is the module's own."""

Output = Literal["probs", "flips", "embedding", "mean", "score", "map", "class", "group"]
Column = Callable[..., Tensor] | Output
"""A score, or the name of an output to keep whole."""

OUTPUTS: tuple[str, ...] = get_args(Output)
NUMBERS = ("mean", "variance")
RESERVED = ("indices", "predicted", "columns", "cycle")
BESIDE = ("", "labeled_", "validation_")
LABELS = ("labeled_labels", "validation_labels")


@dataclass(frozen=True)
class Strategy:
    """Says how to choose rows, and which columns of the model's outputs to keep for that.

    Args:
        select: Chooses the positions; see :data:`Select`.
        keep: Columns of the pool by name, made on the device batch by batch. A column is a function
            of the probabilities, such as ``{"scores": margin}``, which keeps 4 bytes a row. Or it
            is ``"probs"``, ``"embedding"``, ``"mean"``, the module's own ``"score"``, ``"flips"``
            for the samples that predict another class (N, K), or ``"map"`` for a small picture of
            the likeliest classes, which keeps these whole. ``"class"`` is the likeliest class, and
            ``"group"`` the group of a row as a whole number, by the data's ``group_key``. With
            nothing to keep of the model, the pool is not read at all.
        labeled: Names of columns that are made of the labeled rows too.
        labels: Give the classes of the labeled rows as column ``labeled_labels``.
        validation: Names of columns that are made of the validation rows too, where there are some
            with labels; ``validation_labels`` is then a column as well.
        min_samples: Posterior samples or ensemble members that a row must have at least.
        name: Its name in a journal; the name of ``select`` when not given.
        stages: Pairs of a number of labels and the strategy that holds from there on, ascending
            from 0; without any this one holds. See :meth:`at`.
        make: Makes the strategy anew of the arguments that a configuration gives; without it, they
            go to ``select``.
        may_give_fewer: Its limits may leave fewer rows than were asked for.
    """

    select: Select
    keep: Mapping[str, Column] = field(default_factory=lambda: {"probs": "probs"}, hash=False)
    labeled: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    min_samples: int = 1
    name: str = ""
    labels: bool = False
    stages: "tuple[tuple[int, Strategy], ...]" = ()
    make: "Callable[..., Strategy] | None" = None
    may_give_fewer: bool = False

    def __post_init__(self) -> None:
        if self.name and not self.name.strip():
            raise ValueError(f"a strategy's name must not be blank, got {self.name!r}")
        wrong = [
            name
            for name, column in dict(self.keep).items()
            if name in RESERVED or not (callable(column) or column in OUTPUTS)
        ]
        others = self.labeled, self.validation
        if wrong or any(isinstance(o, str) or not set(o) <= set(self.keep) for o in others):
            raise ValueError(
                f"keep must map names to functions of probabilities or to one of {OUTPUTS}, and "
                f"labeled and validation be tuples of these names, none of them "
                f"{', '.join(RESERVED)}; got keep={self.keep!r}, labeled={self.labeled!r} and "
                f"validation={self.validation!r}"
            )

    def at(self, num_labeled: int) -> "Strategy":
        """Return the strategy that holds at a number of labels: this one, or that of the stage."""
        begun = [strategy for start, strategy in self.stages if start <= num_labeled]
        return begun[-1] if begun else self

    @property
    def parts(self) -> "list[Strategy]":
        """The strategies that hold in turn; this one where there are no stages."""
        return [strategy for _, strategy in self.stages] or [self]

    @property
    def needs(self) -> frozenset[str]:
        """The outputs of which its columns are made, in all stages.

        Those of scores are ``"distributions"``. Groups are not among them: the data knows them.
        """
        kept = (column for part in (self, *self.parts) for column in part.keep.values())
        return frozenset(name for column in kept for name in needs_of(column)) - {"group"}

    def choose(self, pool: PoolOutputs, num: int, generator: Generator) -> Tensor:
        """Call ``select`` and check that it gives ``min(num, N)`` distinct positions, best first.

        An empty pool gives none. A strategy with limits may give fewer.

        Raises:
            ValueError: when ``select`` returned anything else.
        """
        if not len(pool):
            return torch.empty(0, dtype=torch.int64)
        positions = self.select(pool, num, generator)
        if self.may_give_fewer and isinstance(positions, Tensor):
            num = min(num, len(positions))
        return checked_positions(positions, num, len(pool))


def needs_of(column: Column) -> tuple[str, ...]:
    """Return the outputs that a column is made of, in the order of its parameters.

    >>> needs_of(lambda mean, variance: variance), needs_of("score"), needs_of(torch.softmax)
    (('mean', 'variance'), ('score',), ('distributions',))
    """
    if isinstance(column, str):
        return (column,)
    try:
        names = tuple(inspect.signature(column).parameters)
    except ValueError:  # a function of C says nothing
        names = ()
    return names if names and set(names) <= {*NUMBERS} else ("distributions",)


def checked_positions(positions: Any, num: int, pool_size: int) -> Tensor:
    """Return the positions that a strategy chose, when they are valid.

    Raises:
        ValueError: unless it is ``min(num, pool_size)`` distinct int64 positions in the pool.
    """
    num = min(num, pool_size)
    if not isinstance(positions, Tensor) or positions.dtype != torch.int64:
        found = positions.dtype if isinstance(positions, Tensor) else type(positions).__name__
        raise ValueError(f"a strategy must return an int64 tensor of positions, got {found}")
    in_range = bool(((positions >= 0) & (positions < pool_size)).all())
    num_distinct = len(set(positions.flatten().tolist()))
    if positions.shape != (num,) or not in_range or num_distinct != num:
        raise ValueError(
            f"a strategy must return {num} distinct positions in 0..{pool_size - 1}, got "
            f"{num_distinct} distinct of shape {tuple(positions.shape)}"
            f"{'' if in_range else ', some out of range'}; they are positions in the pool, not "
            "data-set indices"
        )
    return positions
