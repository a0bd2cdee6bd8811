"""The README's figure: the default recipe, the same with random queries, and the tutorial.

Reads the runs that ``default_recipe.py`` saved, adds the ones with random queries (each saved when
it is done, none repeated), and draws ``docs/learning_curve.png``.

python benchmarks/learning_curve.py          # after default_recipe.py; 6 minutes on two cores
"""

import statistics
from collections.abc import Sequence

from common import RESULTS, ROOT, Record, SavedRuns, arguments, header, numbers, run_train
from matplotlib.figure import Figure
from tutorial import DATA_DIR

FIGURE = ROOT / "docs" / "learning_curve.png"


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=numbers, default=[42, 43, 44])
    args = parser.parse_args()
    print(header(), flush=True)
    recipe = SavedRuns(RESULTS / "default_recipe.json", num_cycles=5, max_epochs=None).runs
    random = SavedRuns(RESULTS / "default_recipe_random.json")
    for seed in args.seeds:
        if f"seed {seed}" not in random.runs:
            cycles, _ = run_train(
                f"--data.data_dir={DATA_DIR}",
                f"--active.seed={seed}",
                "--active.strategy=random",
            )
            random.save(f"seed {seed}", {"seed": seed, "cycles": cycles})
    runs = [recipe[f"seed {seed}"] for seed in args.seeds]
    curves = {
        "least confidence": [run["ours"]["cycles"] for run in runs],
        "random queries, same recipe": [random.runs[f"seed {s}"]["cycles"] for s in args.seeds],
        "the plain tutorial": [run["tutorial"]["cycles"] for run in runs],
    }
    for name, seeds in curves.items():
        finals = [cycles[-1]["test_acc"] for cycles in seeds]
        print(f"{name:<30} {statistics.mean(finals):.4f}  {finals}")
    FIGURE.parent.mkdir(exist_ok=True)
    draw(curves).savefig(FIGURE, dpi=110)


def draw(curves: dict[str, list[list[Record]]]) -> Figure:
    """Mean accuracy over seeds against labels, with every seed as a faint line."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    styles = zip(("C0", "C1", "C7"), ("o", "s", "^"), ("-", "--", ":"), strict=True)
    for (name, seeds), (color, marker, line) in zip(curves.items(), styles, strict=True):
        labels = [cycle["num_labeled"] for cycle in seeds[0]]
        for cycles in seeds:
            axes.plot(labels, accuracies(cycles), color=color, alpha=0.25, linewidth=1)
        means = [statistics.mean(column) for column in zip(*map(accuracies, seeds), strict=True)]
        text = f"{name}, {means[-1]:.4f}"
        axes.plot(labels, means, color=color, marker=marker, linestyle=line, label=text)
    axes.set(xlabel="labels", ylabel="test accuracy", ylim=(0.9, 1), xticks=labels)
    axes.set_title(
        f"MNIST, seeds averaged: {len(seeds)}; at {labels[-1]:,.0f} labels in the legend"
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    return figure


def accuracies(cycles: Sequence[Record]) -> list[float]:
    """Test accuracy of each cycle."""
    return [cycle["test_acc"] for cycle in cycles]


if __name__ == "__main__":
    main()
