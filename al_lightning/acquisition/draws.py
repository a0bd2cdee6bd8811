"""Random draws from a generator of any device for tensors of any other."""

import torch
from torch import Generator, Tensor


def uniform(num: int, *, generator: Generator, device: torch.device) -> Tensor:
    """Draw ``num`` numbers in ``[0, 1)``, float64, and return them on ``device``.

    They are drawn on the generator's device, so a CPU generator gives every device the same.
    """
    drawn = torch.rand(num, generator=generator, device=generator.device, dtype=torch.float64)
    return drawn.to(device)
