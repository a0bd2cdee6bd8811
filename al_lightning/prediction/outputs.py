"""The predictions of a batch as one value, whatever the module returned; with torch alone.

Shape suffixes: B batch rows, P parts of a row, K posterior samples, C classes, O predicted numbers,
D embedding dimensions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from al_lightning.acquisition.over_parts import OverParts

MAP_SIDE = 64
"""Height and width of a map for a person, in pixels."""


@dataclass(frozen=True)
class Outputs:
    """Holds a model's predictions of B rows: a bag of distributions, numbers, or a score.

    Attributes:
        probs: (B, [P,] [K,] C), for a model that predicts classes.
        embedding: (B, D), for a model that gives one.
        num_samples: K; None without posterior samples or ensemble members.
        mask: (B, P) bool, which parts are there; None where a row is one distribution.
        mean: (B, [K,] O), for a model that predicts numbers.
        variance: (B, [K,] O), if it predicts that too.
        score: (B,), the module's own, higher = label sooner.
        flips: (B, K), 1 where a sample's likeliest class is not that of the network without
            dropout, else 0; None where such a network is not known.
        size: (H, W), where the P parts are the pixels of a picture, row by row.
    """

    probs: Tensor | None = None
    embedding: Tensor | None = None
    num_samples: int | None = None
    mask: Tensor | None = None
    mean: Tensor | None = None
    variance: Tensor | None = None
    score: Tensor | None = None
    flips: Tensor | None = None
    size: tuple[int, ...] | None = None

    def __len__(self) -> int:
        """Return B."""
        return next(len(t) for t in (self.probs, self.mean, self.score) if t is not None)

    @property
    def mean_probs(self) -> Tensor | None:
        """Return (B, [P,] C), averaged over the samples where there are any."""
        if self.probs is None or self.num_samples is None:
            return self.probs
        return self.probs.mean(-2)

    @property
    def mean_mean(self) -> Tensor | None:
        """Return the predicted numbers (B, O), averaged over the samples where there are any."""
        if self.mean is None or self.num_samples is None:
            return self.mean
        return self.mean.mean(1)

    @property
    def map(self) -> Tensor | None:
        """Return the likeliest class of each pixel, (B, 64, 64) uint8, the nearest of the picture.

        It is (B, 0, 0) where the parts are not the pixels of a picture.
        """
        if self.mean_probs is None or self.mask is None:
            return None
        if self.size is None:
            return self.mask.new_zeros(len(self), 0, 0, dtype=torch.uint8)
        H, W = self.size
        rows, columns = (
            torch.arange(MAP_SIDE, device=self.device) * side // MAP_SIDE for side in (H, W)
        )
        parts_hw = rows[:, None] * W + columns
        return self.mean_probs[:, parts_hw].argmax(-1).to(torch.uint8)

    @property
    def deviation(self) -> Tensor | None:
        """Return the standard deviation (B, O) of the labels, as far as the model tells it."""
        if self.mean is None or (self.variance is None and self.num_samples is None):
            return None
        noise = torch.zeros_like(self.mean) if self.variance is None else self.variance
        if self.num_samples is None:
            return noise.sqrt()
        return (noise.mean(1) + self.mean.var(1, correction=0)).sqrt()

    @property
    def is_finite(self) -> Tensor:
        """Tell of each row (B,) whether all that is predicted of it is finite."""
        others = [t for t in (self.mean, self.variance, self.score) if t is not None]
        finite = [t.reshape(len(t), -1).isfinite().all(1) for t in others]
        if self.probs is not None:  # a sum is one pass, and is not finite when a summand is not
            if self.mask is None or self.mask.all():
                finite.append(self.probs.sum(tuple(range(1, self.probs.ndim))).isfinite())
            else:
                finite_BP = self.probs.flatten(2).sum(-1).isfinite()
                finite.append((finite_BP | ~self.mask).all(1))
        return finite[0] if len(finite) == 1 else torch.stack(finite).all(0)

    @property
    def device(self) -> torch.device:
        """Return the device that predicted."""
        return next(t.device for t in (self.probs, self.mean, self.score) if t is not None)

    @property
    def prediction(self) -> dict[str, Tensor]:
        """Return what is there by name, as a ``predict_step`` does."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def column(self, column: Callable[..., Tensor] | str, needed: Sequence[str]) -> Tensor | None:
        """Return a column (B, ...) that a strategy keeps; None when the model does not give it.

        Args:
            column: The name of an output, which is kept whole, or a score.
            needed: The outputs that it is made of.

        Raises:
            ValueError: when a score needs a variance and the model gives none; as the score does.
        """
        if column == "mean":
            return self.mean_mean
        if column == "flips":
            return self._flips()
        if column == "class":
            return (
                None if self.mean_probs is None else self.mean_probs.argmax(-1).to(self.mean_probs)
            )
        if isinstance(column, str):
            whole: Tensor | None = getattr(self, column)
            return whole
        return self._of_numbers(column, needed) if "mean" in needed else self._of_probs(column)

    def _flips(self) -> Tensor | None:
        """Return the flips; of an ensemble, against the class of the mean."""
        if self.flips is not None or self.probs is None or self.mean_probs is None:
            return self.flips
        samples_BKC = self.probs if self.num_samples is not None else self.probs[:, None]
        return flips_of(samples_BKC, self.mean_probs)

    def _of_probs(self, score: Callable[..., Tensor]) -> Tensor | None:
        """Return a score of the distributions; of several parts a row, the mean by default."""
        if self.probs is None:
            return None
        if self.mask is not None:
            over = score if isinstance(score, OverParts) else OverParts(score)
            return over(self.probs, self.mask)
        return score(self.probs[:, None] if isinstance(score, OverParts) else self.probs)

    def _of_numbers(self, score: Callable[..., Tensor], needed: Sequence[str]) -> Tensor | None:
        """Return a score of samples (B O, K) of numbers, the mean over the numbers of a row."""
        if self.mean is None:
            return None
        given = [getattr(self, name) for name in needed]
        if any(values is None for values in given):
            raise ValueError(
                f"this strategy needs {' and '.join(needed)} of each row, got "
                f"{sorted(self.prediction)}; return {{'mean': ..., 'variance': ...}} from "
                "predict_step, or take predictive_variance, which needs no variance"
            )
        tables = [t[:, None] if self.num_samples is None else t for t in given]  # (B, K, O)
        scores = score(*(table.movedim(1, 2).flatten(0, 1) for table in tables))
        return scores.view(len(self), self.mean.shape[-1]).mean(1)


def flips_of(probs_BKC: Tensor, others_BC: Tensor) -> Tensor:
    """Return (B, K), 1 where a sample's likeliest class is not that of ``others``, else 0."""
    return (probs_BKC.argmax(-1) != others_BC.argmax(-1)[:, None]).to(probs_BKC.dtype)


def stacked(members: Sequence[Outputs]) -> Outputs:
    """Join the predictions of K networks into K samples a row.

    Embeddings stand side by side, (B, K D), when each network gives one; scores are averaged.

    Raises:
        ValueError: when one of them holds samples already, or they differ in the parts of a row.
    """
    first = members[0]
    for one in members:
        if one.num_samples is not None:
            shape = tuple(next(t for t in (one.probs, one.mean) if t is not None).shape)
            raise ValueError(
                "the module must predict one distribution a row, (B, C), to be sampled or joined "
                f"with others, got samples already: {shape}; use it without this wrapper, or make "
                "it predict without sampling (mc_samples=1)"
            )
        if one.mask is not None and (first.mask is None or not torch.equal(one.mask, first.mask)):
            raise ValueError("samples of a row must be of the same parts; give each the same mask")

    def joined(name: str, join: Callable[[list[Tensor]], Tensor]) -> Tensor | None:
        values = [getattr(one, name) for one in members]
        return None if any(value is None for value in values) else join(values)

    probs = joined("probs", lambda tables: torch.stack(tables, dim=-2))
    mean = joined("mean", lambda tables: torch.stack(tables, dim=1))
    return replace(
        first,
        probs=probs,
        embedding=joined("embedding", lambda tables: torch.cat(tables, dim=1)),
        num_samples=None if probs is None and mean is None else len(members),
        mean=mean,
        variance=joined("variance", lambda tables: torch.stack(tables, dim=1)),
        score=joined("score", lambda scores: torch.stack(scores).mean(0)),
    )
