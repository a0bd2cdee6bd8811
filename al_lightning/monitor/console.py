"""One line a cycle on the terminal."""

from al_lightning.loop import ActiveLearningLoop, Monitor
from al_lightning.records import CycleResult


class Console(Monitor):
    """Prints cycle, labels, train loss, test accuracy and seconds."""

    def on_start(self, loop: ActiveLearningLoop) -> None:
        if loop.run_dir is not None:
            print(f"run folder {loop.run_dir}", flush=True)
        for result in loop.results:
            self.on_cycle(loop, result)

    def on_cycle(self, loop: ActiveLearningLoop, result: CycleResult) -> None:
        print(cycle_line(result, loop.num_cycles), flush=True)

    def on_end(self, loop: ActiveLearningLoop) -> None:
        if loop.run_dir is not None:
            print(f"curves: tensorboard --logdir {loop.run_dir}", flush=True)


def cycle_line(result: CycleResult, num_cycles: int) -> str:
    """The line of one cycle.

    >>> metrics = {"train_loss": 0.5, "test_acc": 0.9}
    >>> cycle_line(CycleResult(1, 1000, metrics, {"fit": 2.0, "test": 0.5}), 5)
    'cycle 1/5 | labels 1000 | train_loss 0.5000 | test_acc 0.9000 | 2.5 s'
    """
    shown = [name for name in ("train_loss", "test_acc") if name in result.metrics]
    metrics = [f"{name} {result.metrics[name]:.4f}" for name in shown or result.metrics]
    cells = [
        f"cycle {result.cycle}/{num_cycles}",
        f"labels {result.num_labeled}",
        *metrics,
        f"{sum(result.seconds.values()):.1f} s",
    ]
    return " | ".join(cells)
