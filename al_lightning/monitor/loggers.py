"""The user's own loggers: curves by number of labels, and each query's table and picture."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger
from PIL import Image

from al_lightning.monitor.drawing import drawn, drawn_before
from al_lightning.monitor.kept import Notes, origin_of
from al_lightning.monitor.monitor import Loop, Monitor
from al_lightning.monitor.pictures import NUM_IMAGES, query_figure
from al_lightning.monitor.tables import has_labels, query_table
from al_lightning.run.records import CycleResult

QUERIES = "active/queries"


class Loggers(Monitor):
    """Logs to the loggers of the user's Trainer, each value once in a run.

    Metrics are ``active/test_acc``, ``active/train_loss``, ..., with the number of labels as step
    and as ``active/num_labeled``. TensorBoard, Weights & Biases and MLflow get each query's table
    and picture too.
    """

    def __init__(self) -> None:
        self._notes: Notes | None = None
        self._logged: set[tuple[Any, ...]] = set()

    def on_start(self, loop: Loop) -> None:
        if loop.run_dir is not None:
            self._notes = Notes(loop.run_dir / ".loggers.jsonl")
            self._logged = {tuple(line) for line in self._notes.lines}

    def on_cycle(self, loop: Loop, result: CycleResult) -> None:
        self._log_new(loop)

    def on_labels(self, loop: Loop, result: CycleResult) -> None:
        self._log_new(loop)

    def _log_new(self, loop: Loop) -> None:
        """Log all that was not logged yet; the loggers of a resumed run are known a cycle later."""
        for result in loop.results:
            query, step = result.query, result.num_labeled
            if result.metrics and self._is_new(loop, "metrics", result):
                metrics = {f"active/{name}": value for name, value in result.metrics.items()}
                for logger in loop.loggers:
                    logger.log_metrics({**metrics, "active/num_labeled": step}, step=step)
                    logger.save()
            is_labeled = query is not None and has_labels(loop, query.indices)
            if query is not None and is_labeled and self._is_new(loop, "query", result):
                header, rows = query_table(loop, result, [""] * len(query.indices))
                picture = _picture(loop, result)
                for logger in loop.loggers:
                    log_query(logger, step, result.cycle, header, rows, picture)

    def _is_new(self, loop: Loop, kind: str, result: CycleResult) -> bool:
        key = (loop.records[0]["run"], kind, result.cycle, result.num_labeled)
        if key in self._logged or not loop.loggers:
            return False
        self._logged.add(key)
        if self._notes is not None:
            self._notes.add(*key)
        return True


def log_query(
    logger: Any,
    step: int,
    cycle: int,
    header: Sequence[str],
    rows: Sequence[Sequence[Any]],
    picture: Image.Image | None,
) -> None:
    """Log a query's table and picture, as the logger's own interface does it; or nothing.

    Args:
        logger: One of the user's.
        step: Number of labels.
        cycle: Of the query.
        header: Names of the table's columns.
        rows: Its cells.
        picture: Of the first rows; None where they are no images.
    """
    experiment = logger.experiment
    if isinstance(logger, TensorBoardLogger):
        lines = [header, ["---"] * len(header), *rows]
        experiment.add_text(QUERIES, "\n".join(f"|{_cells(line)}|" for line in lines), step)
        if picture is not None:
            experiment.add_image(QUERIES, np.asarray(picture), step, dataformats="HWC")
        experiment.flush()
    elif isinstance(logger, MLFlowLogger):
        columns = {name: list(map(str, cells)) for name, *cells in zip(header, *rows, strict=True)}
        place = f"{QUERIES}_cycle_{cycle}"
        experiment.log_table(logger.run_id, columns, f"{place}.json")
        if picture is not None:
            experiment.log_image(logger.run_id, picture, f"{place}.png")
    elif hasattr(logger, "log_table") and hasattr(logger, "log_image"):  # Weights & Biases
        texts = [list(map(str, row)) for row in rows]
        logger.log_table(f"{QUERIES}_table", columns=list(header), data=texts, step=step)
        if picture is not None:
            logger.log_image(QUERIES, images=[picture], step=step)


def _cells(line: Sequence[Any]) -> str:
    return "|".join(str(cell).replace("|", "\\|") for cell in line)


def _picture(loop: Loop, result: CycleResult) -> Image.Image | None:
    origin = origin_of(loop, result, NUM_IMAGES)
    content = None
    if loop.run_dir is not None:
        content = drawn_before(loop.run_dir / "queries" / f"cycle_{result.cycle}.png", origin)
    if content is None:
        figure = query_figure(loop, result)
        content = None if figure is None else drawn(figure, origin)
    return None if content is None else Image.open(io.BytesIO(content)).convert("RGB")
