"""The comparisons of ``peers.py``, in the environment that it makes: run that one.

First agreement: BatchBALD's picks and scores, core-set's picks, the spread of BADGE's. Then time,
in turn A B A B.
"""

import statistics
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from batchbald_redux import batchbald as redux
from batchbald_redux import joint_entropy as redux_joint
from common import arguments, header, interleaved, ratio_line, spread
from rows import C, D, features, posterior, predictions, seeded
from skactiveml.base import SkactivemlClassifier
from skactiveml.pool import Badge, CoreSet, MaxHerding, ProbCover, TypiClust
from torch import Tensor

from al_lightning.acquisition import (
    badge,
    batchbald,
    core_set,
    max_herding,
    probcover,
    typiclust,
)
from al_lightning.acquisition.joint_entropy import joint_entropy

# The peer holds N x N distances in float64, 29 GB at 60,000 rows.
PROBCOVER_ROWS = 20_000


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--num", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=list(COMPARISONS), choices=list(COMPARISONS))
    args = parser.parse_args()
    print(header(), flush=True)
    for name in args.only:
        COMPARISONS[name](args.rows, args.num, args.repeats)


def no_bar(steps: Any = None, **settings: Any) -> Any:
    """In the place of the peer's progress bar, so that its drawing is not timed."""
    return _Silent(steps)


class _Silent:
    def __init__(self, steps: Any) -> None:
        self._steps = steps

    def __iter__(self) -> Any:
        return iter(self._steps)

    def update(self, num: int) -> None: ...
    def close(self) -> None: ...


redux.tqdm = redux_joint.tqdm = no_bar


def report(name: str, seconds: dict[str, list[float]], at_least: float) -> None:
    for side, values in seconds.items():
        print(f"  {side:<32} {spread(values)} s")
    print("  " + ratio_line(f"{name}, peer / ours", *seconds.values(), at_least=at_least))
    sys.stdout.flush()


# ---- BatchBALD -----------------------------------------------------------------------------------


def compare_batchbald(rows: int, num: int, repeats: int) -> None:
    """The exact joint: same picks, same scores; then time, and the error of sampled joints."""
    print("BatchBALD: N = 2,000, K = 20, C = 10, b = 5")
    probs_NKC = posterior(2000, 20)
    # C^4 outcomes of four rows: the fifth is the last to be scored exactly.
    theirs = redux.get_batchbald_batch(probs_NKC.log(), 5, 10_000, dtype=torch.float64)
    ours = batchbald(probs_NKC, 5, seeded())
    gap = max(
        abs(joint_information(probs_NKC[ours[: b + 1]]) - s) for b, s in enumerate(theirs.scores)
    )
    print(f"  exact: same picks {ours.tolist() == list(theirs.indices)}, scores within {gap:.1e}")
    for seed in (3, 4):
        rows_BKC = posterior(6 + seed, 20)[-6:]
        compare_joint_entropies(rows_BKC, 10_000)

    def peer() -> None:
        torch.manual_seed(0)
        redux.get_batchbald_batch(probs_NKC.log(), 5, 10_000, dtype=torch.float64)

    def own() -> None:
        batchbald(probs_NKC, 5, seeded())

    report("BatchBALD", interleaved({"batchbald-redux": peer, "ours": own}, repeats), 10)


def joint_information(probs_BKC: Tensor) -> float:
    """I(y_1..y_B; w), from every outcome."""
    joint = joint_entropy(probs_BKC, generator=seeded(), max_configurations=10**6)
    noise = torch.special.entr(probs_BKC).sum(-1).mean(1).sum()
    return float(joint - noise)


def compare_joint_entropies(rows_BKC: Tensor, num_samples: int) -> None:
    """Error of both estimates of one joint entropy, from as many samples, over 30 seeds."""
    exact = float(joint_entropy(rows_BKC, generator=seeded(), max_configurations=10**7))
    ours, theirs = [], []
    for seed in range(30):
        drawn = joint_entropy(rows_BKC, generator=seeded(seed), max_configurations=num_samples)
        ours.append(float(drawn) - exact)
        torch.manual_seed(seed)
        estimate = redux_joint.SampledJointEntropy.sample(rows_BKC[:-1], num_samples)
        theirs.append(float(estimate.compute_batch(rows_BKC[-1:].log())) - exact)
    print(
        f"  sampled joint of six rows, H = {exact:.3f}: root mean square error ours "
        f"{rms(ours):.1e}, batchbald-redux {rms(theirs):.1e}"
    )


def rms(errors: list[float]) -> float:
    return statistics.fmean(error**2 for error in errors) ** 0.5


# ---- core-set and BADGE --------------------------------------------------------------------------


def unlabeled_but_first(num_rows: int) -> np.ndarray:
    """The peer's labels: it marks what is unlabeled with NaN, and asks for one label at least."""
    y = np.full(num_rows, np.nan)
    y[0] = 0
    return y


def compare_core_set(rows: int, num: int, repeats: int) -> None:
    """The same first labeled row: the same picks, unless rows tie."""
    print(f"core-set: N = {rows:,}, D = {D}, pick {num}")
    x = features(rows)
    y, table = unlabeled_but_first(rows), x.numpy()
    small = 2000
    theirs = CoreSet(random_state=0).query(table[:small], y[:small], batch_size=50)
    ours = core_set(x[1:small], x[:1], 50) + 1
    print(f"  same 50 picks of {small:,} rows: {ours.tolist() == list(theirs)}")

    def peer() -> None:
        CoreSet(random_state=0).query(table, y, batch_size=num)

    def own() -> None:
        core_set(x[1:], x[:1], num)

    report(
        "core-set", interleaved({"scikit-activeml": peer, "ours": own}, repeats, warm_up=False), 10
    )


class Fixed(SkactivemlClassifier):  # type: ignore[misc]
    """Gives the probabilities of a table; nothing is fitted."""

    def __init__(self, table: Any = None, classes: Any = None) -> None:
        super().__init__(classes=classes)
        self.table = table

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "Fixed":
        return self

    def predict_proba(self, X: Any) -> Any:
        return self.table[: len(X)]


def compare_badge(rows: int, num: int, repeats: int) -> None:
    """Draws differ, so the sum of squared distances to the picks is compared over seeds."""
    print(f"BADGE: N = {rows:,}, C = {C}, D = {D}, pick {num}")
    x = features(rows)
    probs, y = predictions(x), unlabeled_but_first(rows)

    def peer_picks(n: int, batch: int, seed: int) -> Tensor:
        fixed = Fixed(probs[1:n].numpy(), classes=list(range(C)))
        query = Badge(random_state=seed).query
        picks = query(x[:n].numpy(), y[:n], fixed, fit_clf=False, batch_size=batch)
        return torch.as_tensor(np.asarray(picks)) - 1

    small, seeds = 2000, range(10)
    pool = probs[1:small], x[1:small]
    theirs = [potential(*pool, peer_picks(small, 50, seed)) for seed in seeds]
    ours = [potential(*pool, badge(*pool, 50, seeded(seed))) for seed in seeds]
    print(f"  squared distance left, ours / peer, ten seeds: {mean_ratio(ours, theirs)}")

    def peer() -> None:
        peer_picks(rows, num, 0)

    def own() -> None:
        badge(probs[1:], x[1:], num, seeded())

    report("BADGE", interleaved({"scikit-activeml": peer, "ours": own}, repeats, warm_up=False), 10)


def potential(probs_NC: Tensor, x_ND: Tensor, picks: Tensor) -> float:
    """Sum over rows of the squared distance of gradients to the nearest pick's, written out."""
    error_NC = probs_NC - torch.nn.functional.one_hot(probs_NC.argmax(-1), C)
    gradients = torch.einsum("nc,nd->ncd", error_NC, x_ND).flatten(1).double()
    return float(torch.cdist(gradients, gradients[picks]).amin(1).square().sum())


def mean_ratio(ours: list[float], theirs: list[float]) -> str:
    ratio = statistics.fmean(ours) / statistics.fmean(theirs)
    noise = statistics.stdev(ours) / statistics.fmean(ours) / len(ours) ** 0.5
    return f"{ratio:.3f}, standard error of either {noise:.3f}"


# ---- TypiClust and ProbCover ---------------------------------------------------------------------


def compare_typiclust(rows: int, num: int, repeats: int) -> None:
    """Both cluster by k-means, the peer with scikit-learn's."""
    print(f"TypiClust: N = {rows:,}, D = {D}, pick {num}")
    x = features(rows)
    y = np.full(rows, np.nan)

    def peer() -> None:
        TypiClust(random_state=0).query(x.numpy(), y, batch_size=num)

    def own() -> None:
        typiclust(x, x[:0], num, seeded())

    report(
        "TypiClust", interleaved({"scikit-activeml": peer, "ours": own}, repeats, warm_up=False), 5
    )


def compare_probcover(rows: int, num: int, repeats: int) -> None:
    """At a size that the peer's table of all pairs fits; the same radius for both."""
    rows = min(rows, PROBCOVER_ROWS)
    print(f"ProbCover: N = {rows:,}, D = {D}, pick {num}")
    x = features(rows)
    y = np.full(rows, np.nan)
    delta = 3.0

    def peer() -> None:
        query = ProbCover(random_state=0, n_classes=C, deltas=np.array([delta])).query
        query(x.numpy(), y, batch_size=num)

    def own() -> None:
        probcover(x, x[:0], num, seeded(), delta=delta)

    report(
        "ProbCover", interleaved({"scikit-activeml": peer, "ours": own}, repeats, warm_up=False), 5
    )


# ---- herding -------------------------------------------------------------------------------------


def compare_max_herding(rows: int, num: int, repeats: int) -> None:
    """The same kernel; a large N would be a sample of ours, and a table of the peer's."""
    rows, num = min(rows, PROBCOVER_ROWS), min(num, 100)
    print(f"MaxHerding: N = {rows:,}, D = {D}, pick {num}")
    x = features(rows)
    y = np.full(rows, np.nan)

    def peer(rows: int, num: int) -> Any:
        query = MaxHerding(metric_dict={"gamma": 1.0}, random_state=0).query
        return query(x[:rows].numpy(), y[:rows], batch_size=num)

    small = 3000
    theirs, ours = peer(small, 50), max_herding(x[:small], x[:0], 50)
    print(f"  same 50 picks of {small:,} rows: {ours.tolist() == list(theirs)}")
    sides = {
        "scikit-activeml": lambda: peer(rows, num),
        "ours": lambda: max_herding(x, x[:0], num),
    }
    report("MaxHerding", interleaved(sides, repeats, warm_up=False), 10)


COMPARISONS: dict[str, Callable[[int, int, int], None]] = {
    "batchbald": compare_batchbald,
    "core_set": compare_core_set,
    "badge": compare_badge,
    "typiclust": compare_typiclust,
    "probcover": compare_probcover,
    "max_herding": compare_max_herding,
}


if __name__ == "__main__":
    main()
