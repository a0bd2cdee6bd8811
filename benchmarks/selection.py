"""Selectors on large pools: is the cost linear in the rows, and the memory bounded?

Time and peak memory of core-set, BADGE and TypiClust at 125,000 to a million rows of 128 numbers,
1,000 picks; BatchBALD over 59,000 rows of 100 posterior samples; and what the row-wise scores take
beside the prediction of the pool that they read. Linear means that the time a row, against that at
the smallest size, stays near 1. Promised: memory, embeddings included, under 1.5 times the
embeddings at a million rows; under 2 GiB for BatchBALD beside its input; scores under 5 %.

python benchmarks/selection.py               # about two minutes on two cores
python benchmarks/selection.py --rows 20000,40000 --num 100
"""

import statistics
import time
from collections.abc import Callable

import torch
from common import PeakMemory, arguments, header, interleaved, numbers, verdict
from rows import C, features, posterior, predictions, seeded
from torch import Tensor

from al_lightning import LitSimpleCNN
from al_lightning.acquisition import (
    badge,
    bald,
    batchbald,
    core_set,
    entropy,
    least_confidence,
    margin,
    top_k,
    typiclust,
)

SIZES = [125_000, 250_000, 500_000, 1_000_000]
POOL_ROWS = 60_000


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=numbers, default=SIZES)
    parser.add_argument("--num", type=int, default=1000)
    args = parser.parse_args()
    print(header(), flush=True)
    share_of_scores()
    batchbald_of_the_whole_pool()
    for name, select in SELECTORS.items():
        scale(name, select, args.rows, args.num)


SELECTORS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "core_set": lambda x, probs, num: core_set(x, x[:0], num),
    "badge": lambda x, probs, num: badge(probs, x, num, seeded()),
    "typiclust": lambda x, probs, num: typiclust(x, x[:0], num, seeded()),
}


def scale(
    name: str, select: Callable[[Tensor, Tensor, int], Tensor], sizes: list[int], num: int
) -> None:
    """Time a row and memory at each size."""
    small = features(2 * num)
    select(small, predictions(small), num)  # what is loaded once is nobody's time
    a_row: list[float] = []
    for N in sizes:
        x = features(N)
        probs = predictions(x)
        with PeakMemory() as memory:
            begin = time.perf_counter()
            chosen = select(x, probs, num)
            seconds = time.perf_counter() - begin
        assert len(set(chosen.tolist())) == num
        a_row.append(seconds / N)
        share = 1 + memory.peak / (x.nbytes / 1e6)
        print(
            f"{name:<10} {N:>9,} rows: {seconds:6.1f} s, a row {a_row[-1] / a_row[0]:.2f} of the "
            f"first size's; peak memory {share:.2f} of the embeddings"
            + (f"  {verdict(share, at_most=1.5)}" if sizes[-1] == N else ""),
            flush=True,
        )


def share_of_scores() -> None:
    """Each score and its top 500, against the network's pass over as many images."""
    model = LitSimpleCNN(dropout=0.5).eval()
    images = torch.rand(64, 1, 28, 28)
    probs_NC = torch.randn(POOL_ROWS, C, generator=seeded()).softmax(-1)
    probs_NKC = torch.randn(POOL_ROWS, 20, C, generator=seeded()).softmax(-1)

    def predict() -> None:  # a sixteenth of the pool
        with torch.inference_mode():
            for _ in range(POOL_ROWS // 64 // 16):
                model(images)

    sides = {
        "prediction": predict,
        "least_confidence": lambda: top_k(least_confidence(probs_NC), 500),
        "margin": lambda: top_k(margin(probs_NC), 500),
        "entropy": lambda: top_k(entropy(probs_NC), 500),
        "bald, 20 samples": lambda: top_k(bald(probs_NKC), 500),
    }
    seconds = interleaved(sides, 5)
    whole = [16 * value for value in seconds.pop("prediction")]
    for name, values in seconds.items():
        share = statistics.median(a / b for a, b in zip(values, whole, strict=True))
        promise = verdict(share, at_most=0.05)
        print(f"{name:<18} {share:.2%} of one prediction of {POOL_ROWS:,} images  {promise}")


def batchbald_of_the_whole_pool() -> None:
    """59,000 rows, 100 posterior samples, ten picks."""
    probs_NKC = posterior(59_000, 100).float()
    batchbald(probs_NKC[:500], 3, seeded())
    with PeakMemory() as memory:
        begin = time.perf_counter()
        batchbald(probs_NKC, 10, seeded())
        seconds = time.perf_counter() - begin
    print(
        f"batchbald, 59,000 rows, K = 100, b = 10: {seconds:.0f} s, peak memory {memory.peak:.0f} "
        f"MB beside {probs_NKC.nbytes / 1e6:.0f}  {verdict(memory.peak, at_most=2147)}",
        flush=True,
    )


if __name__ == "__main__":
    main()
