"""Show the progress of runs in other processes, from their journals."""

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager

from tqdm import tqdm  # type: ignore[import-untyped]

from al_lightning.compare.protocol import check_shared
from al_lightning.compare.runs import Run, check_metric, fits
from al_lightning.monitor.console import cycle_line
from al_lightning.run.folder import JOURNAL


class Progress(AbstractContextManager["Progress"]):
    """Shows a bar for each run on a terminal; elsewhere a line for each cycle.

    Args:
        runs: All runs of the comparison.
        watched: The runs that are carried out now.
        metric: The metric that each cycle must log.
    """

    def __init__(self, runs: Sequence[Run], watched: Sequence[Run], metric: str) -> None:
        self.metric = metric
        self.width = max(len(str(run)) for run in watched)
        self._sizes = dict.fromkeys(watched, 0)  # of journals, in bytes
        self._journals = {run: records for run in runs if (records := run.records())}
        self._num_shown = {run: len(fits(self._journals.get(run, []))) for run in watched}
        self._bars: dict[Run, tqdm] = {}

    def __exit__(self, *error: object) -> None:
        for bar in self._bars.values():
            bar.close()

    def look(self) -> None:
        """Show the cycles that are new.

        Raises:
            ValueError: when a cycle is over and did not log the metric, or when runs at one seed
                began with other labels or weights.
        """
        for run in self._sizes:
            journal = run.folder / JOURNAL
            size = journal.stat().st_size if journal.exists() else 0
            if size != self._sizes[run]:
                self._sizes[run] = size
                self._show(run)

    def _show(self, run: Run) -> None:
        records = run.records()
        if not records:
            return
        self._journals[run] = records
        check_shared(self._journals)
        num_cycles: int = records[0]["config"]["active"]["num_cycles"]
        results = fits(records)
        check_metric(run, self.metric, results)
        if sys.stderr.isatty() and run not in self._bars:
            self._bars[run] = tqdm(total=num_cycles, desc=f"{run!s:<{self.width}}")
        for result in results[self._num_shown[run] :]:
            if run not in self._bars:
                print(f"{run!s:<{self.width}} | {cycle_line(result, num_cycles)}", flush=True)
        self._num_shown[run] = len(results)
        if run in self._bars and results:
            last = results[-1]
            bar = self._bars[run]
            metric = f"{self.metric} {last.metrics[self.metric]:.4f}"
            bar.set_postfix_str(f"labels {last.num_labeled}, {metric}")
            bar.update(len(results) - bar.n)
