"""Learn from images without labels: by what the network itself believes of them.

Shape suffixes: B batch rows, C classes, H W height and width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from al_lightning.mnist.augment import random_affine


def pseudo_label_loss(logits_BC: Tensor, beliefs_BC: Tensor, threshold: float) -> Tensor:
    """Return the cross-entropy with the likeliest class where it is likely enough.

    Args:
        logits_BC: (B, C) to train.
        beliefs_BC: (B, C) probabilities of the same images; no gradient goes through them.
        threshold: Images whose largest probability is below it count as 0.

    Returns:
        The sum over the images that count, divided by B.

    References:
        Sohn et al. 2020, "FixMatch", arXiv:2001.07685, Eq. 4.

    >>> logits = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    >>> pseudo_label_loss(logits, torch.tensor([[0.99, 0.01], [0.6, 0.4]]), threshold=0.95)
    tensor(0.3466)
    """
    likely_B, classes_B = beliefs_BC.detach().max(-1)
    losses_B = F.cross_entropy(logits_BC, classes_B, reduction="none")
    return (losses_B * (likely_B >= threshold)).mean()


def strongly_changed(x_B1HW: Tensor) -> Tensor:
    """Turn, shift and scale each image about twice as far as in training, and erase a square.

    The square has 10 pixels a side and lies anywhere, also partly outside. Randomness comes from
    torch's global generator.
    """
    x_B1HW = random_affine(x_B1HW, degrees=20.0, shift=3.0, scale=0.2)
    B, _, H, W = x_B1HW.shape
    centres_B2 = torch.rand(B, 2, device=x_B1HW.device) * torch.tensor([H, W], device=x_B1HW.device)
    near_BH, near_BW = (
        (torch.arange(side, device=x_B1HW.device) + 0.5 - centres_B2[:, axis, None]).abs() < 5
        for axis, side in enumerate((H, W))
    )
    return x_B1HW * ~(near_BH[:, None, :, None] & near_BW[:, None, None, :])
