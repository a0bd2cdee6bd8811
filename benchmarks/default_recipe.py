"""The default recipe: ``train.py`` against the tutorial, accuracy and wall time.

For each seed the tutorial's whole run and then ``python train.py``'s, in one process, both from
the MNIST files to the last test; ours writes its whole run folder, the tutorial draws nothing. The
promises: a mean final accuracy of at least .9900 in at most the tutorial's time. Each finished pair
is saved at once, and a pair that the file holds is not repeated.

python benchmarks/default_recipe.py          # seeds 42 to 44, about 20 minutes on two cores
"""

import statistics
import time
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
    spread,
    verdict,
)
from tutorial import DATA_DIR, NUM_CYCLES, run_tutorial

from al_lightning.mnist import ensure_mnist

PHASES = ["fit", "test", "predict", "query"]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=numbers, default=[42, 43, 44])
    parser.add_argument("--cycles", type=int, default=NUM_CYCLES, help="fewer, to try the script")
    parser.add_argument("--epochs", type=int, help="fewer, to try the script")
    parser.add_argument("--output", type=Path, default=RESULTS / "default_recipe.json")
    args = parser.parse_args()
    ensure_mnist(DATA_DIR)
    print(header(), flush=True)
    saved = SavedRuns(args.output, num_cycles=args.cycles, max_epochs=args.epochs)
    for seed in args.seeds:
        if f"seed {seed}" not in saved.runs:
            tutorial = run_theirs(seed, args.cycles)
            ours = run_ours(seed, args.cycles, args.epochs)
            saved.save(f"seed {seed}", {"seed": seed, "tutorial": tutorial, "ours": ours})
    report([run for run in saved.runs.values() if run["seed"] in args.seeds])


def run_theirs(seed: int, num_cycles: int) -> Record:
    """The tutorial: wall time, seconds by phase, and the cycles."""
    begin = time.perf_counter()
    cycles = run_tutorial(seed, num_cycles=num_cycles)
    seconds = time.perf_counter() - begin
    phases = {p: sum(c["seconds"].get(p, 0.0) for c in cycles) for p in PHASES}
    return {"wall": seconds, "phases": phases, "cycles": cycles}


def run_ours(seed: int, num_cycles: int, max_epochs: int | None) -> Record:
    """``train.py`` with its defaults: wall time, seconds by phase, and the cycles."""
    options = [f"--data.data_dir={DATA_DIR}", f"--active.seed={seed}"]
    if num_cycles != NUM_CYCLES:
        options.append(f"--active.num_cycles={num_cycles}")
    if max_epochs is not None:
        options.append(f"--trainer.max_epochs={max_epochs}")
    cycles, seconds = run_train(*options)
    phases = {p: sum(c.get(f"{p}_seconds", 0.0) for c in cycles) for p in PHASES}
    return {"wall": seconds, "phases": phases, "cycles": cycles}


def report(runs: list[Record]) -> None:
    """Accuracy and time by seed, the two promises, and where the time goes."""
    print(f"\n{'seed':<6}{'tutorial acc':>14}{'ours acc':>12}{'tutorial s':>12}{'ours s':>9}")
    for run in sorted(runs, key=lambda run: int(run["seed"])):
        theirs, ours = run["tutorial"], run["ours"]
        accuracies = f"{last_acc(theirs):>14.4f}{last_acc(ours):>12.4f}"
        print(f"{run['seed']:<6}{accuracies}{theirs['wall']:>12.1f}{ours['wall']:>9.1f}")
    mean = statistics.mean(last_acc(run["ours"]) for run in runs)
    print(f"mean accuracy of ours              {mean:.4f}  {verdict(mean, at_least=0.99)}")
    walls = {side: [run[side]["wall"] for run in runs] for side in ("ours", "tutorial")}
    print(ratio_line("wall time, ours / tutorial", walls["ours"], walls["tutorial"], at_most=1))
    print("\nseconds of a run                   tutorial                ours")
    for phase in [*PHASES, "rest"]:
        cells = [spread([seconds_of(run[s], phase) for run in runs]) for s in ("tutorial", "ours")]
        print(f"{phase:<35}{cells[0]:<24}{cells[1]}")


def last_acc(side: Record) -> float:
    """Test accuracy after the last cycle."""
    return float(side["cycles"][-1]["test_acc"])


def seconds_of(side: Record, phase: str) -> float:
    """Seconds of a phase over the whole run; ``rest`` is what no phase claims."""
    phases: dict[str, float] = side["phases"]
    return side["wall"] - sum(phases.values()) if phase == "rest" else phases[phase]


if __name__ == "__main__":
    main()
