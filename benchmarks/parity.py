"""Parity: ``train.py --config configs/tutorial.yaml`` learns what the tutorial learns.

For each seed three runs: the tutorial, ours, and ours with random queries. The promises: the mean
final accuracies of the tutorial and ours differ by at most .012, and ours is above random queries
by at least .005. Each finished run is saved at once, and a run that the file holds is not repeated;
nor is a run of the tutorial that ``default_recipe.py`` has saved.

python benchmarks/parity.py                  # seeds 42 to 46, 25 minutes on two cores at most
python benchmarks/parity.py --seeds 42,43
"""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import RESULTS, Record, SavedRuns, arguments, header, numbers, run_train, verdict
from tutorial import DATA_DIR, NUM_CYCLES, run_tutorial

from al_lightning.mnist import ensure_mnist

TUTORIAL, OURS, RANDOM = "tutorial", "ours", "ours, random"


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=numbers, default=[42, 43, 44, 45, 46])
    parser.add_argument("--cycles", type=int, default=NUM_CYCLES, help="fewer, to try the script")
    parser.add_argument("--output", type=Path, default=RESULTS / "parity.json")
    args = parser.parse_args()
    ensure_mnist(DATA_DIR)
    print(header(), flush=True)
    saved = SavedRuns(args.output, num_cycles=args.cycles)
    for seed in args.seeds:
        for side, run in sides(seed, args.cycles).items():
            if f"{side}, seed {seed}" not in saved.runs:
                saved.save(f"{side}, seed {seed}", {"side": side, "seed": seed, "cycles": run()})
    report([run for run in saved.runs.values() if run["seed"] in args.seeds])


def sides(seed: int, num_cycles: int) -> dict[str, Callable[[], list[Any]]]:
    """What is compared, for one seed."""

    def ours(*more: str) -> list[Record]:
        return run_train(
            "--config=configs/tutorial.yaml",
            f"--data.data_dir={DATA_DIR}",
            f"--active.seed={seed}",
            f"--active.num_cycles={num_cycles}",
            *more,
        )[0]

    def tutorial() -> list[Any]:
        if num_cycles == NUM_CYCLES:  # else a quick try, of which that file holds nothing
            settings = {"num_cycles": NUM_CYCLES, "max_epochs": None}
            saved = SavedRuns(RESULTS / "default_recipe.json", **settings)
            if f"seed {seed}" in saved.runs:
                cycles: list[Any] = saved.runs[f"seed {seed}"]["tutorial"]["cycles"]
                return cycles
        return run_tutorial(seed, num_cycles=num_cycles)

    return {
        TUTORIAL: tutorial,
        OURS: ours,
        RANDOM: lambda: ours("--active.strategy=random"),
    }


def report(runs: list[Record]) -> None:
    """Final accuracies by seed, their means, and the two promises."""
    final = {(run["side"], run["seed"]): run["cycles"][-1]["test_acc"] for run in runs}
    names = [TUTORIAL, OURS, RANDOM]
    print(f"\nfinal test accuracy\n{'seed':<6}" + "".join(f"{name:>14}" for name in names))
    for seed in sorted({seed for _, seed in final}):
        print(f"{seed:<6}" + "".join(f"{final[name, seed]:>14.4f}" for name in names))
    mean = {
        name: statistics.mean(value for (side, _), value in final.items() if side == name)
        for name in names
    }
    print(f"{'mean':<6}" + "".join(f"{mean[name]:>14.4f}" for name in names))
    sizes = {name: [c["num_labeled"] for c in r["cycles"]] for r in runs for name in [r["side"]]}
    assert len({tuple(size) for size in sizes.values()}) == 1, f"sizes differ: {sizes}"
    gap, margin = abs(mean[OURS] - mean[TUTORIAL]), mean[OURS] - mean[RANDOM]
    print(f"|ours - tutorial|  {gap:.4f}  {verdict(gap, at_most=0.012)}")
    print(f"ours - random      {margin:+.4f}  {verdict(margin, at_least=0.005)}")


if __name__ == "__main__":
    main()
