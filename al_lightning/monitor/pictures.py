"""``progress.png``, the three panels, and ``queries/cycle_N.png``, the first rows that were asked.

Figures are made without pyplot, so no global figure list or backend is touched.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from al_lightning.data.items import inputs_of
from al_lightning.data.sets import read_or_none
from al_lightning.monitor.drawing import as_shown, drawn
from al_lightning.monitor.forecasts import next_outlook
from al_lightning.monitor.kept import Kept, checksum_of, origin_of
from al_lightning.monitor.monitor import Loop, Monitor
from al_lightning.monitor.tables import form_of, known_labels
from al_lightning.run.folder import write_whole
from al_lightning.run.records import NUM_PICTURED, CycleResult, map_of

NUM_IMAGES = NUM_PICTURED


class Pictures(Monitor):
    """Saves both pictures in the run folder; what stands there is not drawn again."""

    def __init__(self) -> None:
        self._kept: Kept | None = None

    def on_start(self, loop: Loop) -> None:
        if loop.run_dir is None:
            return
        self._kept = Kept(loop.run_dir, "pictures")
        results = loop.results
        for result in results:
            self.on_labels(loop, result)
        if results:
            self._save_progress(loop, results)

    def on_cycle(self, loop: Loop, result: CycleResult) -> None:
        self.on_labels(loop, result)
        self._save_progress(loop, loop.results)

    def on_labels(self, loop: Loop, result: CycleResult) -> None:
        origin = origin_of(loop, result, NUM_IMAGES)
        name = f"queries/cycle_{result.cycle}.png"
        self._save(loop, name, origin, lambda: query_figure(loop, result))

    def _save_progress(self, loop: Loop, results: Sequence[CycleResult]) -> None:
        origin = origin_of_progress(loop, results)
        self._save(loop, "progress.png", origin, lambda: progress_figure(results))

    def _save(self, loop: Loop, name: str, origin: str, draw: Callable[[], Figure | None]) -> None:
        if self._kept is None or self._kept.stands(name, origin):
            return
        figure = draw()
        if figure is not None:
            write_whole(loop.run_dir / name, drawn(figure, origin))
        self._kept.note(name, origin)


def origin_of_progress(loop: Loop, results: Sequence[CycleResult]) -> str:
    """Return a checksum of all that the panels are made of."""
    shown = [(r.cycle, r.num_labeled, sorted(r.metrics.items()), r.cost) for r in results]
    return checksum_of(loop, shown)


def progress_figure(results: Sequence[CycleResult]) -> Figure:
    """Draw test accuracy, train loss and labeled-set size side by side, against the cycle.

    From the third cycle on the accuracy to expect of the next one is there too, with its 80 %
    interval. Where labels have a cost, a fourth panel shows accuracy against it.
    """
    by_cost = [(r.cost, r.metrics.get("test_acc", np.nan)) for r in results if r.cost is not None]
    num_panels = 3 + bool(by_cost)
    figure = Figure(figsize=(4 * num_panels, 3.6), layout="constrained")
    cycles = [result.cycle for result in results]
    panels: list[tuple[str, Sequence[float], str]] = [
        ("test accuracy", [result.metrics.get("test_acc", np.nan) for result in results], "C0"),
        ("train loss", [result.metrics.get("train_loss", np.nan) for result in results], "C1"),
        ("labeled rows", [result.num_labeled for result in results], "C2"),
    ]
    grid = list(figure.subplots(1, num_panels))
    for axes, (title, values, color) in zip(grid, panels, strict=False):
        axes.plot(cycles, values, marker="o", color=color)
        axes.set(title=title, xlabel="cycle", xticks=cycles)
        axes.grid(alpha=0.3)
        axes.margins(y=0.15)  # room for the last value
        if cycles:
            last = f"{values[-1]:.4f}" if title != "labeled rows" else f"{values[-1]:,}"
            above: dict[str, Any] = {"xytext": (0, 7), "textcoords": "offset points", "ha": "right"}
            axes.annotate(last, (cycles[-1], values[-1]), **above)
    outlook = next_outlook(results)
    if outlook is not None:
        x, reach = (
            cycles[-1] + 1,
            [[outlook.accuracy - outlook.low], [outlook.high - outlook.accuracy]],
        )
        grid[0].errorbar(
            [x], [outlook.accuracy], reach, color="C0", alpha=0.5, capsize=4, marker="o"
        )
        grid[0].plot([cycles[-1], x], [panels[0][1][-1], outlook.accuracy], "C0:", alpha=0.5)
    if num_panels > 3:
        grid[3].plot(*np.array(by_cost).T, marker="o", color="C3")
        grid[3].set(title="test accuracy by cost", xlabel="cost of the labels")
        grid[3].grid(alpha=0.3)
    return figure


def query_figure(loop: Loop, result: CycleResult) -> Figure | None:
    """Draw the first rows of a query, with their labels, predicted classes and scores.

    It is None when nothing was asked, or when the data set's items are no images. A row that cannot
    be read any more is an empty place.
    """
    query = result.query
    if query is None:
        return None
    shown = query.indices[:NUM_IMAGES]
    items = [read_or_none(loop.data.sets.for_people.__getitem__, index) for index in shown]
    images = [None if item is None else as_image(item) for item in items]
    if any(image is None and item is not None for image, item in zip(images, items, strict=True)):
        return None
    labels, form = known_labels(loop, shown), form_of(loop)
    said = "label " if form.task != "dense" else ""
    columns = 5
    rows = -(-len(shown) // columns)
    height = 2.6 * rows + 0.3
    figure = Figure(figsize=(2.1 * columns, height))
    figure.suptitle(f"cycle {result.cycle}: asked at {result.num_labeled:,} labels")
    # Places by hand: a layout engine takes longer than all the drawing.
    edges = {"left": 0.01, "right": 0.99, "bottom": 0.01, "top": 1 - 1.1 / height, "hspace": 0.45}
    grid = list(figure.subplots(rows, columns, squeeze=False, gridspec_kw=edges).flat)
    for axes in grid:
        axes.set_axis_off()
    for position, (axes, image) in enumerate(zip(grid, images, strict=False)):
        if image is not None:
            axes.imshow(image, cmap="gray")
            if query.maps is not None:
                _lay_over(axes, np.array(map_of(query.maps[position])), image.shape)
        lines = [f"row {shown[position]}"]
        if labels[position] != "":
            lines.append(f"{said}{as_shown(labels[position])}")
        if query.predicted is not None and query.maps is None:  # a map shows it
            lines.append(f"predicted {as_shown(form.told(query.predicted[position]))}")
        if query.scores is not None:
            lines.append(f"score {query.scores[position]:.3f}")
        axes.set_title("\n".join(lines), fontsize=9)
    if query.maps is not None and query.predicted:
        classes = form.classes or range(len(query.predicted[0]))
        patches = [
            Patch(color=f"C{c % 10}", label=as_shown(name)) for c, name in enumerate(classes)
        ]
        figure.legend(handles=patches[:10], loc="upper left", ncols=5, fontsize=8)
    return figure


def _lay_over(axes: Any, map_hw: np.ndarray, shape: Sequence[int]) -> None:
    """Colour the predicted class of each pixel over an image of that shape."""
    colours = {"cmap": "tab10", "vmin": -0.5, "vmax": 9.5, "alpha": 0.4}
    place = (-0.5, shape[1] - 0.5, shape[0] - 0.5, -0.5)
    axes.imshow(map_hw % 10, extent=place, interpolation="nearest", **colours)


def as_image(item: Any) -> np.ndarray | None:
    """Return the image in an item as pixels (H, W) or (H, W, 3) in [0, 1]; None without one.

    Grey and colour images count. In a dict they are under ``"image"`` or ``"x"``. Values outside
    [0, 1], as after normalisation, are stretched to it.
    """
    inputs: Any = item.get("image", item.get("x")) if isinstance(item, dict) else inputs_of(item)
    if isinstance(inputs, Tensor):
        pixels = inputs.detach().cpu().float().numpy()
        if pixels.ndim == 3 and pixels.shape[0] in (1, 3):
            pixels = pixels.transpose(1, 2, 0)
    elif hasattr(inputs, "convert"):  # a PIL image
        pixels = np.asarray(inputs.convert("RGB"), dtype=np.float32) / 255
    else:
        return None
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    if not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[-1] == 3)):
        return None
    low, high = float(pixels.min()), float(pixels.max())
    if low < 0 or high > 1:
        pixels = (pixels - low) / max(high - low, 1e-12)
    return pixels
