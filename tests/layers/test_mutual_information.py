"""Losses against loops written from the specification's formulas."""

import math

import pytest
import torch
from torch.nn import functional as F

from layers import JSD, AllPairs, ConcatScore, Derangement, DonskerVaradhan, DotScore, InfoNCE, Shuffle

N, L, D, C = 5, 3, 6, 4


def scores(seed: int = 0) -> torch.Tensor:
    """A table u[n, m, l] of the spec: code n, image m, location l."""
    return torch.randn(N, N, L, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 3


def split(table: torch.Tensor):
    """Positives (N, L), negatives (N, N, L) and mask, as AllPairs gives them."""
    positive = torch.stack([table[n, n] for n in range(N)])
    mask = torch.tensor([[n != m for m in range(N)] for n in range(N)])
    return positive, table, mask


def jsd_by_loops(table):
    """The official form: E_neg[softplus(u) - log 2] - E_pos[log 2 - softplus(-u)]."""
    positive = [math.log(2) - math.log1p(math.exp(-table[n, n, i])) for n in range(N) for i in range(L)]
    negative = [
        math.log1p(math.exp(table[n, m, i])) - math.log(2)
        for n in range(N)
        for m in range(N)
        if m != n
        for i in range(L)
    ]
    return sum(negative) / len(negative) - sum(positive) / len(positive)


def infonce_by_loops(table):
    total = 0.0
    for n in range(N):
        others = sum(math.exp(table[n, m, j]) for m in range(N) if m != n for j in range(L))
        for i in range(L):
            own = math.exp(table[n, n, i])
            total -= math.log(own / (own + others))
    return total / (N * L)


def dv_by_loops(table):
    others = [math.exp(table[n, m, j]) for n in range(N) for m in range(N) if m != n for j in range(L)]
    own = [float(table[n, n, i]) for n in range(N) for i in range(L)]
    return math.log(sum(others) / len(others)) - sum(own) / len(own)


@pytest.mark.parametrize(
    ("estimator", "by_loops", "shift"),
    [(JSD(), jsd_by_loops, 2 * math.log(2)), (InfoNCE(), infonce_by_loops, 0), (DonskerVaradhan(), dv_by_loops, 0)],
)
def test_estimators_equal_the_loops(estimator, by_loops, shift):
    table = scores()
    assert float(estimator(*split(table))) == pytest.approx(by_loops(table) + shift, abs=1e-12)


def test_masked_pairs_do_not_count_however_large():
    table = scores()
    for estimator in (JSD(), InfoNCE(), DonskerVaradhan()):
        positive, negative, mask = split(table)
        before = estimator(positive, negative, mask)
        spoiled = negative.masked_fill(~mask.unsqueeze(-1), 80.0)
        torch.testing.assert_close(estimator(positive, spoiled, mask), before)


@pytest.mark.parametrize("estimator", [JSD(), InfoNCE(), DonskerVaradhan()])
def test_gradients(estimator):
    table = scores().requires_grad_()
    assert torch.autograd.gradcheck(lambda t: estimator(*split(t)), (table,))


def test_values_at_zero_scores():
    zero = torch.zeros(N, L), torch.zeros(N, N - 1, L)
    assert float(JSD()(*zero)) == pytest.approx(2 * math.log(2))
    assert float(InfoNCE()(*zero)) == pytest.approx(math.log(1 + (N - 1) * L))
    assert float(DonskerVaradhan()(*zero)) == pytest.approx(0, abs=1e-6)
    for estimator in (JSD(), InfoNCE(), DonskerVaradhan()):
        bound = estimator.mutual_information(estimator(*zero), (N - 1) * L)
        assert float(bound) == pytest.approx(0, abs=1e-6)


def test_large_scores_stay_finite():
    table = scores() * 1e4
    for estimator in (JSD(), InfoNCE(), DonskerVaradhan()):
        assert torch.isfinite(estimator(*split(table)))


# ---------------------------------------------------------------------------------------------------------- scores


def test_concat_score_is_the_mlp_on_the_concatenation():
    score = ConcatScore(D, C, hidden_size=8).double()
    codes, features = torch.randn(N, D, dtype=torch.float64), torch.randn(N, L, C, dtype=torch.float64)
    embedded = score.embed_codes(codes), score.embed_features(features)
    pairs, matched = score.all_pairs(*embedded), score.matched(*embedded)
    for n in range(N):
        for m in range(N):
            for i in range(L):
                expected = score.mlp(torch.cat([codes[n], features[m, i]]))
                torch.testing.assert_close(pairs[n, m, i], expected[0].float())
    torch.testing.assert_close(matched, torch.stack([pairs[n, n] for n in range(N)]))


def test_dot_score_is_the_product_of_both_embeddings():
    score = DotScore(D, C, units=7).eval()
    codes, features = torch.randn(N, D), torch.randn(N, L, C)

    def embed(block, vector):
        hidden = block.mix(F.relu(block.norm(block.expand(vector[None]))))
        return F.layer_norm(
            hidden + block.shortcut(vector[None]), (7,), block.output_norm.weight, block.output_norm.bias
        )

    pairs = score.all_pairs(score.embed_codes(codes), score.embed_features(features))
    for n in range(N):
        for m in range(N):
            for i in range(L):
                code, feature = embed(score.code_embedding, codes[n]), embed(score.feature_embedding, features[m, i])
                torch.testing.assert_close(pairs[n, m, i], (code * feature).sum(), atol=1e-5, rtol=1e-5)


def test_dot_score_shortcut_starts_near_the_identity_where_it_can():
    wide = DotScore(4, 9, units=6)
    weight = wide.code_embedding.shortcut.weight
    assert torch.equal(weight.diagonal(), torch.ones(4))
    assert (weight - torch.eye(6, 4)).abs().max() <= 0.01
    assert not torch.equal(wide.feature_embedding.shortcut.weight.diagonal(), torch.ones(6))


def test_dot_score_leaves_a_side_of_the_right_size_alone():
    score = DotScore(5, 8, units=8)
    features = torch.randn(2, 3, 8)
    assert torch.equal(score.embed_features(features), features)


def test_scores_are_float32_under_autocast():
    codes, features = torch.randn(4, D), torch.randn(4, L, C)
    for score in (ConcatScore(D, C, hidden_size=8), DotScore(D, C, units=8)):
        with torch.autocast("cpu", torch.bfloat16):
            embedded = score.embed_codes(codes), score.embed_features(features)
            assert score.matched(*embedded).dtype == torch.float32
            assert score.all_pairs(*embedded).dtype == torch.float32


# ------------------------------------------------------------------------------------------------------- negatives


class FirstFeature(ConcatScore):
    """A score that shows which pair it was given: 100 * code + feature."""

    def embed_codes(self, codes):
        return codes

    def embed_features(self, features):
        return features

    def matched(self, codes, features):
        return 100 * codes[:, None, 0] + features[..., 0]

    def all_pairs(self, codes, features):
        return 100 * codes[:, None, None, 0] + features[None, ..., 0]


def numbered():
    """Code n is n; location l of image n is n + l / 10."""
    codes = torch.arange(6.0).unsqueeze(1)
    features = (codes + torch.arange(3) / 10).unsqueeze(-1)
    return codes, features


@pytest.mark.parametrize("negatives", [Shuffle(), Derangement()])
def test_all_locations_of_the_partner_move_together(negatives):
    codes, features = numbered()
    positive, negative, mask = negatives(FirstFeature(1, 1), codes, features)
    assert mask is None
    torch.testing.assert_close(positive, 101 * codes + torch.arange(3) / 10)
    partner = negative[:, 0] - 100 * codes
    torch.testing.assert_close(partner, partner[:, :1].round() + torch.arange(3) / 10, atol=1e-3, rtol=0)
    assert sorted(partner[:, 0].round().tolist()) == [0, 1, 2, 3, 4, 5]


def test_derangement_has_no_fixed_point_and_shuffle_one_on_average():
    fixed = {
        negatives: [int((negatives.permutation(8, torch.device("cpu")) == torch.arange(8)).sum()) for _ in range(2000)]
        for negatives in (Shuffle(), Derangement())
    }
    means = {type(negatives).__name__: sum(counts) / len(counts) for negatives, counts in fixed.items()}
    assert means["Derangement"] == 0
    assert 0.85 < means["Shuffle"] < 1.15


def test_all_pairs_takes_every_other_image():
    codes, features = numbered()
    positive, negative, mask = AllPairs()(FirstFeature(1, 1), codes, features)
    torch.testing.assert_close(positive, 101 * codes + torch.arange(3) / 10)
    for n in range(6):
        for m in range(6):
            assert bool(mask[n, m]) == (n != m)
            torch.testing.assert_close(negative[n, m], 100.0 * n + m + torch.arange(3) / 10)


def test_all_pairs_losses_do_not_depend_on_the_order_of_the_batch():
    score = DotScore(D, C, units=7)
    codes, features, order = torch.randn(N, D), torch.randn(N, L, C), torch.randperm(N)
    for estimator in (JSD(), InfoNCE(), DonskerVaradhan()):
        losses = [
            estimator(*AllPairs()(score, score.embed_codes(z), score.embed_features(c)))
            for z, c in ((codes, features), (codes[order], features[order]))
        ]
        torch.testing.assert_close(*losses)


@pytest.mark.parametrize("negatives", [Shuffle(), Derangement(), AllPairs()])
def test_one_image_has_no_negatives(negatives):
    with pytest.raises(ValueError, match="batch_size"):
        negatives(FirstFeature(1, 1), torch.zeros(1, 1), torch.zeros(1, 2, 1))
