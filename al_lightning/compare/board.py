"""Write a comparison for TensorBoard: figures, summary, and the strategies' curves overlaid."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter

from al_lightning.compare.comparison import Comparison

SUFFIX = ".compare"
"""Ends the names of our files, so that others, and those of the runs, are left alone."""


def write_board(
    comparison: Comparison, figures: Mapping[str, Figure], summary: str, out: Path
) -> None:
    """Write ``compare/...`` into ``out`` and each strategy's mean curve into ``out/<strategy>``.

    Files of an earlier call are deleted, also those of a strategy that is no longer there. A
    TensorBoard that has read them already is told to purge.
    """
    name = f"events.out.tfevents.*{SUFFIX}"
    for earlier in [*out.glob(name), *out.glob(f"*/{name}")]:
        earlier.unlink()
    last = comparison.num_labeled[-1]
    with SummaryWriter(out, purge_step=0, filename_suffix=SUFFIX) as writer:
        for tag, figure in figures.items():
            writer.add_figure(f"compare/{tag}", figure, last)
        writer.add_text("compare/summary", summary, last)
    for strategy in comparison.curves:
        curve = comparison.mean(strategy)
        with SummaryWriter(out / strategy, purge_step=0, filename_suffix=SUFFIX) as writer:
            for num, value in zip(curve.num_labeled, curve.accuracy, strict=True):
                writer.add_scalar(f"compare/{comparison.metric}", value, num)
