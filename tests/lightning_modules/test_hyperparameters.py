"""A checkpoint of a module built from Python loads on its own, with the slots as they were."""

from functools import partial
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from layers import AttentionEncoder, BlogEncoder, FullAttention, LocalAttention
from lightning_modules import AutoEncoder, SparseTransformer, TripleExtractor


class Preset(FullAttention):
    """A user's attention whose sizes have defaults: those that the slot's owner passes must win."""

    def __init__(self, embed_dim: int = 64, num_heads: int = 8, dropout: float = 0.0, rotary: bool = False) -> None:
        super().__init__(embed_dim, num_heads, dropout=dropout, rotary=rotary)


class Scaled(AutoEncoder):
    """A user's subclass that passes on most arguments."""

    def __init__(self, scale: float = 1.0, **kwargs) -> None:
        super().__init__(**kwargs)
        self.scale = scale

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * super().forward(images)


def reloaded(module: pl.LightningModule, path: Path) -> pl.LightningModule:
    """The module loaded from its checkpoint, with weights checked to be the same."""
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path)
    loaded = type(module).load_from_checkpoint(path, weights_only=True)
    weights = loaded.state_dict()
    assert weights.keys() == module.state_dict().keys()
    assert all(torch.equal(weights[name], value) for name, value in module.state_dict().items())
    return loaded


@pytest.mark.parametrize(
    "attention", [Preset, [Preset, partial(LocalAttention, window=3)], partial(Preset, dropout=0.5)]
)
def test_attentions_alone_and_in_a_list(tmp_path: Path, attention):
    sizes = {"embed_dim": 8, "num_heads": 2, "feedforward_size": 8, "vocab_size": 5, "sequence_length": 6}
    module = SparseTransformer(attention, num_layers=2, **sizes)
    loaded = reloaded(module, tmp_path / "x.ckpt")
    assert str(loaded.network) == str(module.network)
    for block, expected in zip(loaded.network.blocks, module.network.blocks, strict=True):
        assert block.attention.dropout == expected.attention.dropout


def test_a_slot_inside_a_slot(tmp_path: Path):
    module = TripleExtractor(partial(AttentionEncoder, size=8, num_layers=1, num_heads=2, attention=Preset))
    assert type(reloaded(module, tmp_path / "x.ckpt").encoder.blocks[0].attention) is Preset


def test_arguments_that_a_subclass_passes_on(tmp_path: Path):
    module = Scaled(scale=0.5, encoder=partial(BlogEncoder, code_size=4, channels=8), image_size=8)
    loaded = reloaded(module, tmp_path / "x.ckpt")
    assert loaded.scale == 0.5
    assert loaded.encoder.code_size == 4
