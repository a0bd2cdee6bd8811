"""``python -m al_lightning.label RUN_DIR`` serves the page; ``--summary`` prints a table.

The help and the summary import neither torch nor Lightning, so they appear at once.
"""

import argparse
import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from al_lightning.label.agreement import agreements
from al_lightning.label.answers import OpenQuery
from al_lightning.label.fold import fold
from al_lightning.label.page import serving
from al_lightning.label.page.trainer import Program, program_of
from al_lightning.run.folder import records_of
from al_lightning.run.journal import Journal, Record

COUNTS = ("labeled", "skipped", "invalid", "corrected", "open")


def main(arguments: Sequence[str] | None = None) -> None:
    """Carry out the command; exit with status 2 and one sentence when there is nothing to label."""
    given, command = _split_at_dashes(sys.argv[1:] if arguments is None else [*arguments])
    parser = argparse.ArgumentParser(
        prog="python -m al_lightning.label",
        description="Serves a page to label a run's queries, on this machine alone, and trains "
        "between them.",
        epilog="Behind -- the program that trains may be named, such as: -- python train.py. "
        "Without it the program is taken that began the run on this machine.",
    )
    parser.add_argument("run_dir", type=Path, help="folder of the run")
    parser.add_argument("--port", type=int, default=8765, help="0 takes any free one")
    parser.add_argument(
        "--once", action="store_true", help="end when the query is closed; train nothing"
    )
    parser.add_argument(
        "--summary", action="store_true", help="print what was answered and by whom, and end"
    )
    asked = parser.parse_args(given)
    try:
        if asked.summary:
            print("\n".join(summary(records_of(asked.run_dir))))
        else:
            _serve(asked.run_dir, asked.port, command, once=asked.once)
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def _split_at_dashes(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Return the arguments before ``--`` and those behind it."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:at], arguments[at + 1 :]


def _serve(run_dir: Path, port: int, command: Sequence[str], *, once: bool) -> None:
    """Serve the page; see :func:`~al_lightning.label.page.serving.serve`."""
    serve = serving().serve
    program = Program(run_dir, command) if command else program_of(run_dir)
    if program is not None and not once:
        print(f"trains with: {shlex.join(program.command)}", flush=True)
    serve(run_dir, port, None if once else program)


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
