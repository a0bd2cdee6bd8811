"""The patient recipe: accuracy at 3,000 labels in at most twice the default recipe's time.

For each seed ``train.py`` with its defaults and then with ``configs/patient.yaml``, in one process,
from the MNIST files to the last test. The promises: a mean final accuracy of at least .9930, in at
most twice the time. A pair that the file holds is not repeated.

python benchmarks/patient_recipe.py          # seeds 42 to 46, about 15 minutes on two cores
"""

import statistics
from pathlib import Path

from common import (
    RESULTS,
    Record,
    SavedRuns,
    arguments,
    header,
    numbers,
    ratio_line,
    run_train,
    verdict,
)
from tutorial import DATA_DIR

from al_lightning.mnist import ensure_mnist
from al_lightning.statistics import mean_interval

RECIPES = {"default": [], "patient": ["--config=configs/patient.yaml"]}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=numbers, default=[42, 43, 44, 45, 46])
    parser.add_argument("--output", type=Path, default=RESULTS / "patient_recipe.json")
    args = parser.parse_args()
    ensure_mnist(DATA_DIR)
    print(header(), flush=True)
    saved = SavedRuns(args.output, recipes=RECIPES)
    for seed in args.seeds:
        if f"seed {seed}" not in saved.runs:
            pair: Record = {"seed": seed}
            for name, options in RECIPES.items():
                given = [f"--data.data_dir={DATA_DIR}", f"--active.seed={seed}", *options]
                cycles, seconds = run_train(*given)
                pair[name] = {"wall": seconds, "test_acc": [c["test_acc"] for c in cycles]}
            saved.save(f"seed {seed}", pair)
    report([run for run in saved.runs.values() if run["seed"] in args.seeds])


def report(runs: list[Record]) -> None:
    """Accuracy and time by seed, and the two promises."""
    for run in runs:
        cells = [
            f"{name} {run[name]['test_acc'][-1]:.4f} {run[name]['wall']:.0f} s" for name in RECIPES
        ]
        print(f"seed {run['seed']}: {', '.join(cells)}")
    for name in RECIPES:
        last = [run[name]["test_acc"][-1] for run in runs]
        print(f"{name:<10} {mean_interval(last)}")
    mean = statistics.mean(run["patient"]["test_acc"][-1] for run in runs)
    print(f"patient, mean                      {mean:.4f}  {verdict(mean, at_least=0.993)}")
    walls = {name: [run[name]["wall"] for run in runs] for name in RECIPES}
    print(ratio_line("wall time, patient / default", walls["patient"], walls["default"], at_most=2))


if __name__ == "__main__":
    main()
