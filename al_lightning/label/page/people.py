"""The people at the page: their sessions, names and tabs, and the rows that each sees."""

import math
import secrets
import time
from collections.abc import Collection

PRESENT = 15.0
"""Seconds after its last request for which a tab counts as open; an open tab asks every five."""

PAUSE = 600.0
"""Seconds; who takes longer for a row has gone away, and so many count."""


class People:
    """Knows who entered with the token, by which name, and in how many tabs.

    A session begins when somebody opens the address with the token. It lives as long as the
    server. Its key is the value of a cookie, and tells nothing of the token.
    """

    def __init__(self) -> None:
        self._names: dict[str, str | None] = {}
        self._tabs: dict[str, dict[str, float]] = {}
        self._last_seen = -math.inf

    def enter(self) -> str:
        """Begin a session, and return its key."""
        key = secrets.token_urlsafe()
        self._names[key] = None
        return key

    def is_here(self, key: str) -> bool:
        """Tell whether there is a session of this key, and note that it asked."""
        if key not in self._names:
            return False
        self._last_seen = time.monotonic()
        return True

    def bind(self, key: str, name: str) -> None:
        """Give a session its name; what it sends under another one is refused from now on."""
        self._names[key] = name

    def name(self, key: str) -> str | None:
        """Return the name of a session; None while it has none."""
        return self._names.get(key)

    def check(self, key: str, name: str) -> None:
        """Raise ValueError when a session that has a name sends another one."""
        bound = self._names.get(key)
        if bound is not None and bound != name:
            raise ValueError(
                f"this browser labels as {bound or 'somebody without a name'!r}, found "
                f"{name!r}: the name was changed in another tab; reload the page"
            )

    def num_tabs(self, key: str, name: str, tab: str) -> int:
        """Note that a tab is open; return how many the person has open, in any browser.

        Args:
            key: Of the session.
            name: The person; people without a name are told apart by their sessions.
            tab: A word that each tab makes for itself.
        """
        now = time.monotonic()
        tabs = self._tabs.setdefault(name or key, {})
        if tab:
            tabs[tab] = now
        for known, seen in [*tabs.items()]:
            if now - seen > PRESENT:
                del tabs[known]
        return len(tabs)

    @property
    def are_here(self) -> bool:
        """Tell whether any session has asked for something lately."""
        return time.monotonic() - self._last_seen <= PRESENT


class Views:
    """Knows which rows each person sees now, and since when.

    Two people at work share the rows, so they must have names. Of people without one all see the
    same.
    """

    def __init__(self) -> None:
        self._rows: dict[str, frozenset[int]] = {}
        self._since: dict[str, tuple[frozenset[int], float]] = {}

    def sees(self, by: str, rows: Collection[int]) -> None:
        """Note that a person sees these rows."""
        seen = frozenset(rows)
        self._rows[by] = seen if by else frozenset()
        if seen and self._since.get(by, (None,))[0] != seen:
            self._since[by] = seen, time.monotonic()

    def of_others(self, by: str) -> frozenset[int]:
        """Return the rows that other people see."""
        others = (rows for name, rows in self._rows.items() if name != by)
        return frozenset().union(*others)

    def seconds(self, by: str, rows: Collection[int]) -> float | None:
        """Return for how long a person has seen these rows; None for others than they see."""
        seen, since = self._since.get(by, (frozenset(), 0.0))
        return min(PAUSE, time.monotonic() - since) if seen.issuperset(rows) else None
