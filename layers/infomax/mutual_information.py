"""Bounds on the mutual information of codes and feature maps, learned by telling matching pairs from others.

Three independent parts: a *score* T(z, c) rates how well a code z and a feature vector c match; *negatives* choose the
non-matching pairs; an *estimator* turns both kinds of scores into a loss. Scores are float32 logits under any autocast
precision, all logarithms are natural, losses are in nats.
"""

import math
from abc import ABC, abstractmethod
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..images.keras_layers import glorot_mlp

# ---------------------------------------------------------------------------------------------------------- scores


class Score(nn.Module, ABC):
    """Base class of the score slot: T(z, c) of codes (N, d) and feature maps (N, L, C), L locations each.

    Both sides are embedded once; the embeddings are then combined for as many pairs as the negatives ask for.
    """

    @abstractmethod
    def embed_codes(self, codes: Tensor) -> Tensor:
        """(N, d) -> (N, U)."""

    @abstractmethod
    def embed_features(self, features: Tensor) -> Tensor:
        """(N, L, C) -> (N, L, U)."""

    @abstractmethod
    def matched(self, codes: Tensor, features: Tensor) -> Tensor:
        """Embedded codes (N, U) and features (N, L, U) -> (N, L): T(z_n, c_n,l)."""

    @abstractmethod
    def all_pairs(self, codes: Tensor, features: Tensor) -> Tensor:
        """Embedded codes (N, U) and features (M, L, U) -> (N, M, L): T(z_n, c_m,l)."""


class ConcatScore(Score):
    """The blog's discriminator: T(z, c) = MLP([z, c]), with ReLU between the layers.

    The first layer is linear in both parts, W [z, c] = W_z z + W_c c, so W_z z is computed once for all locations and
    partners of a code, and the concatenation [z, c] is never built.

    Source: kexue.fm/archives/6024.

    Args:
        code_size: d.
        feature_size: C.
        hidden_size: width of the hidden layers.
        hidden_layers: number of hidden layers.

    Raises:
        ValueError: if there is no hidden layer.

    Example:
        model:
          score:
            class_path: ConcatScore
            init_args: {hidden_size: 256}
    """

    def __init__(self, code_size: int, feature_size: int, hidden_size: int = 256, hidden_layers: int = 3) -> None:
        super().__init__()
        if hidden_layers < 1:
            raise ValueError(f"hidden_layers ({hidden_layers}) must be at least 1")
        self.code_size = code_size
        self.mlp = glorot_mlp([code_size + feature_size, *[hidden_size] * hidden_layers, 1])

    def embed_codes(self, codes: Tensor) -> Tensor:
        first = cast(nn.Linear, self.mlp[0])
        return F.linear(codes, first.weight[:, : self.code_size], first.bias)

    def embed_features(self, features: Tensor) -> Tensor:
        return F.linear(features, cast(nn.Linear, self.mlp[0]).weight[:, self.code_size :])

    def matched(self, codes: Tensor, features: Tensor) -> Tensor:
        return self.mlp[1:](codes.unsqueeze(1) + features).squeeze(-1).float()

    def all_pairs(self, codes: Tensor, features: Tensor) -> Tensor:
        return self.mlp[1:](codes[:, None, None] + features[None]).squeeze(-1).float()


class DotScore(Score):
    """The paper's score: T(z, c) = <psi(z), phi(c)>, two learned embeddings of ``units`` dimensions.

    Each embedding is LayerNorm(MLP(x) + shortcut(x)), MLP = linear without bias - BatchNorm - ReLU - linear, applied
    per location. A side that already has ``units`` dimensions passes unchanged. All pairs are one matrix product.

    Source: arXiv 1808.06670; rdevon/DIM ``mi_networks.py`` (``MI1x1ConvNet``).

    Args:
        code_size: d.
        feature_size: C.
        units: number of dimensions of the embeddings.

    Example:
        model:
          score:
            class_path: DotScore
            init_args: {units: 512}
    """

    def __init__(self, code_size: int, feature_size: int, units: int = 2048) -> None:
        super().__init__()
        self.code_embedding = nn.Identity() if code_size == units else _ResidualEmbedding(code_size, units)
        self.feature_embedding = nn.Identity() if feature_size == units else _ResidualEmbedding(feature_size, units)

    def embed_codes(self, codes: Tensor) -> Tensor:
        return self.code_embedding(codes)

    def embed_features(self, features: Tensor) -> Tensor:
        return self.feature_embedding(features)

    def matched(self, codes: Tensor, features: Tensor) -> Tensor:
        with torch.autocast(codes.device.type, enabled=False):
            return torch.einsum("nu,nlu->nl", codes.float(), features.float())

    def all_pairs(self, codes: Tensor, features: Tensor) -> Tensor:
        # In float32: dot products of normalised 2048-vectors reach hundreds, where bfloat16 has steps of 1 or more.
        with torch.autocast(codes.device.type, enabled=False):
            table = codes.float() @ features.flatten(0, 1).float().t()
        return table.view(codes.shape[0], *features.shape[:2])


class _ResidualEmbedding(nn.Module):
    """LayerNorm(linear - BatchNorm - ReLU - linear + linear shortcut) over the last dimension of (..., in)."""

    def __init__(self, in_features: int, units: int) -> None:
        super().__init__()
        self.expand = nn.Linear(in_features, units, bias=False)
        self.norm = nn.BatchNorm1d(units)
        self.mix = nn.Linear(units, units)
        self.shortcut = nn.Linear(in_features, units, bias=False)
        self.output_norm = nn.LayerNorm(units)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Re-initialises the shortcut; the other layers re-initialise their own weights."""
        if self.shortcut.out_features >= self.shortcut.in_features:  # start close to the identity
            nn.init.uniform_(self.shortcut.weight, -0.01, 0.01)
            self.shortcut.weight.fill_diagonal_(1.0)

    def forward(self, inputs: Tensor) -> Tensor:
        flat = inputs.reshape(-1, inputs.shape[-1])
        hidden = self.mix(F.relu(self.norm(self.expand(flat))))
        return self.output_norm(hidden + self.shortcut(flat)).view(*inputs.shape[:-1], -1)


# ------------------------------------------------------------------------------------------------------- negatives


class Negatives(ABC):
    """Base class of the negative-sampling slot."""

    @abstractmethod
    def __call__(self, score: Score, codes: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Scores matching and other pairs.

        Args:
            score: T.
            codes: (N, U) embedded codes.
            features: (N, L, U) embedded features.

        Returns:
            positive (N, L); negative (N, K, L), for each code the locations of K images; a mask (N, K) of the images
            that count, None if all do. A mask leaves out one image of each row: estimates of mutual information count
            K - 1 others.

        Raises:
            ValueError: if the batch has fewer than two images, hence no negatives.
        """


class _OnePartner(Negatives):
    """One other image for each code."""

    @abstractmethod
    def permutation(self, size: int, device: torch.device) -> Tensor:
        """The partner of each image: (size,) int64."""

    def __call__(self, score: Score, codes: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        _check_batch(codes)
        partner = self.permutation(codes.shape[0], codes.device)
        # The partner's map moves as a whole, all its locations together. Both kinds of pairs are scored in one pass.
        scores = score.matched(torch.cat([codes, codes]), torch.cat([features, features[partner]]))
        positive, negative = scores.chunk(2)
        return positive, negative.unsqueeze(1), None


class Shuffle(_OnePartner):
    """The blog's negatives: a random permutation of the batch. On average one image is paired with itself.

    Example:
        model:
          negatives: Shuffle
    """

    def permutation(self, size: int, device: torch.device) -> Tensor:
        return torch.randperm(size, device=device)


class Derangement(_OnePartner):
    """A random cyclic permutation of the batch: like ``Shuffle``, but no image is paired with itself.

    Example:
        model:
          negatives: Derangement
    """

    def permutation(self, size: int, device: torch.device) -> Tensor:
        order = torch.randperm(size, device=device)
        partner = torch.empty_like(order)
        partner[order] = order.roll(1)
        return partner


class AllPairs(Negatives):
    """The paper's negatives: all other images of the batch.

    Example:
        model:
          negatives: AllPairs
    """

    def __call__(self, score: Score, codes: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        _check_batch(codes)
        table = score.all_pairs(codes, features)
        positive = table.diagonal(dim1=0, dim2=1).t()
        others = ~torch.eye(codes.shape[0], dtype=torch.bool, device=codes.device)
        return positive, table, others


def _check_batch(codes: Tensor) -> None:
    if codes.shape[0] < 2:
        raise ValueError("a batch of one image has no negatives: raise data.batch_size")


# ------------------------------------------------------------------------------------------------------ estimators


class Estimator(ABC):
    """Base class of the estimator slot: a loss on scores, and the bound on the mutual information that it gives."""

    @abstractmethod
    def __call__(self, positive: Tensor, negative: Tensor, mask: Tensor | None = None) -> Tensor:
        """The loss to minimise, in nats.

        Args:
            positive: (N, L) scores of matching pairs.
            negative: (N, K, L) scores of other pairs.
            mask: (N, K) bool, True for the other images that count; None: all.
        """

    @abstractmethod
    def mutual_information(self, loss: Tensor, num_negatives: float) -> Tensor:
        """The bound on the mutual information that a loss gives, in nats.

        Args:
            loss: value of the loss.
            num_negatives: number of negative vectors that each positive is compared with, K * L.
        """


class JSD(Estimator):
    """Jensen-Shannon: E_pos[softplus(-T)] + E_neg[softplus(T)], the loss of a binary classifier of pairs.

    2 log 2 = 1.386 nats at T = 0. The paper's JSD loss is this minus 2 log 2, so ``mutual_information`` (at most
    2 log 2; a surrogate, not the mutual information itself) is the negative of the paper's loss.

    Example:
        model:
          estimator: JSD
    """

    def __call__(self, positive: Tensor, negative: Tensor, mask: Tensor | None = None) -> Tensor:
        return F.softplus(-positive).mean() + _masked_mean(F.softplus(negative), mask)

    def mutual_information(self, loss: Tensor, num_negatives: float) -> Tensor:
        return 2 * math.log(2) - loss


class InfoNCE(Estimator):
    """infoNCE: -log softmax of each positive against itself and all negative vectors of its code.

    -mean_{n,l} log( e^{T(z_n, c_n,l)} / (e^{T(z_n, c_n,l)} + sum_{m != n, k} e^{T(z_n, c_m,k)}) )
    = mean_{n,l} softplus( logsumexp_{m != n, k} T(z_n, c_m,k) - T(z_n, c_n,l) ).

    The bound log(1 + number of negatives) - loss grows with the batch. Masked pairs are left out, not set to -10 as
    in rdevon/DIM, where they leak into the sum.

    Example:
        import torch

        from layers import InfoNCE

        positive = torch.randn(8, 16)  # 8 codes, 16 locations each
        negative = torch.randn(8, 7, 16)  # the locations of 7 other images for each code
        loss = InfoNCE()(positive, negative)
        bound = InfoNCE().mutual_information(loss, num_negatives=7 * 16)  # nats
    """

    def __call__(self, positive: Tensor, negative: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is not None:
            negative = negative.masked_fill(~mask.unsqueeze(-1), -torch.inf)
        return F.softplus(negative.flatten(1).logsumexp(1, keepdim=True) - positive).mean()

    def mutual_information(self, loss: Tensor, num_negatives: float) -> Tensor:
        return math.log1p(num_negatives) - loss


class DonskerVaradhan(Estimator):
    """Donsker-Varadhan: log E_neg[e^T] - E_pos[T]; its negative is a lower bound on the mutual information.

    The expectation runs over all negative pairs and locations. rdevon/DIM divides by the pairs only: its value is
    higher by log(locations), with the same gradient.

    Example:
        model:
          estimator: DonskerVaradhan
    """

    def __call__(self, positive: Tensor, negative: Tensor, mask: Tensor | None = None) -> Tensor:
        number = negative.numel() if mask is None else mask.sum() * negative.shape[-1]
        if mask is not None:
            negative = negative.masked_fill(~mask.unsqueeze(-1), -torch.inf)
        count = torch.as_tensor(number, dtype=negative.dtype, device=negative.device)
        return negative.flatten().logsumexp(0) - count.log() - positive.mean()

    def mutual_information(self, loss: Tensor, num_negatives: float) -> Tensor:
        return -loss


def _masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return values.mean()
    return (values * mask.unsqueeze(-1)).sum() / (mask.sum() * values.shape[-1])
