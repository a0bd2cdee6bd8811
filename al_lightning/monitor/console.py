"""A line for each cycle on the terminal, and instructions while the run waits for labels."""

import shlex
from datetime import timedelta

from al_lightning.label.agreement import agreements
from al_lightning.monitor.exchange import can_be_seen
from al_lightning.monitor.forecasts import MORE, curve_of, forecast_of, in_words, next_outlook
from al_lightning.monitor.monitor import Loop, Monitor
from al_lightning.monitor.report import REPORT
from al_lightning.monitor.tables import answers_of
from al_lightning.run.folder import TO_LABEL, query_folder, shown
from al_lightning.run.records import CycleResult, Query
from al_lightning.settings import PEOPLE
from al_lightning.strategies import strategy_name


class Console(Monitor):
    """Prints a line a cycle: labels, train loss, test accuracy, seconds, later a forecast."""

    def on_start(self, loop: Loop) -> None:
        if loop.run_dir is not None:
            print(f"run folder {shown(loop.run_dir)}")
            print(plan_of(loop), flush=True)
        if loop.settings.oracle in PEOPLE and not can_be_seen(loop):
            print(
                "  people will see the rows as numbers alone; let the data set say how they look: "
                "describe(index) returns text, a picture, a path or a dict",
                flush=True,
            )
        *earlier, last = loop.results or [None]
        for result in earlier:
            print(cycle_line(result, loop.settings.num_cycles), flush=True)
        if last is not None:
            self.on_cycle(loop, last)

    def on_cycle(self, loop: Loop, result: CycleResult) -> None:
        line, outlook = cycle_line(result, loop.settings.num_cycles), next_outlook(loop.results)
        if outlook is not None:
            line += f" | at {outlook.num_labeled:,} labels expect {in_words(outlook)}"
        left = (loop.settings.num_cycles - result.cycle) * sum(result.seconds.values())
        if left >= 1 and loop.settings.oracle not in PEOPLE:  # who take the time that they take
            line += f" | some {timedelta(seconds=round(left))} left"
        print(line, flush=True)

    def on_wait(self, loop: Loop, query: Query) -> None:
        waiting = answers_of(loop, query.cycle)
        held = sum(i in waiting and waiting[i].answer is not None for i in query.indices)
        differing = sum(row.in_conflict for row in waiting.values())
        num = len(query.indices)
        print(f"cycle {query.cycle} waits for labels: {held} of {num} rows are answered")
        if differing:
            print(f"  people differ on {differing} rows: settle them on the page")
        if loop.settings.oracle == "page":  # which has printed its address
            return
        folder = None if loop.run_dir is None else query_folder(loop.run_dir, query.cycle)
        if folder is not None and (folder / TO_LABEL).exists():
            page = shlex.join(["python", "-m", "al_lightning.label", shown(loop.run_dir)])
            print(f"  label on a page: {page}")
            print(f"  or in a file:    {shown(folder / TO_LABEL)}", flush=True)

    def on_labels(self, loop: Loop, result: CycleResult) -> None:
        for pair in agreements(r for r in loop.records if r.get("cycle") == result.cycle):
            print(
                f"cycle {result.cycle}: {pair.first} and {pair.second} agree on {pair.num_equal} "
                f"of {pair.num_rows} rows, Cohen's kappa {pair.kappa:.2f}",
                flush=True,
            )

    def on_end(self, loop: Loop) -> None:
        end = loop.records[-1]
        why = end.get("why") or end["reason"]  # which earlier versions did not write
        print(f"the run is over: {end['reason']}{f', {why}' * (why != end['reason'])}")
        curve = curve_of(loop.results)
        if curve is not None:
            ahead, last = forecast_of(curve), curve.num_labeled[-1]
            sizes = [more for more in MORE if more <= loop.data.num_unlabeled]
            told = [f"{more:,} more labels {in_words(ahead.at(last + more))}" for more in sizes]
            print(f"to expect: {'; '.join(told)}" if told else "", end="\n" if told else "")
        if loop.run_dir is not None:
            print(f"curves: tensorboard --logdir {shown(loop.run_dir)}")
            if (loop.run_dir / REPORT).exists():
                print(f"report: {shown(loop.run_dir / REPORT)}", flush=True)


def plan_of(loop: Loop) -> str:
    """Return the line that says what is going to happen."""
    data, settings = loop.data, loop.settings
    size, name = settings.size_of_query(len(loop.results) + 1), strategy_name(settings.strategy)
    return (
        f"{data.num_labeled:,} of {len(data.pool.labeled_N):,} rows have labels; "
        f"{name} asks for {size:,} a cycle, {settings.num_cycles} cycles"
    )


def cycle_line(result: CycleResult, num_cycles: int) -> str:
    """Return the line of one cycle.

    >>> metrics = {"train_loss": 0.5, "test_acc": 0.9}
    >>> cycle_line(CycleResult(1, 1000, metrics, {"fit": 2.0, "test": 0.5}), 5)
    'cycle 1/5 | labels 1000 | train_loss 0.5000 | test_acc 0.9000 | 2.5 s'
    """
    tested = sorted(name for name in result.metrics if name.startswith("test_"))
    tested = ["test_acc"] if "test_acc" in tested else tested
    shown = [name for name in ("train_loss", *tested) if name in result.metrics]
    metrics = [f"{name} {result.metrics[name]:.4f}" for name in shown or result.metrics]
    cells = [
        f"cycle {result.cycle}/{num_cycles}",
        f"labels {result.num_labeled}",
        *metrics,
        f"{sum(result.seconds.values()):.1f} s",
    ]
    return " | ".join(cells)
