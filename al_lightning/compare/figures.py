"""Draw learning curves, label efficiency and pairwise penalties, readable also in grey."""

from textwrap import fill
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from al_lightning.compare.comparison import Comparison
from al_lightning.statistics import Curve, label_efficiency, labels_to_interpolated, mean_interval

# Okabe and Ito 2008, "Color universal design", less yellow, which is lost on white. Neighbours
# differ in lightness, so that they do in grey.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#56B4E9", "#D55E00", "#CC79A7")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "p")
DASHES = ((0, ()), (0, (7, 1.5, 1, 1.5)), (0, (2, 1)), (0, (7, 2.5)), (0, (4, 1, 1, 1, 1, 1)))
MAX_BANDS = 6
"""With more strategies, intervals are bars at some of the points."""
LABELS = "labels (rows in the training set)"
CONVENTION = "Labels: rows in the training set of the tested model, the initial ones included."


def styles(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """Return arguments for ``Axes.plot`` by strategy; they depend on its place alone.

    No two are alike before there are 90 strategies.
    """
    baseline = comparison.baseline
    found = {baseline: _style("black", ".", (0, (4, 2)), "black")}
    for i, name in enumerate(name for name in comparison.curves if name != baseline):
        color = COLORS[i % len(COLORS)]
        face = "white" if i // len(MARKERS) % 2 else color
        found[name] = _style(color, MARKERS[i % len(MARKERS)], DASHES[i % len(DASHES)], face)
    return found


def _style(color: str, marker: str, dash: Any, face: str) -> dict[str, Any]:
    marks = {"marker": marker, "markerfacecolor": face, "markersize": 6.5}
    return {"color": color, "linestyle": dash, "linewidth": 1.6, **marks}


def curves_figure(comparison: Comparison) -> Figure:
    """Draw mean accuracy against the number of labels, with the interval of the mean."""
    figure, axes = _canvas(comparison)
    several, many = len(comparison.seeds) > 1, len(comparison.curves) > MAX_BANDS
    sizes = comparison.num_labeled
    bars = many or len(sizes) < 2  # a band over one size has no width
    every = max(1, len(sizes) // 15) * (3 if many and len(sizes) > 9 else 1)
    for place, (name, style) in enumerate(styles(comparison).items()):
        mean = comparison.mean(name).accuracy
        marks = (place % every, every)
        axes.plot(sizes, mean, label=f"{name}  {mean[-1]:.4f}", markevery=marks, **style)
        if several:
            _draw_intervals(axes, comparison, name, place if bars else None)
    cut = _limit(axes, comparison)
    axes.set(xlabel=LABELS, ylabel=comparison.metric_words)
    _legend(figure, axes, comparison, title="mean at the end")
    shown = ("bars, at some of the sizes" if many else "bars") if bars else "bands"
    spread = f"{shown}: pointwise 95 % t interval of that mean{cut}" if several else "no interval"
    area = " AUBC in the tables: from {:,} to {:,} labels.".format(*comparison.interval)
    text = f"Lines: mean over seeds; {spread}. {CONVENTION}"
    _caption(figure, comparison, text + area * (len(sizes) > 1))
    return figure


def _draw_intervals(axes: Axes, comparison: Comparison, name: str, place: int | None) -> None:
    """Draw a band, or bars at sizes that depend on ``place``, so that bars hide no others."""
    sizes, curves = comparison.num_labeled, comparison.curves[name].values()
    values = zip(*(curve.accuracy for curve in curves), strict=True)
    _, _, low, high, _ = zip(*map(mean_interval, values), strict=True)
    color = styles(comparison)[name]["color"]
    if place is None:
        axes.fill_between(sizes, low, high, color=color, alpha=0.18, linewidth=0)
        return
    step = max(1, min(len(comparison.curves), len(sizes) // 2))
    at = slice(place % step, None, step)
    axes.vlines(sizes[at], low[at], high[at], color=color, linewidth=1.2)


def _limit(axes: Axes, comparison: Comparison) -> str:
    """Limit the axis to what the runs reached: with two seeds, intervals are far wider."""
    reached = [curve.accuracy for curves in comparison.curves.values() for curve in curves.values()]
    low, high = np.min(reached), np.max(reached)
    margin = max(0.05 * (high - low), 1e-4)
    drawn = axes.dataLim
    axes.set_ylim(low - margin, high + margin)
    return ", cut off at the frame" if drawn.y0 < low - margin or high + margin < drawn.y1 else ""


def efficiency_figure(comparison: Comparison) -> Figure:
    """Draw the labels of the baseline over those of each strategy, against accuracy, on means."""
    baseline = comparison.baseline
    means = {name: comparison.mean(name) for name in comparison.curves}
    low = means[baseline].accuracy[0]
    high = max(mean.accuracy[-1] for mean in means.values())
    if not low < high or len(comparison.num_labeled) < 2:
        return _words(
            "No label efficiency: it needs two sizes and a strategy\n"
            f"that ends above what {baseline} has at the first."
        )
    figure, axes = _canvas(comparison)
    levels = np.linspace(low, high, 201)
    for place, (name, style) in enumerate(styles(comparison).items()):
        ratios, bounds = _ratios(means[name], means[baseline], levels)
        marks = (place * 3 % 25, 25)
        axes.plot(levels, ratios, label=name, markevery=marks, **style)
        axes.plot(levels, bounds, color=style["color"], linestyle=":", linewidth=1.2)
    _legend(figure, axes, comparison)
    ratio = f"labels of {baseline} / labels of the strategy (ratio)"
    axes.set(xlabel=f"{comparison.metric_words} to reach", ylabel=ratio)
    _caption(
        figure,
        comparison,
        f"Ratio on mean curves over seeds, interpolated, no interval; above 1 "
        f"fewer labels than {baseline}. A line ends where the strategy's mean does. Thin dots: a "
        f"lower bound, since {baseline} does not reach that accuracy with its "
        f"{comparison.num_labeled[-1]:,} labels. {CONVENTION}",
    )
    return figure


def _ratios(method: Curve, baseline: Curve, levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ratios where both reach a level, and bounds where only the method does; else NaN."""
    ratios = np.array([label_efficiency(method, baseline, x) for x in levels])
    needed = np.array([labels_to_interpolated(method, x) for x in levels])
    bounds = np.where(np.isposinf(ratios), baseline.num_labeled[-1] / needed, np.nan)
    return np.where(np.isfinite(ratios) & (ratios > 0), ratios, np.nan), bounds


def penalty_figure(comparison: Comparison) -> Figure:
    """Draw how often each strategy beats each other one significantly, with column means."""
    penalties = comparison.penalties()
    if penalties is None:
        return _words("No pairwise penalties: they need at least\ntwo seeds and two sizes.")
    names = comparison.ranked
    num = len(names)
    figure = Figure(figsize=(4 + 0.5 * num, 3.5 + 0.42 * num), layout="constrained")
    axes = figure.subplots()
    cells = np.vstack([penalties, penalties.mean(0)])
    _print_cells(axes, cells)
    axes.axhline(num - 0.5, color="black", linewidth=1.5)
    axes.set_xticks(range(num), names, rotation=45, ha="left")
    axes.set_yticks(range(num + 1), [*names, "column mean"])
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set(xlabel="is beaten", ylabel="beats")
    _caption(
        figure,
        comparison,
        "Share of checkpoints (sizes at doubling steps) at which a two-sided "
        "paired t-test by seed has p < 0.05, not corrected for their number. The lower a column's "
        "mean the better.",
    )
    return figure


def _print_cells(axes: Axes, cells: np.ndarray) -> None:
    """Draw shares of 1 as shades, and print the numbers on them."""
    cmap = colormaps["Blues"]
    axes.imshow(cells, cmap=cmap, vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(cells):
        red, green, blue, _ = cmap(value)
        color = "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.5 else "black"
        text = "-" if row == column else f"{value:.2f}" if value else "0"
        axes.text(column, row, text, ha="center", va="center", color=color)


def _canvas(comparison: Comparison) -> tuple[Figure, Axes]:
    height = 6 if len(comparison.curves) <= MAX_BANDS else 8
    figure = Figure(figsize=(9.5, height), layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    return figure, axes


def _legend(figure: Figure, axes: Axes, comparison: Comparison, title: str = "") -> None:
    """Put the legend beside the axes, best final mean first."""
    handles, labels = axes.get_legend_handles_labels()
    places = [list(styles(comparison)).index(name) for name in comparison.ranked]
    figure.legend(
        [handles[place] for place in places],
        [labels[place] for place in places],
        title=title,
        loc="outside right upper",
        handlelength=3.5,
    )


def _caption(figure: Figure, comparison: Comparison, text: str) -> None:
    """Write the number of seeds and ``text`` under the axes, wrapped to the figure's width."""
    num = len(comparison.seeds)
    seeds = f"{num} seeds." if num > 1 else "One seed."
    wrapped = fill(f"{seeds} {text}", int(figure.get_figwidth() * 14))
    figure.supxlabel(wrapped, x=0.01, ha="left", fontsize=9)


def _words(text: str) -> Figure:
    figure = Figure(figsize=(6, 3))
    figure.text(0.5, 0.5, text, ha="center", va="center", fontsize=12)
    return figure
