"""Check sizes, seeds and values; each error names what was found."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise


def check_sizes(num_labeled: Sequence[int]) -> None:
    """Raise ValueError unless they are one or more, positive and strictly ascending."""
    if not num_labeled:
        raise ValueError("sizes must be one or more, got none; a run has one after its first cycle")
    for before, after in pairwise([0, *num_labeled]):
        if not before < after:  # phrased so that NaN fails too
            raise ValueError(
                f"sizes must be positive and strictly ascending, found {after} after {before}; "
                "sort them and keep one accuracy a size"
            )


def check_same_seeds(
    ours: Mapping[int, object], theirs: Mapping[int, object], name: str, other_name: str
) -> None:
    """Raise ValueError unless both have the same keys, one or more."""
    if not ours and not theirs:
        raise ValueError("a paired test needs one seed or more, got none; collect the runs first")
    if ours.keys() != theirs.keys():
        raise ValueError(
            f"seeds must be the same to pair runs, {name} lacks "
            f"{sorted(theirs.keys() - ours.keys())} and {other_name} lacks "
            f"{sorted(ours.keys() - theirs.keys())}; run these too, or leave them out"
        )


def check_finite(values: Mapping[int, float], what: str, cure: str = "leave it out") -> None:
    """Raise ValueError for a value that is not finite; names its key."""
    for key, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"{what} {key} must be finite, got {value}; {cure}")


def check_share(name: str, value: float) -> None:
    """Raise ValueError unless it lies in (0, 1)."""
    if not 0 < value < 1:  # phrased so that NaN fails too
        raise ValueError(f"{name} must lie between 0 and 1, got {value}; 5 % is 0.05")
