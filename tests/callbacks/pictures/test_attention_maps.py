"""Pictures of attention and of completed images: what is drawn, and that the model does not change."""

from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from callbacks import AttentionMaps, CompletedImages
from callbacks.pictures import attention_maps as attention_maps_module
from callbacks.pictures.attention_maps import reduced, spaced
from layers.attention import AtrousAttention, LocalAttention, MultiheadSelfAttention
from tests.tools import Album, quiet_trainer

# A process's first optimizer sets environment variables, which would look like leaks in a test.
torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])


class Reader(pl.LightningModule):
    """Two layers of attention over vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.save_hyperparameters({"pixel_range": (0.0, 1.0)})
        self.first, self.second = LocalAttention(8, 2, window=2), AtrousAttention(8, 4, rate=3, batch_first=False)
        self.completions: list[tuple[int, tuple[int, ...]]] = []

    def test_step(self, batch: torch.Tensor, batch_idx: int) -> dict[str, torch.Tensor]:
        x, _ = self.first(batch, is_causal=True)
        self.second(query=x.transpose(0, 1), key_padding_mask=torch.zeros(batch.shape[:2], dtype=torch.bool))
        return {"images": torch.full((len(batch), 3, 4, 4), batch_idx / 10)}

    def complete_images(self, images: torch.Tensor, seed: int) -> torch.Tensor:
        self.completions.append((seed, tuple(images.shape)))
        return images.clone()


def run_test(callback: pl.Callback, logger: Any, **options: Any) -> Reader:
    torch.manual_seed(0)
    model = Reader()
    loader = torch.utils.data.DataLoader(torch.randn(12, 9, 8), batch_size=4)
    quiet_trainer(callback, logger=logger, **options).test(model, loader, verbose=False)
    return model


def test_each_layer_shows_its_mask_and_the_weights_of_its_heads(monkeypatch):
    shown, drawn = [], attention_maps_module.reduced
    monkeypatch.setattr(attention_maps_module, "reduced", lambda values: shown.append(values) or drawn(values))
    album = Album()
    model = run_test(AttentionMaps(max_heads=3), album)
    assert {name: len(pictures) for name, pictures in album.pictures.items()} == {"attention_maps": 1}
    assert not any(layer._forward_hooks for layer in model.modules()), "the hooks are removed"

    i, j = np.indices((9, 9))
    masks = [(i - j <= 2) & (j <= i), (i - j) % 3 == 0]
    patterns, heads = [shown[0], shown[3]], [shown[1:3], shown[4:]]
    assert len(shown) == 1 + 2 + 1 + 3
    torch.manual_seed(0)
    again, x = Reader(), torch.randn(12, 9, 8)[:1]
    for layer, pattern, parts, mask in zip((again.first, again.second), patterns, heads, masks, strict=True):
        assert np.array_equal(pattern.numpy(), mask)
        q, k, v = (x[0] @ layer.in_proj_weight.T + layer.in_proj_bias).chunk(3, dim=1)
        size = 8 // layer.num_heads
        outputs = []
        for head in range(layer.num_heads):
            part = slice(head * size, (head + 1) * size)
            logits = (q[:, part] @ k[:, part].T / size**0.5).masked_fill(~torch.tensor(mask), float("-inf"))
            weights = logits.softmax(1)
            outputs.append(weights @ v[:, part])
            if head < len(parts):
                expected = weights / weights.amax(1, keepdim=True)
                torch.testing.assert_close(parts[head], expected, rtol=1e-4, atol=1e-5)
        x = layer.out_proj(torch.cat(outputs, 1))[None]


@pytest.mark.filterwarnings("ignore:.*nested tensors:UserWarning")
def test_any_way_to_call_a_layer_shows_the_same():
    """One sequence, arguments by position, torch's causal mask, and the nested tensors of torch's encoder."""
    layer, x, padding = LocalAttention(8, 2, window=2), torch.randn(2, 9, 8), torch.zeros(2, 9, dtype=torch.bool)
    padding[0, 6:] = True
    causal = torch.ones(9, 9).triu(1) > 0

    def kept(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        callback = AttentionMaps()
        handle = layer.register_forward_hook(callback._hook("layer"), with_kwargs=True)
        layer.eval()(*args, **kwargs)
        handle.remove()
        ((_, query, options),) = callback._calls.values()
        weights = layer(query, need_weights=True, **options)[1]
        return layer.mask(len(query), options["is_causal"]), weights

    expected = kept(x, is_causal=True, key_padding_mask=padding)
    for found in (
        kept(x, x, x, padding, False, causal),
        kept(x[0], None, None, padding[0], is_causal=True),
        kept(query=x[0], key_padding_mask=padding[0], attn_mask=causal),
    ):
        torch.testing.assert_close(found, expected)
    nested = torch._nested_tensor_from_mask(x, ~padding)
    torch.testing.assert_close(kept(nested)[1], kept(x[:1, :6])[1])


def test_without_a_logger_for_pictures_nothing_is_kept(monkeypatch):
    monkeypatch.setattr(MultiheadSelfAttention, "register_forward_hook", None)
    run_test(AttentionMaps(), False)


def test_many_layers_are_thinned_out_and_long_sequences_reduced():
    assert spaced(list("abc"), 4) == list("abc")
    assert spaced(list("abcdefg"), 3) == ["a", "d", "g"]
    assert spaced(list("abc"), 1) == ["a"]
    values = torch.zeros(1000, 1000)
    values[600, 3] = 0.5
    small = reduced(values, 100)
    assert small.shape == (100, 100)
    assert small[60, 0] == 0.5
    assert small.sum() == 0.5


def test_completed_images_are_drawn_at_the_end():
    album = Album()
    model = run_test(CompletedImages(num_images=5, num_completions=2, seed=3), album)
    assert model.completions == [(3, (5, 3, 4, 4)), (4, (5, 3, 4, 4))]
    (picture,) = album.pictures["completed_images"]
    assert picture.shape[1] == round(0.9 * 4 * 150)
    model = run_test(CompletedImages(), False)
    assert model.completions == []
    model = run_test(CompletedImages(num_images=5), Album(), limit_test_batches=1)
    assert model.completions == [(0, (4, 3, 4, 4))], "a trial has one"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AttentionMaps(max_layers=0), r"max_layers \(0\) and max_heads \(4\)"),
        (lambda: CompletedImages(num_images=0), r"num_images \(0\) and num_completions \(3\)"),
    ],
)
def test_numbers_below_one_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
