"""The columns of several strategies side by side, for a strategy that is made of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from al_lightning.strategies.strategy import Column, Select, Strategy


@dataclass(frozen=True)
class Joined:
    """Holds strategies whose columns are kept side by side, each only once.

    Args:
        parts: The strategies.
        names: Of each part, the common name of a column by the part's own.
    """

    parts: tuple[Strategy, ...]
    names: tuple[dict[str, str], ...]

    @classmethod
    def of(cls, parts: Sequence[Strategy]) -> "Joined":
        """Find names under which the columns of all parts are kept."""
        keep: dict[str, Column] = {}
        names = []
        for part in parts:
            own = {}
            for name, column in part.keep.items():
                known = (one for one, other in keep.items() if other is column or other == column)
                free = (f"{name}_{n}" if n else name for n in range(len(keep) + 1))
                own[name] = next(known, None) or next(one for one in free if one not in keep)
                keep[own[name]] = column
            names.append(own)
        return cls(tuple(parts), tuple(names))

    def strategy(self, select: Select, **more: Any) -> Strategy:
        """Return the strategy that keeps all columns and chooses by ``select``."""
        pairs = list(zip(self.parts, self.names, strict=True))

        def named(kind: str) -> tuple[str, ...]:
            found = (names[one] for part, names in pairs for one in getattr(part, kind))
            return tuple(dict.fromkeys(found))

        return Strategy(
            select,
            {names[one]: column for part, names in pairs for one, column in part.keep.items()},
            labeled=named("labeled"),
            validation=named("validation"),
            labels=any(part.labels for part in self.parts),
            min_samples=max(part.min_samples for part in self.parts),
            may_give_fewer=any(part.may_give_fewer for part in self.parts),
            **more,
        )
