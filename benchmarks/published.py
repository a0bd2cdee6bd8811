"""Our runs under the protocols of the published tables, one experiment at a time.

tutorial_sizes   1,000 labels, 500 a cycle, to 3,000: the default recipe
all_labels       the same recipe on all 60,000 labels
match_all        the same recipe from 1,000 to 8,000 labels: where does it reach all_labels?
thousand_labels  100 labels to 1,000, 100 a cycle, eleven strategies;
                 --full: 20 labels to 1,000, 10 a cycle
few_labels       BatchBALD's network and protocol, 20 labels to 150 out of 10,000 images;
                 --full: out of 60,000, to 300, 100 samples, six seeds
repeated         Repeated-MNIST, each image five times with noise, 20 labels to 300 out of 2,000
                 images; --full: out of 60,000, six seeds
gal              Gal's network, 20 labels to 100 out of 10,000; --full: to 1,000 out of 60,000

Each is a comparison in ``runs/published/NAME``, which goes on where it was stopped; its small files
are copied to ``benchmarks/results/NAME``. --full is meant for a GPU.
"""

import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from common import RESULTS, ROOT, arguments, header, numbers
from paper_data import PaperMNIST
from paper_networks import BatchBALDNet, GalNet, early_stopping

from al_lightning import ActiveMNISTDataModule, LitSimpleCNN
from al_lightning.compare import CompareCLI, Comparison, compare
from al_lightning.mnist import RECIPE

KEPT = ("results.csv", "summary.csv", "summary.md", "curves.png", "efficiency.png", "penalty.png")
DATA = ROOT / "data"


def recipe(strategies: str, *flags: str, seeds: list[int], **options: Any) -> Comparison:
    """A comparison under the default recipe, as ``python -m al_lightning.compare`` makes it."""
    given = {"strategies": strategies, "seeds": ",".join(map(str, seeds)), **options}
    args = [f"--{name}={value}" for name, value in given.items() if value is not None]
    args += [f"--data.data_dir={DATA}", *flags]
    return CompareCLI(LitSimpleCNN, ActiveMNISTDataModule, config_file=RECIPE, args=args).comparison


def tutorial_sizes(full: bool, **options: Any) -> Comparison:
    return recipe("random,least_confidence,margin", **options)


def all_labels(full: bool, **options: Any) -> Comparison:
    return recipe("random", "--data.initial_labeled_size=60000", "--active.num_cycles=1", **options)


def match_all(full: bool, **options: Any) -> Comparison:
    return recipe("margin", "--active.num_cycles=15", **options)


def thousand_labels(full: bool, **options: Any) -> Comparison:
    flags = [
        "--data.epoch_size=1000",
        f"--data.initial_labeled_size={20 if full else 100}",
        f"--active.acquisition_size={10 if full else 100}",
        f"--active.num_cycles={99 if full else 10}",
        f"--active.candidate_size={'null' if full else 10000}",
    ]
    plain = ["random", "least_confidence", "margin", "entropy", "core_set", "badge", "typiclust"]
    own = {name: {} for name in [*plain, "probcover", "cluster_margin"]}
    own |= {name: {"mc_samples": 10} for name in ("bald", "power_bald")}
    return recipe(str(own), *flags, thresholds="0.95,0.97", **options)


def paper(
    network: Callable[[], Any], strategies: str, num_cycles: int, mc_samples: int, **options: Any
) -> Callable[..., Comparison]:
    """A comparison under the protocol of Kirsch et al. 2019: 10 labels a cycle, early stopping."""
    return partial(
        compare,
        network,
        trainer=early_stopping,
        strategies=strategies.split(","),
        acquisition_size=10,
        num_cycles=num_cycles,
        mc_samples=mc_samples,
        **options,
    )


def few_labels(full: bool, **options: Any) -> Comparison:
    run = paper(
        BatchBALDNet,
        "random,bald,batchbald",
        num_cycles=29 if full else 14,
        mc_samples=100 if full else 20,
        thresholds=(0.9, 0.95),
    )
    data = partial(PaperMNIST, DATA, num_images=None if full else 10_000)
    return run(data=data, interval=(20, 250 if full else 150), **options)


def repeated(full: bool, **options: Any) -> Comparison:
    run = paper(
        BatchBALDNet,
        "random,bald,batchbald,power_bald",
        num_cycles=29,
        mc_samples=10,
        thresholds=(0.9, 0.95),
    )
    images = None if full else 2_000
    data = partial(PaperMNIST, DATA, num_images=images, copies=5, noise=0.1)
    return run(data=data, **options)


def gal(full: bool, **options: Any) -> Comparison:
    run = paper(
        GalNet,
        "random,bald,variation_ratio,entropy,mean_std",
        num_cycles=99 if full else 9,
        mc_samples=100 if full else 20,
        thresholds=(0.9, 0.95),
    )
    return run(data=partial(PaperMNIST, DATA, num_images=None if full else 10_000), **options)


SEEDS = {
    "tutorial_sizes": [42, 43, 44],
    "all_labels": [42],
    "match_all": [42],
    "thousand_labels": [42, 43],
    "few_labels": [42, 43, 44],
    "repeated": [42, 43],
    "gal": [42, 43],
}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("experiment", choices=SEEDS)
    parser.add_argument("--seeds", type=numbers, help="42,43,44")
    parser.add_argument("--full", action="store_true", help="the paper's own sizes")
    parser.add_argument("--jobs", type=int, help="runs at a time")
    given = parser.parse_args()
    sys.argv = sys.argv[:1]  # the comparison has a command line of its own
    print(header())
    name = given.experiment + ("_full" if given.full else "")
    out = ROOT / "runs" / "published" / name
    seeds = given.seeds or (list(range(42, 48)) if given.full else SEEDS[given.experiment])
    globals()[given.experiment](given.full, seeds=seeds, out=out, jobs=given.jobs)
    kept: Path = RESULTS / name
    kept.mkdir(parents=True, exist_ok=True)
    for file in KEPT:
        shutil.copy(out / file, kept / file)
    (kept / "on.txt").write_text(header() + "\n")
    print((kept / "summary.md").read_text())


if __name__ == "__main__":
    main()
