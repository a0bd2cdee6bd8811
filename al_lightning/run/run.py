"""One run: its journal, its folder and its lock, on the first rank; a copy in memory elsewhere.

No other file needs to know whether a run has a folder, or which process writes to it.
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from al_lightning.distributed import is_first_rank
from al_lightning.run.folder import (
    INITIAL_WEIGHTS,
    JOURNAL,
    NAMES,
    check_begun,
    check_vacant,
    checksum,
    query_folder,
    set_aside,
    sync,
    write_whole,
)
from al_lightning.run.growth import num_rows_of
from al_lightning.run.journal import SETTINGS, Journal, Record
from al_lightning.run.lock import lock, unlock
from al_lightning.run.records import CycleResult, Results, result_of, results_of
from al_lightning.run.weights import load_state, save_state
from al_lightning.settings import FUNCTION, Settings

PATIENCE = 1.0
"""Seconds to wait for a page that keeps an answer right now."""


class Run:
    """Holds the decisions of a run, and writes them down where there is a folder.

    Args:
        folder: The run's folder; without one nothing is written.

    Attributes:
        folder: The run's folder, or None.
        journal: The record of decisions.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.journal = Journal()
        self._is_free = False  # others may write to the folder at present
        self._results: list[CycleResult] = []
        self._results_of = (0, 0)  # the records, and their number, that they were made of

    @classmethod
    def new(cls, folder: str | Path | None) -> "Run":
        """Return a run that has yet to begin; raise ValueError when its folder is unusable."""
        run = cls(None if folder is None else Path(folder).absolute())
        if run._writes is not None:
            check_vacant(run._writes)
        return run

    @classmethod
    def existing(cls, folder: str | Path) -> "Run":
        """Read an existing run without its lock; :meth:`open` makes this process its writer.

        Raises:
            ValueError: when there is none, or its journal is damaged.
        """
        run = cls(Path(folder).absolute())  # or it would be another one after a chdir
        run.journal = Journal.copy_of(Path(folder) / JOURNAL)
        check_begun(run.journal.records, Path(folder), " to resume")
        return run

    @property
    def _writes(self) -> Path | None:
        """The folder, on the rank that writes to it."""
        return self.folder if is_first_rank() else None

    # ---- what was decided ------------------------------------------------------------------------

    @property
    def start(self) -> Record:
        """The first record, which holds the configuration and the first split."""
        return self.journal.records[0]

    def options(self, **changes: Any) -> dict[str, Any]:
        """Return the options that hold by now; ``changes`` replace some of them.

        Raises:
            ValueError: when a function labeled and none is given now; functions are not kept.
        """
        changes = {n: v for n, v in changes.items() if (n, v) != ("strategy", None)}
        options = {**self.holding, **self.start["asking"], **changes}
        if options["oracle"] == FUNCTION:
            raise ValueError(
                "the labels of this run came from a function, which is not kept; give it again, "
                'oracle=..., or "files" or "dataset"'
            )
        rules = options.get("stop_when")
        if FUNCTION in (rules if isinstance(rules, list) else [rules]):
            raise ValueError(
                "a function ends this run, which is not kept; give all rules again, stop_when=..., "
                "or None for no rule"
            )
        return options

    @property
    def holding(self) -> dict[str, Any]:
        """The options that hold by now: those of the beginning, and what has changed since."""
        later = Settings.names("later")  # of which earlier versions wrote fewer
        options = {name: Settings.__dataclass_fields__[name].default for name in later}
        options |= self.start["config"]["active"]
        for record in self.journal.of(SETTINGS):
            options |= record["changes"]
        return options

    def change(
        self,
        options: Mapping[str, Any],
        *,
        grown: Record | None = None,
        names: Sequence[str] | None = None,
        classes: Sequence[str] | None = None,
        weights: Mapping[str, Any] | None = None,
    ) -> None:
        """Write which of the options that may change differ from those that hold by now.

        Args:
            options: The options now.
            grown: Says of further rows: ``num_rows`` in all, how many were ``added``, and which of
                them are ``invalid``.
            names: Names of all rows, when there are further ones.
            classes: Names of all classes, when there is a further one.
            weights: Where cold starts begin from now on.
        """
        before = self.holding
        later = [name for name in Settings.names("later") if name in options]
        changes = {n: options[n] for n in later if options[n] != before.get(n)}
        more: Record = {"grown": grown} if grown else {}
        if not (changes or more or classes):
            return
        self.open()
        if names is not None:
            self._keep_names(names)
        if classes is not None and not self._has_weights_for(classes, weights or {}):
            # Under a name of its own: an earlier file stands until this one is told.
            written = self._keep(weights, self._weights_file(self._num_heads + 1))
            more |= {"classes": list(classes), "weights": written}
        if not (changes or more):
            return
        cycle = (self.journal.last or {}).get("cycle", 0)
        self.journal.append(SETTINGS, cycle=cycle, changes=changes, **more)

    @property
    def finished(self) -> bool:
        """Tell whether no further cycle follows."""
        return bool(self.journal.records) and self.journal.records[-1]["event"] == "end"

    @property
    def results(self) -> Results:
        """A result for each cycle that is over, see :func:`results_of`."""
        records = self.journal.records
        if self._results_of != (id(records), len(records)):
            self._results, self._results_of = results_of(records), (id(records), len(records))
        return Results(self._results)

    def result(self, cycle: int) -> CycleResult:
        """Return the results of a cycle, as far as it has come."""
        return result_of(self.journal.records, cycle)

    @property
    def cycle(self) -> int:
        """The present cycle, from 1; it ends when its labels come. 0 with nothing labeled yet."""
        last = self.journal.last
        assert last is not None
        if last["event"] == "start":
            return 1 if last["split"]["labeled_indices"] else 0
        cycle: int = last["cycle"] + (last["event"] == "labels")
        return cycle

    def end(self, cycle: int, reason: str, why: str = "") -> None:
        """Write that no cycle follows, and let others have the folder.

        Args:
            cycle: The last one.
            reason: The name of the rule that ends the run.
            why: A sentence about it.
        """
        self.journal.append("end", cycle=cycle, reason=reason, why=why)
        self.release()

    # ---- the folder ------------------------------------------------------------------------------

    def begin(
        self, weights: Mapping[str, Any], names: Sequence[str] | None = None, **start: Any
    ) -> None:
        """Write the initial weights, then the first record: a folder with a journal is complete.

        Args:
            weights: The weights from which cold starts begin.
            names: People's names of all rows, if there are any.
            start: Fields of the record, in plain values.
        """
        if self._writes is not None:
            self.open()
            check_vacant(self._writes)  # once more, now that nobody else can fill it
        written = self._keep(weights, INITIAL_WEIGHTS)
        if names is not None:
            self._keep_names(names)
        run = secrets.token_hex(8)  # tells two runs of one configuration apart
        self.journal.append("start", run=run, weights=written, **start)

    def open(self) -> None:
        """Make this process the writer of the folder, and read the journal anew.

        Raises:
            ValueError: when another process is at work on it, or it cannot be written.
        """
        if self.folder is None:
            return
        path = self.folder / JOURNAL
        if self._writes is None:
            self.journal = Journal.copy_of(path)
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock(self.folder, patience=PATIENCE)
            self.journal = Journal(path, self.journal)
        except OSError as error:
            raise ValueError(
                f"run_dir must be a folder that can be written, got {self.folder} "
                f"({error.strerror}); name another folder"
            ) from error

    def release(self) -> None:
        """Let others write to the folder, until :meth:`catch_up`."""
        if self.folder is not None:
            self._is_free = not self.finished
            unlock(self.folder)

    def catch_up(self) -> list[Record]:
        """Take a released folder back; return the records that others wrote meanwhile."""
        if not self._is_free:
            return []
        known = len(self.journal.records)
        self.open()
        self._is_free = False
        return self.journal.records[known:]

    def cycle_folder(self, cycle: int) -> Path | None:
        """Return the folder of a cycle's curves and weights."""
        return None if self.folder is None else self.folder / f"cycle_{cycle}"

    def query_folder(self, cycle: int) -> Path | None:
        """Return the folder of a query that waits: its pictures, and the files to fill in."""
        return None if self.folder is None else query_folder(self.folder, cycle)

    def set_query_aside(self, cycle: int) -> None:
        """Rename the folder of an earlier query of this cycle, from before the journal was cut."""
        if self._writes is not None:
            set_aside(query_folder(self._writes, cycle))

    def initial_weights(self) -> dict[str, Any]:
        """Read the weights of cold starts; raise ValueError when the file is damaged."""
        assert self.folder is not None
        return load_state(self.folder / self._weights_file(self._num_heads), self._head["weights"])

    def _has_weights_for(self, classes: Sequence[str], weights: Mapping[str, Any]) -> bool:
        """Tell whether cold starts have weights for these classes, of the form of those given."""
        if self._head.get("classes") != list(classes):
            return False
        shapes = [
            {name: getattr(value, "shape", None) for name, value in state.items()}
            for state in (self.initial_weights(), weights)
        ]
        return shapes[0] == shapes[1]

    @property
    def _head(self) -> Record:
        """The last record with weights of cold starts: the first one, or of a further class."""
        return [self.start, *(r for r in self.journal.records if r.get("classes"))][-1]

    @property
    def _num_heads(self) -> int:
        """Number of records with weights of cold starts."""
        return 1 + sum("classes" in record for record in self.journal.of(SETTINGS))

    @staticmethod
    def _weights_file(number: int) -> str:
        return INITIAL_WEIGHTS if number == 1 else f"initial_weights_{number}.pt"

    def _keep(self, weights: Mapping[str, Any] | None, file: str) -> str | None:
        """Save weights; return their checksum, or None where nothing is written."""
        if self._writes is None:
            return None
        path = self._writes / file
        save_state(dict(weights or {}), path)
        sync(path)
        return checksum(path)

    @property
    def names(self) -> list[str] | None:
        """Names of the rows that the run knows, in its order; None where they were not kept."""
        path = self.folder and self.folder / NAMES
        if path is None or not path.exists():
            return None
        lines = path.read_bytes().splitlines()[: num_rows_of(self.journal.records)]
        return [json.loads(line) for line in lines]

    def _keep_names(self, names: Sequence[str]) -> None:
        if self._writes is not None:
            lines = "".join(f"{json.dumps(name)}\n" for name in names)
            write_whole(self._writes / NAMES, lines.encode())
