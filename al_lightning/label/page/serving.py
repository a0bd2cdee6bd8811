"""Serve the page: in a process of its own, or beside the loop that trains."""

import secrets
import shlex
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import uvicorn

from al_lightning.label.page.desk import Desk
from al_lightning.label.page.server import make_app
from al_lightning.label.page.trainer import Elsewhere, Here, Program, Trainer
from al_lightning.run.folder import JOURNAL, TO_LABEL, query_folder, records_of
from al_lightning.run.lock import lock, unlock
from al_lightning.stopping import stopping

HOST = "127.0.0.1"
PORT = 8765
PAGE_LOCK = "page.lock"
"""File that the one server of a run's page has locked."""
FAREWELL = 3.0
"""Seconds that open tabs have to fetch the end of a run before its server ends."""
GRACE = 2.0
"""Seconds from the closing of a query until the reply has left, at most."""
SETTINGS: dict[str, Any] = {
    "log_level": "warning",  # or it would print addresses, and one of them holds the token
    "access_log": False,
    "lifespan": "off",
    "ws": "none",
    "proxy_headers": False,
    "server_header": False,
    "timeout_graceful_shutdown": 3,
}
"""Of uvicorn."""


class Server(uvicorn.Server):
    """Serves the page of one run, and ends by itself a little after the run."""

    def __init__(self, desk: Desk, port: int, on_finish: Callable[[], None]) -> None:
        self.token = secrets.token_urlsafe()
        self.desk = desk
        self.listening = _listen(port)
        self._over_since: float | None = None
        app = make_app(desk, token=self.token, on_finish=on_finish)
        super().__init__(uvicorn.Config(app, **SETTINGS))

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and print the address: once a signal would end it cleanly, and not before."""
        await super().startup(sockets)
        address = f"http://{HOST}:{self.listening.getsockname()[1]}/?token={self.token}"
        journal = self.desk.run_dir / JOURNAL
        print(f"label at {address} (answers go to {journal})", flush=True)

    async def on_tick(self, counter: int) -> bool:
        """Follow the journal twice a second; return True when the server must end."""
        if counter % 5 == 0:
            with suppress(ValueError):  # of a damaged journal, which each request tells
                self.desk.follow()
        if self.desk.is_over and self._over_since is None:
            self._over_since = time.monotonic()
        must_end = self._over_since is not None and (
            not self.desk.people.are_here or time.monotonic() - self._over_since > FAREWELL
        )
        return must_end or await super().on_tick(counter)


# ---- in a process of its own ---------------------------------------------------------------------


def serve(run_dir: Path, port: int, program: Program | None) -> None:
    """Serve the page of a run until it is over, the query is closed, or a signal arrives.

    Args:
        run_dir: The run's folder.
        port: 0 for any free one.
        program: Trains once a query is closed. Without one the server ends then, unless another
            process has closed the query and trains.

    Raises:
        ValueError: when there is no run, no query waits and nobody trains, the classes are not
            known, another server has the run, or the port is taken.
    """
    records_of(run_dir)
    lock(run_dir, PAGE_LOCK)
    try:
        trainer: Trainer = Elsewhere(run_dir) if program is None else program
        if program is not None and _lacks_files(run_dir) and not program.is_at_work():
            program.begin()  # it was killed before it had written what people see
        desk = Desk(None, run_dir, trainer)
        _check_worth_it(desk, program)
        server = Server(desk, port, lambda: finished())

        def finished() -> None:
            print(f"{desk.closed}", flush=True)
            if program is None:
                server.should_exit = True
            else:
                program.begin()

        again = shlex.join(["python", "-m", "al_lightning.label", str(run_dir)])
        with stopping(lambda: f"{desk.progress}; go on with: {again}"):
            try:
                server.run(sockets=[server.listening])
            finally:
                if program is not None:
                    program.end(at_once=not desk.is_over)
        if desk.is_over:
            print(f"{desk.closed}", flush=True)
    finally:
        unlock(run_dir, PAGE_LOCK)


def _lacks_files(run_dir: Path) -> bool:
    """Tell whether a query waits whose files are not complete."""
    last = records_of(run_dir)[-1]
    folder = query_folder(run_dir, last.get("cycle", 0))
    return last["event"] == "query" and not (folder / TO_LABEL).exists()


def _check_worth_it(desk: Desk, program: Program | None) -> None:
    if desk.query is not None or desk.trainer.is_at_work():
        return
    last = (desk.journal.last or {"event": "nothing"})["event"]
    if desk.is_over:
        raise ValueError(f"no query waits for labels: {desk.closed}")
    if program is None:
        raise ValueError(
            f"no query waits for labels: the run's last event is {last!r}; go on with the run "
            "until it asks; in Python call ask() first"
        )
    program.begin()


# ---- beside the loop -----------------------------------------------------------------------------


@contextmanager
def page_beside(run_dir: Path) -> Iterator[Callable[[], bool]]:
    """Serve the page in a thread of this process; yield a function that waits for labels.

    Args:
        run_dir: The run's folder; it holds a run.

    Yields:
        A function to call while the run waits and its folder is free. It returns True once people
        have closed the query.

    Raises:
        ValueError: when another server has the run.
    """
    lock(run_dir, PAGE_LOCK)
    here = Here()
    try:
        desk = Desk(None, run_dir, here)
        if desk.is_over:
            yield lambda: False
            return
        server = Server(desk, _free(PORT), here.begin)
        thread = threading.Thread(target=server.run, args=([server.listening],), daemon=True)
        thread.start()

        def labels_came() -> bool:
            here.closed.clear()
            here.waits.set()
            was_open = False
            while not here.closed.wait(0.2):  # a short wait, so that Ctrl-C is heard
                was_open = was_open or desk.query is not None
                # Who closes it here tells it once the lock is free; if not, another process did.
                if was_open and desk.query is None and not here.closed.wait(GRACE):
                    break
                if not thread.is_alive():
                    raise RuntimeError("the page's server has ended; see the error above")
            here.waits.clear()
            return True

        try:
            yield labels_came
            thread.join()  # the tabs that are open fetch the end of the run
        finally:
            server.should_exit = True
            thread.join()
    finally:
        unlock(run_dir, PAGE_LOCK)


def _free(port: int) -> int:
    """Return the port, or 0 for any where it is taken; the address that is printed tells it."""
    try:
        socket.create_server((HOST, port)).close()
    except OSError:
        return 0
    return port


def _listen(port: int) -> socket.socket:
    if not 0 <= port < 2**16:
        raise ValueError(f"a port must be 0 to 65535, got {port}")
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        raise ValueError(
            f"port {port} must be free, found: {error}; choose another with --port, or 0 for any"
        ) from error
