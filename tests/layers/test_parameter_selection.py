import pytest
import torch
from torch import nn

from layers.weights.selection import DEFAULT_EXCLUDE, check_entries, parameter_names, select


class ScaleNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.LayerNorm(3), ScaleNorm())
        self.embedding = nn.Embedding(5, 4)
        self.decoder = nn.Linear(4, 5)
        self.decoder.weight = self.embedding.weight
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))


def chosen_names(include, exclude):
    model = Model()
    names = parameter_names(model)
    return {names[p][0] for p in select(model, include, exclude, "Test", may_match_nothing=DEFAULT_EXCLUDE)}


EVERYTHING = {
    *("encoder.0.weight", "encoder.0.bias", "encoder.1.weight", "encoder.1.bias"),
    *("encoder.2.weight", "encoder.2.bias", "encoder.3.scale", "embedding.weight", "decoder.bias", "normed.bias"),
    *("normed.parametrizations.weight.original0", "normed.parametrizations.weight.original1"),
}


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        (None, (), EVERYTHING),
        ((), (), set()),
        (["embedding"], (), {"embedding.weight"}),
        (["decoder"], (), {"embedding.weight", "decoder.bias"}),  # the shared weight by its second name
        ([r"^encoder\.0\."], ["bias$"], {"encoder.0.weight"}),
        (["type:Embedding"], (), {"embedding.weight"}),
        (["type:norm"], (), {n for n in EVERYTHING if n.startswith(("encoder.1", "encoder.2", "encoder.3"))}),
        (["type:_BatchNorm"], (), {"encoder.1.weight", "encoder.1.bias"}),  # a base class
        (["normed"], ["type:Linear"], set()),  # parametrized weights are the layer's own
        # … and keep their plain name.
        ([r"^normed\.weight$"], (), {n for n in EVERYTHING if "original" in n}),
        (["weight$"], [r"^en|^decoder"], {n for n in EVERYTHING if "original" in n}),
        (["original0$"], (), {"normed.parametrizations.weight.original0"}),
        (
            None,
            DEFAULT_EXCLUDE,
            {
                n
                for n in EVERYTHING
                if not n.endswith("bias") and not n.startswith(("encoder.1", "encoder.2", "encoder.3"))
            },
        ),
    ],
)
def test_selects_by_name_and_by_type(include, exclude, expected):
    assert chosen_names(include, exclude) == expected


@pytest.mark.parametrize(
    ("include", "message"),
    [
        (
            ["encodr.0.weight"],
            r"include entry 'encodr.0.weight' matches no parameter; the nearest one is 'encoder.0.wei",
        ),
        (["embeding"], r"'embedding.weight'"),
        (["normed.wieght"], r"the nearest one is 'normed.weight'"),
        (["type:Linaer"], r"the nearest class is 'type:Linear'"),
        (["type:BatchNorm2d"], r"the nearest class is 'type:BatchNorm1d'"),
        (["^embedding$"], r"'embedding.weight'"),
        (["type:Sequential"], r"'type:Sequential' matches no parameter"),  # no direct ones
    ],
)
def test_an_entry_that_matches_nothing_names_the_nearest(include, message):
    with pytest.raises(ValueError, match=message):
        select(Model(), include, (), "Test")


def test_default_entries_may_match_nothing():
    plain = nn.Linear(2, 2, bias=False)
    assert select(plain, None, DEFAULT_EXCLUDE, "Test", may_match_nothing=DEFAULT_EXCLUDE) == {plain.weight}
    with pytest.raises(ValueError, match="exclude entry 'type:norm'"):
        select(plain, None, DEFAULT_EXCLUDE, "Test")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("bias$", r"include \('bias\$'\) must be a list of strings: write \['bias\$'\]"),
        (["("], r"include entry \('\('\) must be a regular expression"),
        ([3], r"include entry \(3\)"),
        (["type:"], r"include entry \('type:'\)"),
    ],
)
def test_bad_entries_are_refused(entries, message):
    with pytest.raises(ValueError, match=message):
        check_entries("include", entries)


def test_biases_of_any_name_are_excluded_by_default():
    model = nn.ModuleDict({"lstm": nn.LSTM(2, 2, bidirectional=True), "attention": nn.MultiheadAttention(2, 1)})
    model["attention"].bias_k = nn.Parameter(torch.ones(2))
    names = parameter_names(model)
    left = {names[p][0] for p in select(model, None, DEFAULT_EXCLUDE, "Test", may_match_nothing=DEFAULT_EXCLUDE)}
    assert left == {name for name, parameter in model.named_parameters() if parameter.dim() == 2}
