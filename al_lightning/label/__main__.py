"""``python -m al_lightning.label RUN_DIR`` serves the page; ``--summary`` prints a table.

The help and the summary import neither torch nor Lightning, so they appear at once.
"""

import argparse
import secrets
import shlex
import socket
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from al_lightning.label.agreement import agreements
from al_lightning.label.answers import OpenQuery
from al_lightning.label.fold import fold
from al_lightning.run.folder import JOURNAL, records_of
from al_lightning.run.journal import Journal, Record
from al_lightning.run.lock import lock

HOST = "127.0.0.1"
COUNTS = ("labeled", "skipped", "invalid", "corrected", "open")
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Carry out the command; exit with status 2 and one sentence when there is nothing to label."""
    parser = argparse.ArgumentParser(
        prog="python -m al_lightning.label",
        description="Serves a page to label a run's waiting query, on this machine alone.",
    )
    parser.add_argument("run_dir", type=Path, help="folder of the run")
    parser.add_argument("--port", type=int, default=8765, help="0 takes any free one")
    parser.add_argument(
        "--summary", action="store_true", help="print what was answered and by whom, and end"
    )
    given = parser.parse_args(arguments)
    try:
        if given.summary:
            print("\n".join(summary(records_of(given.run_dir))))
        else:
            serve(given.run_dir, given.port)
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        raise SystemExit(2) from error


# ---- the page ------------------------------------------------------------------------------------


def serve(run_dir: Path, port: int) -> None:
    """Serve the page until the query is closed or a signal arrives.

    Raises:
        ValueError: when there is no run, no query waits, its classes are not known, another
            process has the run, the port is taken, or the server's packages are missing.
    """
    try:
        import uvicorn

        from al_lightning.label.page.desk import Desk
        from al_lightning.label.page.server import make_app
    except ModuleNotFoundError as error:
        raise ValueError(
            f"the page needs starlette and uvicorn, and {error.name} is missing; install them with "
            "pip install 'al_lightning[label]'"
        ) from error
    from al_lightning.stopping import stopping  # imports Lightning

    records_of(run_dir)
    lock(run_dir)
    desk = Desk(OpenQuery(Journal(run_dir / JOURNAL)), run_dir)
    token = secrets.token_urlsafe()
    listening = _listen(port)

    def finished() -> None:
        print(f"{desk.closed}", flush=True)
        server.should_exit = True

    class Server(uvicorn.Server):
        """Prints the address once a signal would end it cleanly, and not before."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            address = f"http://{HOST}:{listening.getsockname()[1]}/?token={token}"
            print(f"label at {address} (answers go to {run_dir / JOURNAL})", flush=True)

    app = make_app(desk, token=token, on_finish=finished)
    server = Server(uvicorn.Config(app, **SETTINGS))
    again = shlex.join(["python", "-m", "al_lightning.label", str(run_dir)])
    with stopping(lambda: f"{desk.progress}; go on with: {again}"):
        server.run(sockets=[listening])


def _listen(port: int) -> socket.socket:
    if not 0 <= port < 2**16:
        raise ValueError(f"a port must be 0 to 65535, got {port}")
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        raise ValueError(
            f"port {port} must be free, found: {error}; choose another with --port, or 0 for any"
        ) from error


# ---- the summary ---------------------------------------------------------------------------------


def summary(records: Sequence[Record]) -> list[str]:
    """Return the lines of a table with a row for each query and their sum, then all agreements."""
    queries = [record for record in records if record["event"] == "query"]
    counts = [_counts(records, query) for query in queries]
    people = [_people(records, query) for query in queries]
    names = [f"{query['cycle']}" for query in queries]
    table = [
        ("cycle", *COUNTS, "by"),
        *map(_cells, names, counts, people),
        _cells("all", sum(counts, Counter()), sum(people, Counter())),
    ]
    agreed = [
        f"{a.first} and {a.second}: {a.num_equal} of {a.num_rows} equal, Cohen's kappa "
        f"{a.kappa:.2f}"
        for a in agreements(records)
    ]
    end = records[-1]
    over = end["event"] == "end"
    why = f", {end['why']}" if over and end.get("why") else ""
    return [
        *map(_line, table),
        *agreed,
        *_times(records),
        *([f"the run is over: {end['reason']}{why}"] if over else []),
    ]


def _times(records: Sequence[Record]) -> Iterator[str]:
    """Yield how long each person took on the page, as far as it was measured."""
    measured: dict[str, list[float]] = {}
    for record in records:
        if record["event"] == "answers" and record.get("seconds") is not None:
            measured.setdefault(record["by"] or "(no name)", []).append(record["seconds"])
    for name, seconds in measured.items():
        num, total = len(seconds), sum(seconds)
        answers = "1 answer" if num == 1 else f"{num} answers"
        yield f"{name} took {total:.1f} s for {answers}, {total / num:.1f} s each"


def _counts(records: Sequence[Record], query: Record) -> Counter[str]:
    """Count the query's rows by outcome; one that waits counts as if it were closed now."""
    closings = (r for r in records if r["event"] == "labels" and r["cycle"] == query["cycle"])
    result = next(closings, None) or OpenQuery(Journal.in_memory([*records])).outcome()
    labeled, skipped, invalid = (result[name] for name in ("indices", "skipped", "invalid"))
    left = set(query["indices"]).difference(labeled, skipped, invalid)
    lengths = map(len, (labeled, skipped, invalid, result["corrected"], left))
    return Counter(dict(zip(COUNTS, lengths, strict=True)))


def _people(records: Sequence[Record], query: Record) -> Counter[str]:
    """Count the rows that each person answered."""
    rows = fold(record for record in records if record.get("cycle") == query["cycle"]).values()
    return Counter(name or "(no name)" for row in rows for name in row.by_labeler)


def _cells(name: str, counts: Counter[str], people: Counter[str]) -> tuple[str, ...]:
    by = ", ".join(f"{person} {num}" for person, num in people.most_common())
    return name, *(f"{counts[kind]}" for kind in COUNTS), by


def _line(cells: tuple[str, ...]) -> str:
    return "".join(f"{cell:<11}" for cell in cells[:-1]) + cells[-1]


if __name__ == "__main__":
    main()
