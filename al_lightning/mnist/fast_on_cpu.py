"""Make the linear layer after a convolution fast on a CPU, with the same values.

Shape suffixes: B batch rows, C channels, H W height and width, F = C x H x W features.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LinearOverMaps(nn.Linear):
    """Does what ``nn.Linear`` does, for feature maps (B, C, H, W) and for flattened ones (B, F).

    On a CPU it computes a convolution over the whole map. Then channels-last maps need no copy, and
    oneDNN needs two thirds of the time.

    The rearranged weights are kept until the weights are loaded or moved, or until ``train()`` or
    ``eval()`` is called. A Trainer calls one of them before it tests or predicts.
    """

    _kept: tuple[tuple[int, int], Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        on_cpu = x.device.type == "cpu" and not self.weight.is_inference()
        if x.ndim == 4 and on_cpu and not torch.is_grad_enabled():
            return F.conv2d(x, self._filters(x.shape[1:]), self.bias).flatten(1)
        return super().forward(x.flatten(1))

    def train(self, mode: bool = True) -> "LinearOverMaps":
        self._kept = None  # fused optimizers change weights without a new version
        return super().train(mode)

    def _filters(self, shape_CHW: torch.Size) -> Tensor:
        version = (self.weight.data_ptr(), self.weight._version)
        if self._kept is None or self._kept[0] != version:
            filters = self.weight.view(-1, *shape_CHW)
            self._kept = version, filters.contiguous(memory_format=torch.channels_last)
        return self._kept[1]
