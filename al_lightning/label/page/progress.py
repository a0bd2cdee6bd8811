"""The training between two queries, as the page shows it, from the journal alone."""

from collections.abc import Sequence
from typing import Any

from al_lightning.label.page.trainer import Trainer
from al_lightning.run.journal import Record

PHASES = {"start": "fit", "labels": "fit", "fit": "test", "test": "choose"}
"""The step that runs after each event."""
SECONDS = {"fit": ("fit",), "test": ("test",), "choose": ("predict", "query")}
WORDS = {"fit": "trains", "test": "is tested", "choose": "chooses what to ask"}


def told_between(last: Record, trainer: Trainer) -> str:
    """Say why there is nothing to label now.

    Args:
        last: The last record of the run.
        trainer: Goes on with it.
    """
    if last["event"] == "end":
        return f"The run is over: {last.get('why') or last['reason']}."
    closed = f"The query of cycle {last['cycle']} is closed. " if last["event"] == "labels" else ""
    return closed + trainer.told()


def progress_of(records: Sequence[Record], seconds: float) -> dict[str, Any]:
    """Return how far the present cycle has come.

    Args:
        records: Of the run.
        seconds: Time since the last of them.

    Returns:
        ``words`` say what happens now. ``done`` is the share that is over, judged by how long the
        cycle before took; None in the first cycle.
    """
    steps = [record for record in records if record["event"] in PHASES]
    last = steps[-1]
    phase = PHASES[last["event"]]
    if last["event"] == "start" and not last["split"]["labeled_indices"]:
        return {"cycle": 0, "words": "The first rows are chosen", "done": None}
    cycle = 1 if last["event"] == "start" else last["cycle"] + (last["event"] == "labels")
    done = None
    before = _last_seconds(records)
    if before is not None:
        taken = {name: sum(before.get(one, 0.0) for one in SECONDS[name]) for name in SECONDS}
        names = [*SECONDS]
        over = sum(taken[name] for name in names[: names.index(phase)])
        total = sum(taken.values()) or 1.0
        done = round((over + min(seconds, taken[phase])) / total, 3)
    return {"cycle": cycle, "words": f"The model of cycle {cycle} {WORDS[phase]}", "done": done}


def results_in_words(records: Sequence[Record]) -> list[list[Any]]:
    """Return a pair for each cycle that was tested: number of labels, and metrics in words."""
    fits = {record["cycle"]: record for record in records if record["event"] == "fit"}
    tests = [record for record in records if record["event"] == "test"]
    return [
        [fits[test["cycle"]].get("num_labeled"), _in_words(test.get("metrics", {}))]
        for test in tests
    ]


def _last_seconds(records: Sequence[Record]) -> dict[str, float] | None:
    """Return the seconds of each step of the last cycle that asked; None without one."""
    asked = next((r["cycle"] for r in reversed(records) if r["event"] == "query"), 0)
    if asked == 0:
        return None
    steps = [r.get("seconds") or {} for r in records if r.get("cycle") == asked]
    # A person's seconds for an answer are a number.
    return {name: one for step in steps if isinstance(step, dict) for name, one in step.items()}


def _in_words(metrics: dict[str, float]) -> str:
    tested = {name: value for name, value in metrics.items() if name.startswith("test_")}
    return ", ".join(f"{name} {value:.4f}" for name, value in sorted((tested or metrics).items()))
