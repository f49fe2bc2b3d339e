# %% [markdown]
# # Reusing layers and models
# The seven tricks of [kexue.fm/archives/6985](https://kexue.fm/archives/6985) in models of your own. Run it as a
# script, or cell by cell in an editor.

# %%
import torch
from torch import nn

from layers.reuse import TiedLinear, clone, features, nodes, split

torch.manual_seed(1)
x = torch.rand(4, 8)


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


# %% [markdown]
# ## 1. A layer called twice
# One object is one set of weights, however often it is called; its gradients add up.

# %%
layer = nn.Linear(8, 8)
twice = nn.Sequential(layer, nn.Tanh(), layer)
print("weights of a layer called twice:", count(twice), "of two layers:", 2 * count(layer))

# %% [markdown]
# ## 2. A model as a layer


# %%
class Siamese(nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder, self.score = encoder, nn.Bilinear(8, 8, 1)

    def forward(self, left, right):
        return self.score(self.encoder(left), self.encoder(right))


siamese = Siamese(twice)
print("scores:", siamese(x, x.flip(0)).flatten().tolist())

# %% [markdown]
# ## 3. A copy, with the weights or with new ones
# What is shared inside stays shared inside.

# %%
same, fresh = clone(twice), clone(twice, weights=False)
print("a copy with weights agrees:", torch.equal(same(x), twice(x)), "- one without:", torch.equal(fresh(x), twice(x)))
print("shared inside:", fresh[0] is fresh[2])

# %% [markdown]
# ## 4. One weight in two places
# The output layer reads the embedding: one name in the `state_dict`, both gradients.


# %%
class Language(nn.Module):
    def __init__(self, words=50, size=8):
        super().__init__()
        self.embedding = nn.Embedding(words, size)
        self.output = TiedLinear(self.embedding)

    def forward(self, tokens):
        return self.output(self.embedding(tokens).tanh())


language = Language()
print("a tied model has:", {name: tuple(value.shape) for name, value in language.state_dict().items()})

# %% [markdown]
# ## 5. Features from inside
# Of any model that `torch.fx` can trace, at any operation; of others (a Transformer of torch's or of Hugging Face's) at
# any module, by hooks, and only as far as needed.

# %%
residual = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
print("places:", nodes(residual))
print("features:", {name: tuple(value.shape) for name, value in features(residual, ["1", "3"])(x).items()})
encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 3)
inside = features(encoder, ["layers.0", "layers.1.self_attn"])(x[None])
print("features of a Transformer:", {name: type(value).__name__ for name, value in inside.items()})

# %% [markdown]
# ## 6. A chain cut in two
# Head and tail share the model's weights: training one trains the model.

# %%
head, tail = split(residual, "1")
print("tail(head(x)) is model(x):", torch.equal(tail(head(x)), residual(x)))
head, tail = split(encoder.eval(), "layers.0")
print("also of a Transformer:", torch.equal(tail(head(x[None])), encoder(x[None])))

# %% [markdown]
# ## 7. Any graph cut in two, and another part put between
# A skip connection crosses the cut: name both values.


# %%
class Skip(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        h = self.a(x)
        return self.c(h + self.b(h.relu()))


# %%
skip = Skip()
head, tail = split(skip, ["a", "b"])
print("tail(head(x)) is model(x):", torch.equal(tail(head(x)), skip(x)))
h, inner = head(x)
print("with dropout in between:", tail((h, nn.functional.dropout(inner, 0.5))).shape)
