"""Optional arguments of a traced forward, and models that can't be traced: features by hooks, parts that run."""

import copy
import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from layers.reuse import features, nodes, split, untraced
from tests.layers.reuse_tools import count, pointers


class Optional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor, mask: Tensor | None = None, *rest: Any, flag: bool = True, **options: Any) -> Tensor:
        h = self.a(x)
        if flag and not rest and not options.get("raw"):
            h = h.relu()
        return self.b(h if mask is None else h * mask)


def test_optional_arguments_and_flags_are_bound_to_their_defaults():
    model, x = Optional(), torch.randn(3, 4)
    assert nodes(model) == ["x", "a", "relu", "b"]
    assert torch.equal(features(model, "b")(x)["b"], model(x))
    head, tail = split(model, "a")
    assert torch.equal(tail(head(x)), model(x))
    with pytest.raises(TypeError, match="mask"):
        head(x, mask=torch.ones(4))
    with pytest.raises(ValueError, match="no node 'mask'"):
        split(model, "mask")


def test_defaults_may_be_of_any_class():
    class Flags(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(
            self, x: Tensor, act: Any = torch.tanh, how: Any = Path("."), *, sizes: Any = frozenset({2})
        ) -> Tensor:
            return self.b(act(self.a(x)) * len(sizes) if how.name == "" else x)

    model, x = Flags(), torch.randn(3, 4)
    head, tail = split(model, "a")
    assert torch.equal(tail(head(x)), model(x))
    assert torch.equal(features(model, "tanh")(x)["tanh"], model.a(x).tanh())


def test_inputs_without_default_stay_inputs():
    class Two(nn.Module):
        def forward(self, x, *, scale, shift=1.0):
            return x * scale + shift

    class Sum(nn.Module):
        def forward(self, *inputs, flag=True):
            return inputs[0] + inputs[1] if flag else inputs[0]

    x = torch.randn(3)
    assert torch.equal(features(Two(), "output")(x, scale=2.0)["output"], 2 * x + 1)
    assert torch.equal(features(Sum(), "output")(x, x)["output"], 2 * x)


IDS, PIXELS = torch.arange(14).reshape(2, 7), torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])


def transformer_encoder() -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 20, batch_first=True), 3, norm=nn.LayerNorm(16))


def hugging_face(name: str) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 20}
    settings = {
        "Bert": {"vocab_size": 30, **small},
        "ViT": {"image_size": 16, "patch_size": 4, **small},
        "GPT2": {"vocab_size": 30, "n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 9},
        "ResNet": {"embedding_size": 4, "hidden_sizes": [4, 8, 12], "depths": [1, 2, 1]},
        "Llama": {"vocab_size": 30, **small},
    }[name]
    return getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**settings))


# By model: two blocks of its trunk, a module behind them, and inputs.
CASES: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "Bert": ("encoder.layer.0", "encoder.layer.1", "pooler", {"input_ids": IDS, "attention_mask": MASK}),
    "ViT": ("layers.0", "layers.1", "layernorm", {"pixel_values": PIXELS}),
    "GPT2": ("h.0", "h.1", "ln_f", {"input_ids": IDS, "attention_mask": MASK}),
    "ResNet": ("encoder.stages.0", "encoder.stages.1.layers.0", "pooler", {"pixel_values": PIXELS}),
    "Llama": ("layers.0", "layers.1", "norm", {"input_ids": IDS, "attention_mask": MASK}),
    "torch": ("layers.0", "layers.1", "norm", {"src": torch.randn(2, 7, 16), "src_key_padding_mask": MASK == 0}),
}


def make(name: str) -> nn.Module:
    torch.manual_seed(0)
    return (transformer_encoder() if name == "torch" else hugging_face(name)).eval()


def first(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


@pytest.mark.parametrize("name", CASES)
def test_models_that_cannot_be_traced(name: str):
    (before, cut, behind, inputs), model = CASES[name], make(name)
    assert {before, cut, behind} <= set(nodes(model))
    seen: dict[str, list[Any]] = {}
    hooks = [
        model.get_submodule(path).register_forward_hook(lambda _, __, value, path=path: seen.update({path: value}))
        for path in (before, cut, behind)
    ]
    expected = model(**inputs)
    watched = dict(seen)

    seen.clear()
    found = features(model, [cut, before])(**inputs)
    assert list(found) == [cut, before]
    assert all(torch.equal(first(found[path]), first(watched[path])) for path in (before, cut))
    assert behind not in seen  # it stopped before

    head, tail = split(model, cut)
    seen.clear()
    value = head(**inputs)
    assert torch.equal(first(value), first(watched[cut]))
    assert behind not in seen
    for hook in hooks:
        hook.remove()
    found = tail(value)
    assert type(found) is type(expected)
    assert torch.equal(first(found), first(expected))
    # Each weight is the model's and in one part.
    assert count(head) + count(tail) == count(model)
    assert pointers(head) | pointers(tail) <= pointers(model)
    assert {*dict(head.named_parameters()), *dict(tail.named_parameters())} == set(dict(model.named_parameters()))
    # Gradients, and no trace of the run in the model.
    first(found).sum().backward()
    assert all(parameter.grad is not None for parameter in model.get_submodule(before).parameters())
    assert not any("forward" in vars(module) for module in model.modules())


def test_a_tail_takes_another_value_with_the_inputs():
    (before, cut, _, inputs), model = CASES["Bert"], make("Bert")
    head, tail = copy.deepcopy(split(model, cut))
    value = head(**inputs)
    stored = value.detach().clone()
    with pytest.raises(ValueError, match=rf"tail after {cut} got a value .* inputs of BertModel .*tail\(value, \*inp"):
        tail(stored)
    assert torch.equal(first(tail(stored, **inputs)), first(model(**inputs)))
    # The mask counts: without it other tokens are seen.
    assert not torch.equal(first(tail(stored, IDS)), first(model(**inputs)))
    early = split(model, before)[0](**inputs)
    assert torch.equal(first(split(model, before)[1](early)), first(model(**inputs)))  # of another head


def test_cuts_that_something_else_crosses_are_refused():
    model = make("ResNet")
    head, tail = split(model, "encoder.stages.1.layers.0.layer.0")
    with pytest.raises(
        ValueError, match=r"tail after encoder\.stages\.1\.layers\.0\.layer\.0 also needs what was comp"
    ):
        tail(head(PIXELS))
    model = make("Bert")
    with pytest.raises(
        ValueError, match=r"BertModel can't be traced .*or cut it once, at a block \(encoder\.layer\.0\)"
    ):
        split(model, "encoder.layer.0.attention")

    class Skips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))

        def forward(self, x: Tensor | None = None) -> Any:
            first = self.blocks[0](x)
            h = self.blocks[1](first)
            return self.blocks[2](h), first

    head, tail = split(Skips(), "blocks.1")
    with pytest.raises(ValueError, match=r"tail after blocks\.1 also needs"):
        tail(head(torch.ones(2, 4)))
    head, tail = split(model := Skips(), "blocks.0")
    assert torch.equal(tail(head(torch.ones(2, 4)))[0], model(torch.ones(2, 4))[0])


def test_a_cut_around_an_addition_in_place():
    model = make("ResNet")
    for cut in ("encoder.stages.1.layers.0.activation", "encoder.stages.1.layers.1.activation"):
        head, tail = split(model, cut)
        value = head(PIXELS)
        kept = value.clone()
        assert torch.equal(first(tail(value)), first(model(PIXELS)))
        assert torch.equal(value, kept)
    head, tail = split(model, "pooler")  # behind it the encoder's other results are asked for
    with pytest.raises(ValueError, match="tail after pooler also needs what was computed before it"):
        tail(head(PIXELS))

    class Branching(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x if x.sum() < 1e6 else -x)

    model, x = Branching(nn.Linear(3, 3), nn.ReLU(inplace=True)), torch.randn(4, 3)
    head, tail = split(model, "0")
    value = head(x)
    assert torch.equal(tail(value), model(x))
    assert torch.equal(value, model[0](x))


def test_features_of_padded_input_are_the_same_without_a_gradient():
    model, x = make("torch"), torch.randn(2, 6, 16)
    padding = torch.arange(6) > torch.tensor([[5], [3]])
    names = ["layers.0", "layers.1.linear1"]
    found = features(model, names)(x, src_key_padding_mask=padding)
    with torch.no_grad():
        again = features(model, names)(x, src_key_padding_mask=padding)
    assert torch.backends.mha.get_fastpath_enabled()
    for name in names:
        assert again[name].shape[:2] == (2, 6)
        torch.testing.assert_close(again[name], found[name])


def test_a_trunk_in_a_trunk_and_a_cut_that_changes_nothing():
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.Sequential(nn.Sequential(nn.Identity(), nn.Linear(4, 4)), nn.Linear(4, 4))

        def forward(self, x: Tensor | None = None) -> Tensor:
            return self.blocks(x)

    model, x = Nested(), torch.randn(2, 4)
    for cut, behind in (("blocks.0.0", 40), ("blocks.0.1", 20), ("blocks.1", 0)):
        head, tail = split(model, cut)
        gc.collect()
        kept = len(untraced._INPUTS)
        value = head(x)
        assert torch.equal(tail(value), model(x))
        assert (count(head), count(tail)) == (40 - behind, behind)
        del value
        gc.collect()
        assert len(untraced._INPUTS) == kept  # what the head was given is let go with its value


def test_a_module_inside_one_that_cannot_be_traced():
    model = nn.Sequential(nn.Linear(3, 16), make("torch"), nn.Linear(16, 2)).eval()
    x = torch.randn(2, 5, 3)
    assert "1" in nodes(model)
    expected = model[1].layers[0](model[0](x))
    assert torch.equal(features(model, "1.layers.0")(x)["1.layers.0"], expected)
    head, tail = split(model, "1.layers.0")
    assert torch.equal(tail(head(x)), model(x))
    with pytest.raises(ValueError, match=r"no node '1\.layers\.0'"):
        features(model, "1.layers.0", leaf_modules=["1"])


def test_calls_of_hooked_modules():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.relu, self.late = nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 4)

        def forward(self, x: Tensor | None = None) -> Tensor:
            return self.late(self.relu(self.layer(self.relu(self.layer(x)))))

    model, x = Twice(), torch.randn(3, 4)
    h = model.layer(x)
    found = features(model, ["layer", "layer#2", "output"])(x)
    assert torch.equal(found["layer"], h)  # before it was changed in place
    assert torch.equal(found["layer#2"], model.layer(h.relu()))
    assert torch.equal(found["output"], model(x))
    with pytest.raises(ValueError, match="Twice did not call layer#3 in this forward"):
        features(model, "layer#3")(x)
    with pytest.raises(
        ValueError, match=r"Twice has no module 'leyer'; nearest: layer.*Only modules are places here: .*tr"
    ):
        features(model, "leyer")
    assert not any(module._forward_hooks for module in model.modules())
