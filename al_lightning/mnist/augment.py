"""Random changes of training images, a whole batch at once.

Shape suffixes: B batch rows, H W height and width.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def random_affine(
    x_B1HW: Tensor, degrees: float = 10.0, shift: float = 2.0, scale: float = 0.1
) -> Tensor:
    """Turn, shift (in pixels) and scale each image by its own random amounts, on its device.

    Randomness comes from torch's global generator, as that of dropout does.
    """
    B, _, H, W = x_B1HW.shape

    def uniform(limit: float) -> Tensor:
        return (torch.rand(B, device=x_B1HW.device) * 2 - 1) * limit

    angle, factor = uniform(math.radians(degrees)), 1 + uniform(scale)
    cos, sin = factor * angle.cos(), factor * angle.sin()
    rows = [cos, -sin, uniform(2 * shift / W), sin, cos, uniform(2 * shift / H)]
    theta_B23 = torch.stack(rows, dim=1).view(B, 2, 3).to(x_B1HW.dtype)
    grid = F.affine_grid(theta_B23, list(x_B1HW.shape), align_corners=False)
    return F.grid_sample(x_B1HW, grid, align_corners=False)
