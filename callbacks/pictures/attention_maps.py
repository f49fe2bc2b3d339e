"""A picture of self-attention's patterns and learnt weights."""

import inspect
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from layers.attention import MultiheadSelfAttention

from .base import INK, log_figure, new_figure, wants_pictures

SIDE = 256  # pixels of a map; longer sequences are reduced to it


class AttentionMaps(pl.Callback):
    """Draws, for some layers, the attention pattern as an (N, N) mask and the weights of each head.

    Works with every module that contains ``layers.attention.MultiheadSelfAttention``. During the first test batch it
    keeps each layer's input for the first row; the weights are computed from it afterwards, layer by layer. Rows are
    queries, columns keys. Weights are shown relative to the largest of their row, on a scale of square roots, so that
    small ones are visible. For N above 256 each pixel shows its largest value. The picture is ``attention_maps``.

    Args:
        max_layers: the most layers to draw; if there are more, evenly spaced ones.
        max_heads: the most heads to draw of each layer, the first ones.

    Raises:
        ValueError: for numbers below 1.

    Example:
        trainer:
          callbacks+:
            - class_path: AttentionMaps
              init_args: {max_layers: 2}
    """

    def __init__(self, max_layers: int = 4, max_heads: int = 4) -> None:
        if max_layers < 1 or max_heads < 1:
            raise ValueError(f"max_layers ({max_layers}) and max_heads ({max_heads}) must be at least 1")
        self.max_layers, self.max_heads = max_layers, max_heads
        self._forget()

    def _forget(self) -> None:
        self._calls: dict[str, tuple[MultiheadSelfAttention, Tensor, dict[str, Any]]] = {}
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []

    def on_test_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx or dataloader_idx or not wants_pictures(trainer):
            return
        self._forget()
        layers = {name: layer for name, layer in pl_module.named_modules() if isinstance(layer, MultiheadSelfAttention)}
        for name in spaced(list(layers), self.max_layers):
            self._hooks.append(layers[name].register_forward_hook(self._hook(name), with_kwargs=True))

    def _hook(self, name: str) -> Any:
        def keep(layer: MultiheadSelfAttention, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
            if name in self._calls:
                return
            given = inspect.signature(layer.forward).bind(*args, **kwargs).arguments
            row, padding = given["query"].detach(), given.get("key_padding_mask")
            if row.is_nested:
                row = row.unbind()[0]
            elif row.dim() == 3:
                row = row.select(0 if layer.batch_first else 1, 0)
                padding = None if padding is None else padding[0]
            options = {
                "is_causal": given.get("is_causal", False) or given.get("attn_mask") is not None,
                "key_padding_mask": None if padding is None else padding.clone(),
            }
            self._calls[name] = layer, row.clone(), options

        return keep

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, *args: Any, **kwargs: Any
    ) -> None:
        for hook in self._hooks:
            hook.remove()
        if self._calls:
            self._draw(trainer)
        self._forget()

    @torch.no_grad()
    def _draw(self, trainer: pl.Trainer) -> None:
        from matplotlib.colors import PowerNorm

        columns = 1 + max(min(layer.num_heads, self.max_heads) for layer, *_ in self._calls.values())
        figure = new_figure(2.1 * columns + 0.6, 2.2 * len(self._calls) + 0.3)
        axes = figure.subplots(len(self._calls), columns, squeeze=False)
        for row, (name, (layer, query, options)) in enumerate(self._calls.items()):
            _, weights = layer(query, need_weights=True, **options)
            n = weights.shape[-1]
            mask = layer.mask(n, options["is_causal"])
            maps = [("pattern", reduced(mask if mask.dim() == 2 else mask.any(0)))]  # of all heads
            for head, part in enumerate(weights[: self.max_heads]):
                part = part.float()
                largest = part.amax(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
                maps.append((f"head {head + 1}", reduced(part / largest)))
            for column, axis in enumerate(axes[row]):
                if column >= len(maps):
                    axis.axis("off")
                    continue
                title, values = maps[column]
                image = axis.imshow(
                    values.cpu().numpy(),
                    cmap="Greys" if column == 0 else "viridis",
                    norm=PowerNorm(0.5, vmin=0, vmax=1),
                    extent=(-0.5, n - 0.5, n - 0.5, -0.5),
                )
                axis.set_title(title, fontsize=8, color=INK)
                axis.set_xlabel("key", fontsize=7, color=INK)
                axis.locator_params(nbins=5, integer=True)
                axis.tick_params(labelsize=6, labelcolor=INK, labelleft=column == 0)
            axes[row, 0].set_ylabel(f"{type(layer).__name__}\n{name}\nquery", fontsize=7, color=INK)
        bar = figure.colorbar(image, ax=axes, fraction=0.02, pad=0.01)
        bar.set_label("weight / largest of its row", fontsize=7, color=INK)
        bar.ax.tick_params(labelsize=6, labelcolor=INK)
        log_figure(trainer, "attention_maps", figure)


def spaced(names: list[str], count: int) -> list[str]:
    """At most ``count`` of the names, evenly spaced, the first and the last among them."""
    if len(names) <= count:
        return names
    return [names[round(i * (len(names) - 1) / max(1, count - 1))] for i in range(count)]


def reduced(values: Tensor, side: int = SIDE) -> Tensor:
    """(N, N) as (M, M) float32, M at most ``side``: each entry is the largest of its block."""
    values = values.float()
    if len(values) <= side:
        return values
    return F.adaptive_max_pool2d(values[None, None], side)[0, 0]
