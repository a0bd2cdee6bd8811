"""The rows on which selectors are compared: made up, but shaped as a network's outputs are.

Shape suffixes: N rows, K posterior samples, C classes, D embedding dimensions.
"""

import torch
from torch import Tensor

D, C = 128, 10


def features(num_rows: int, seed: int = 0) -> Tensor:
    """Non-negative features (N, 128) of ten hidden dimensions, as a trained network's."""
    draw = torch.Generator().manual_seed(seed)
    hidden = torch.randn(num_rows, 10, generator=draw) @ torch.randn(10, D, generator=draw)
    mixed = hidden.relu() @ torch.randn(D, D, generator=draw) / D**0.5
    return mixed.relu_()


def predictions(embeddings_ND: Tensor) -> Tensor:
    """Probabilities (N, 10) of a random linear layer over them."""
    draw = torch.Generator().manual_seed(1)
    logits_NC = embeddings_ND @ torch.randn(D, C, generator=draw)
    return (3 * logits_NC / logits_NC.std()).softmax(-1)


def posterior(N: int, K: int, scale: float = 1.5) -> Tensor:
    """(N, K, 10) of a linear model under K samples of its weights, float64."""
    draw = torch.Generator().manual_seed(0)
    x_ND = torch.randn(N, 16, generator=draw)
    shared_1DC = torch.randn(1, 16, C, generator=draw)
    weights_KDC = scale * (shared_1DC + torch.randn(K, 16, C, generator=draw))
    return (torch.einsum("nd,kdc->nkc", x_ND, weights_KDC) / 4).softmax(-1).double()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
