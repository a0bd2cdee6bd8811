"""TensorBoard: learning curves whose x axis is the number of labels, and the two pictures."""

import struct
from collections.abc import Sequence
from typing import Any

from al_lightning.monitor.drawing import drawn, drawn_before
from al_lightning.monitor.event_file import EventFile
from al_lightning.monitor.forecasts import next_outlook, next_size
from al_lightning.monitor.kept import Notes, origin_of
from al_lightning.monitor.monitor import Loop, Monitor
from al_lightning.monitor.pictures import (
    NUM_IMAGES,
    origin_of_progress,
    progress_figure,
    query_figure,
)
from al_lightning.monitor.tables import has_labels
from al_lightning.run.records import CycleResult

SUFFIX = ".active"
"""Ends the names of our files, so that others in the folder are left alone."""
QUERIES, PROGRESS = "active/queries", "active/progress"
FORECAST = ("active/forecast", "active/forecast_low", "active/forecast_high")
"""Test accuracy to expect, at the number of labels where it is expected."""
HPARAMS = tuple(f"_hparams_/{n}" for n in ("experiment", "session_start_info", "session_end_info"))
"""Tags of the table in which TensorBoard compares runs."""
GROUPS = ("active", "model")


class TensorBoard(Monitor):
    """Writes ``active/...`` into the run folder; each cycle's own curves are beside it.

    A resumed run adds to the file of its predecessors what is not there, so every point is there
    once. A file that holds anything else is written anew.
    """

    def __init__(self) -> None:
        self._file: EventFile | None = None
        self._notes: Notes | None = None
        self._written: set[tuple[str, int, str]] = set()  # tag, step and origin of each event

    def on_start(self, loop: Loop) -> None:
        if loop.run_dir is None:
            return
        self._notes = Notes(loop.run_dir / ".tensorboard.jsonl")
        results = loop.results
        self._file = self._predecessors(loop, results)
        if self._file is None:
            for earlier in loop.run_dir.glob(f"events.out.tfevents.*{SUFFIX}"):
                earlier.unlink()
            self._notes.clear()
            self._notes.add(loop.records[0]["run"])
            self._file = EventFile.named(loop.run_dir, SUFFIX)
        for result in results:
            self.on_cycle(loop, result)
            if result.query is not None and has_labels(loop, result.query.indices):
                self.on_labels(loop, result)
        if loop.finished:
            self.on_end(loop)

    def on_cycle(self, loop: Loop, result: CycleResult) -> None:
        for tag, step, value in scalars_of(result):
            self._add(tag, step, repr(value), simple_value=value)
        results = [one for one in loop.results if one.cycle <= result.cycle]
        size = next_size(results)
        if size is not None and self._lacks(FORECAST[-1], size, ""):
            outlook = next_outlook(results)
            for tag, value in zip(FORECAST, outlook[1:], strict=True) if outlook else ():
                self._add(tag, size, "", simple_value=value)

    def on_labels(self, loop: Loop, result: CycleResult) -> None:
        origin = origin_of(loop, result, NUM_IMAGES)
        if self._lacks(QUERIES, result.num_labeled, origin):
            picture = drawn_before(loop.run_dir / "queries" / f"cycle_{result.cycle}.png", origin)
            if picture is None and (figure := query_figure(loop, result)) is not None:
                picture = drawn(figure, origin)
            self._add_picture(QUERIES, result.num_labeled, origin, picture)

    def on_end(self, loop: Loop) -> None:
        results = loop.results
        last, origin = results[-1].num_labeled, origin_of_progress(loop, results)
        if self._lacks(PROGRESS, last, origin):
            picture = drawn_before(loop.run_dir / "progress.png", origin)
            picture = picture or drawn(progress_figure(results), origin)
            self._add_picture(PROGRESS, last, origin, picture)
        params = params_of(loop)
        if self._lacks(HPARAMS[-1], last, repr(params)):
            # Half a second that not every run needs.
            from torch.utils.tensorboard.summary import hparams

            finals = {f"active/{name}": value for name, value in results[-1].metrics.items()}
            for part in hparams(params, finals):  # type: ignore[no-untyped-call]
                for value in part.value:
                    self._add(value.tag, last, repr(params), metadata=value.metadata)

    def _predecessors(self, loop: Loop, results: Sequence[CycleResult]) -> EventFile | None:
        """Open the file that is there; None unless it is whole and holds this run's numbers."""
        assert self._notes is not None
        files = list(loop.run_dir.glob(f"events.out.tfevents.*{SUFFIX}"))
        first, *lines = self._notes.lines or [[""]]
        expected = {(tag, step, repr(v)) for one in results for tag, step, v in scalars_of(one)}
        steps = {step for one in results for _, step, _ in scalars_of(one)}
        written = {(tag, step, origin) for tag, step, origin, *_ in lines}
        free = (QUERIES, PROGRESS, *FORECAST, *HPARAMS)
        others = {one for one in written - expected if one[0] not in free}
        is_ours = first == [loop.records[0]["run"]] and not others
        is_ours = is_ours and {step for tag, step, _ in written if tag not in FORECAST} <= steps
        if len(files) != 1 or not lines or not is_ours or lines[-1][4] != files[0].name:
            return None
        size = lines[-1][3]
        if files[0].stat().st_size < size:
            return None
        self._written = written
        return EventFile(files[0], size)

    def _lacks(self, tag: str, step: int, origin: str) -> bool:
        return self._file is not None and (tag, step, origin) not in self._written

    def _add(self, tag: str, step: int, origin: str, **value: Any) -> None:
        if self._file is None or self._notes is None or not self._lacks(tag, step, origin):
            return
        self._written.add((tag, step, origin))
        size = self._file.add(tag, step, **value)
        self._notes.add(tag, step, origin, size, self._file.path.name)

    def _add_picture(self, tag: str, step: int, origin: str, png: bytes | None) -> None:
        if png is not None:
            width, height = struct.unpack(">II", png[16:24])  # of a PNG's first chunk
            image = {"height": height, "width": width, "colorspace": 4, "encoded_image_string": png}
            self._add(tag, step, origin, image=image)


def params_of(loop: Loop) -> dict[str, bool | int | float | str]:
    """Return the run's options and the model's plain hyperparameters, by name; None is no value."""
    config = loop.records[0]["config"]
    found = {f"{group}.{name}": v for group in GROUPS for name, v in config[group].items()}
    given = {k: v for k, v in found.items() if v is not None}
    plain = {k: v if isinstance(v, int | float | str) else repr(v) for k, v in given.items()}
    return {name: plain[name] for name in sorted(plain)}


def scalars_of(result: CycleResult) -> list[tuple[str, int, float]]:
    """Return tag, step and value of each number of a cycle: by labels, and by their cost."""
    scalars = [(f"active/{n}", result.num_labeled, value) for n, value in result.metrics.items()]
    if result.cost is not None:
        by_cost = round(result.cost)
        scalars += [(f"by_cost/{n}", by_cost, value) for n, value in result.metrics.items()]
    return scalars
