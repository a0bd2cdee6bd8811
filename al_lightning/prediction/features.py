"""Embeddings of a model that returns none: the input of one of its layers."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from al_lightning.prediction.wrapping import plain_name
from al_lightning.settings import hint


class LayerInput:
    """Keeps the first tensor that a layer is given; of several calls in a batch, the first.

    Args:
        layer: A layer of the model that predicts.
    """

    def __init__(self, layer: nn.Module) -> None:
        self._layer = layer
        self._seen: Tensor | None = None

    def __enter__(self) -> "LayerInput":
        self._hook = self._layer.register_forward_pre_hook(self._see, with_kwargs=True)
        return self

    def __exit__(self, *error: object) -> None:
        self._hook.remove()

    def _see(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._seen is None:
            tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
            if tensors:
                self._seen = tensors[0].clone()  # the layer may work in place

    def take(self, num_rows: int, batch: Any = None) -> Tensor:
        """Return the embedding (B, D) of the batch that was predicted last.

        An input (B, T, D) of tokens is averaged over those that ``batch["attention_mask"]`` (B, T)
        marks, so the padding of a batch changes nothing. Other inputs are flattened.

        Raises:
            ValueError: when the layer did not see the ``num_rows`` rows of the batch.
        """
        seen, self._seen = self._seen, None
        if seen is None or len(seen) != num_rows:
            came = "it was not called" if seen is None else f"it saw {len(seen)} rows"
            raise ValueError(
                f"embedding_layer must see each batch once in prediction, {num_rows} rows here, "
                f"but {came}; name a layer that the prediction passes through"
            )
        mask_BT = batch.get("attention_mask") if isinstance(batch, Mapping) else None
        if mask_BT is None or seen.ndim != 3 or mask_BT.shape != seen.shape[:2]:
            return seen.flatten(1)
        weight_BT1 = mask_BT.to(seen.dtype)[..., None]
        mean_BD: Tensor = (seen * weight_BT1).sum(1) / weight_BT1.sum(1).clamp_min(1)
        return mean_BD


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """Return the layer of that name; raise ValueError, with the nearest, when there is none."""
    named: dict[str, nn.Module] = dict(model.named_modules())
    layers = {plain_name(one): layer for one, layer in named.items()}
    if name not in layers or not name:
        raise ValueError(
            f"embedding_layer must name a layer of the model, got {name!r}; "
            f"{hint(name, layers, 0)}its layers are {[layer for layer in layers if layer]}"
        )
    return layers[name]
