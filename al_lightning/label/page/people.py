"""The people at the page: their sessions, names and tabs."""

import secrets
import time

PRESENT = 15.0
"""Seconds after its last request for which a tab counts as open; an open tab asks every five."""


class People:
    """Knows who entered with the token, by which name, and in how many tabs.

    A session begins when somebody opens the address with the token. It lives as long as the
    server. Its key is the value of a cookie, and tells nothing of the token.
    """

    def __init__(self) -> None:
        self._names: dict[str, str | None] = {}
        self._tabs: dict[str, dict[str, float]] = {}

    def enter(self) -> str:
        """Begin a session, and return its key."""
        key = secrets.token_urlsafe()
        self._names[key] = None
        return key

    def is_here(self, key: str) -> bool:
        """Tell whether there is a session of this key."""
        return key in self._names

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
    def num_present(self) -> int:
        """The number of tabs that are open."""
        now = time.monotonic()
        return sum(now - seen <= PRESENT for tabs in self._tabs.values() for seen in tabs.values())
