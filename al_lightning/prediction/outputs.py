"""The predictions of a batch as one value, whatever the module returned; with torch alone.

Shape suffixes: B batch rows, K posterior samples, C classes, D embedding dimensions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

EXPECTED = (
    "logits (B, C) as a tensor, or a dict with 'logits' (B, C), or with 'probs' (B, C) or, for K "
    "posterior samples, (B, K, C), and perhaps 'embedding' (B, D)"
)


@dataclass(frozen=True)
class Outputs:
    """Holds a model's predictions of B rows.

    Attributes:
        probs: (B, C); with posterior samples or ensemble members (B, K, C).
        embedding: (B, D), for a model that gives one.
        num_samples: K; None where a row has one distribution.
    """

    probs: Tensor
    embedding: Tensor | None = None
    num_samples: int | None = None

    @property
    def mean_probs(self) -> Tensor:
        """Return (B, C), averaged over the samples where there are any."""
        return self.probs if self.num_samples is None else self.probs.mean(1)

    @property
    def prediction(self) -> dict[str, Tensor]:
        """Return ``probs`` and, where there is one, ``embedding``, as a ``predict_step`` does."""
        embedding = {} if self.embedding is None else {"embedding": self.embedding}
        return {"probs": self.probs, **embedding}


def stacked(members: Sequence[Outputs]) -> Outputs:
    """Join one distribution a row from each of K networks into K samples a row, (B, K, C).

    Embeddings stand side by side, (B, K D), when each network gives one.

    Raises:
        ValueError: when one of them holds samples already.
    """
    for one in members:
        if one.num_samples is not None:
            raise ValueError(
                "the module must predict one distribution a row, (B, C), to be sampled or joined "
                f"with others, got samples already: {tuple(one.probs.shape)}; use it without this "
                "wrapper, or make it predict without sampling (mc_samples=1)"
            )
    embeddings = [one.embedding for one in members if one.embedding is not None]
    joined = torch.cat(embeddings, dim=1) if len(embeddings) == len(members) else None
    return Outputs(torch.stack([one.probs for one in members], dim=1), joined, len(members))


def read_multiclass(prediction: Any, num_rows: int) -> Outputs:
    """Read the prediction of ``predict_step`` or ``forward`` as distributions over classes.

    The number of axes alone never means samples. They come under the key ``probs``, or in an
    :class:`Outputs`.

    Args:
        prediction: Logits (B, C); a dict with ``logits`` (B, C), or with ``probs`` (B, C) or
            (B, K, C), and perhaps ``embedding`` (B, D); or an :class:`Outputs`.
        num_rows: B, the rows that went in.

    Raises:
        ValueError: for anything else; names what came and what is expected.
    """
    if isinstance(prediction, Outputs):
        return prediction
    is_dict = isinstance(prediction, Mapping)
    has_probs = is_dict and "probs" in prediction
    raw = prediction.get("probs", prediction.get("logits")) if is_dict else prediction
    if not isinstance(raw, Tensor):
        came = f"a dict with {sorted(map(str, prediction))}" if is_dict else type(raw).__name__
        raise ValueError(f"predict_step must return {EXPECTED}, got {came}")
    shape = tuple(raw.shape)
    if raw.ndim == 3 and not has_probs:
        raise ValueError(
            f"logits of three axes could be (B, K, C), K posterior samples, or (B, T, C), T tokens "
            f"or boxes a row, and which is not guessed, got {shape}; return samples as "
            '{"probs": logits.softmax(-1)}, take them by mc_samples or an Ensemble, or return one '
            "distribution a row, (B, C)"
        )
    if raw.ndim not in (2, 3) or shape[-1] < 2 or len(raw) != num_rows:
        raise ValueError(
            f"predict_step must return {EXPECTED}, with B = {num_rows} rows here and C >= 2, got "
            f"a tensor of shape {shape}"
        )
    embedding = prediction.get("embedding") if is_dict else None
    if embedding is not None and (embedding.ndim != 2 or len(embedding) != num_rows):
        raise ValueError(
            f"'embedding' must be ({num_rows}, D), got {tuple(embedding.shape)}; flatten it"
        )
    if has_probs:
        return Outputs(raw, embedding, raw.shape[1] if raw.ndim == 3 else None)
    if not is_dict and _are_probs(raw):
        raise ValueError(
            "a tensor from predict_step is read as logits, and these rows are non-negative and sum "
            'to 1; return the logits, or {"probs": probs}'
        )
    return Outputs(raw.float().softmax(-1), embedding)


def _are_probs(raw: Tensor) -> bool:
    return bool((raw >= 0).all() and ((raw.sum(-1) - 1).abs() < 1e-3).all())
