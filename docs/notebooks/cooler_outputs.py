# %% [markdown]
# # Arbitrary outputs and flexible normalisation
# The tricks of [kexue.fm/archives/6311](https://kexue.fm/archives/6311) in a model of your own: plain Lightning and the
# few names imported here. Run it as a script, or cell by cell in an editor.

# %%
import pytorch_lightning as pl
import torch
from torch import nn

from callbacks import LayerMetrics, RunningAverages, WeightConstraint
from layers import AddsLosses, collect_losses, normalize_weights, remove_weight_normalization

torch.manual_seed(1)
images = (torch.rand(256, 8) @ torch.rand(8, 784) / 8).clamp(0, 1)  # stand-ins for digits, of eight factors
batches = torch.utils.data.DataLoader(images, batch_size=32)


def fit(model, *callbacks):
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = pl.Trainer(max_epochs=3, callbacks=list(callbacks), enable_model_summary=False, **options)
    trainer.fit(model, batches)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


# %% [markdown]
# ## A loss without a target
# No labels, no loss function: the model adds its losses while it runs, wherever a value is known.


# %%
class AutoEncoder(AddsLosses, pl.LightningModule):
    def __init__(self, hidden=None):
        super().__init__()
        self.hidden, self.output = hidden or nn.Linear(784, 100), nn.Linear(100, 784)

    def forward(self, x):
        y = self.output(self.hidden(x).relu()).sigmoid()
        self.add_loss("reconstruction", (y - x).square().mean())
        return y


# %% [markdown]
# The step collects what was added. Ten lines, and any number of losses.


# %%
class Training(AutoEncoder):
    def training_step(self, batch, batch_idx):
        with collect_losses(self) as losses:
            self(batch)
        self.log_dict({f"train/{name}": value for name, value in losses.values().items()})
        return losses.total()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


plain = fit(Training())
print("a loss without a target:", plain)

# %% [markdown]
# ## A loss from deep inside
# A layer that penalises its own activity: the model around it does not change.


# %%
class Sparse(AddsLosses, nn.Linear):
    def forward(self, x):
        h = super().forward(x)
        self.add_loss("activity", h.relu().mean(), weight=0.1)
        return h


sparse = fit(Training(Sparse(784, 100)))
print("and one from inside:", sparse)

# %% [markdown]
# ## Any metric
# The article's `x_h_norm`, the mean squared norm of the hidden layer, of a model that knows nothing of it; and a
# running average in the progress bar.

# %%
x_h_norm = LayerMetrics({"train/x_h_norm": {"module": "hidden", "of": "activation", "reduce": "sq_norm"}})
measured = fit(Training(), x_h_norm, RunningAverages(average=["train/reconstruction"]))
print("a metric of a hidden layer:", measured)

# %% [markdown]
# ## Weights constrained after the step
# The second family: `theta <- P(theta)`, after whatever the optimizer did.

# %%
constrained = Training()
fit(constrained, WeightConstraint("max_norm", limit=0.5, include=["weight"]))
largest = max(layer.weight.norm(dim=1).max().item() for layer in (constrained.hidden, constrained.output))
print(f"rows have norms of at most {largest:.3f}")

# %% [markdown]
# ## Weights normalised before use
# The first: the layer computes with `f(W)` and W is trained. By a pattern of names, before the optimizer is built; a
# function of yours does as well as `spectral`.

# %%
normalised = normalize_weights(Training(), {"hidden.weight": "spectral", "output.weight": "l2"})
fit(normalised)
sigma = torch.linalg.matrix_norm(normalised.hidden.weight, 2).item()
rows = normalised.output.weight.norm(dim=1)
print(f"largest singular value {sigma:.3f}, rows of norm {rows.min():.3f} to {rows.max():.3f}")
image = images[:1]
expected = normalised(image)
same = torch.allclose(remove_weight_normalization(normalised)(image), expected, atol=1e-6)
print("a plain model again, with the weights that were used:", same)
