"""The layers of the triple extractor against the formula, written as loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from layers import (
    DGCNN,
    AttentionEncoder,
    BiLSTM,
    CharacterAttention,
    GatedConvolution,
    GlobalDetectors,
    ObjectHead,
    SequenceConvolution,
    SpanVector,
    SubjectHead,
    binary_cross_entropy_of_log_probability,
    log_sigmoid,
    pair_spans,
)
from layers.attention import (
    AtrousAttention,
    FixedAttention,
    FullAttention,
    LocalAttention,
    MultiheadSelfAttention,
    SparseAttention,
)

VOCABULARY = ["<pad>", "<unk>", *map(chr, range(97, 123))]


def padded(lengths: list[int], size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random rows (B, L, size), zero after their ends, and the mask (B, L, 1)."""
    mask = torch.zeros(len(lengths), max(lengths), 1)
    for row, length in enumerate(lengths):
        mask[row, :length] = 1
    return torch.randn(*mask.shape[:2], size, generator=torch.Generator().manual_seed(seed)) * mask, mask


@pytest.mark.parametrize("dilation", [1, 2, 5])
def test_sequence_convolution_is_torchs_convolution(dilation: int):
    layer = SequenceConvolution(6, 10, dilation)
    x = torch.randn(3, 12, 6)
    weight = layer.weight.view(10, 3, 6).permute(0, 2, 1)  # torch's order: out, in, kernel
    expected = F.conv1d(x.transpose(1, 2), weight, layer.bias, padding=dilation, dilation=dilation).transpose(1, 2)
    torch.testing.assert_close(layer(x), expected)


def test_gated_convolution_is_the_formula_at_each_position():
    layer = GatedConvolution(4, dilation=2).eval()
    x, mask = padded([9, 5], 4)
    weight, bias = layer.convolution.weight, layer.convolution.bias
    for row, length in enumerate([9, 5]):
        for i in range(9):
            if i >= length:
                assert not layer(x, mask)[row, i].any()
                continue
            seen = [x[row, j] if 0 <= j < 9 else torch.zeros(4) for j in (i - 2, i, i + 2)]
            gate, new = (weight @ torch.cat(seen) + bias).chunk(2)
            expected = gate.sigmoid() * x[row, i] + (1 - gate.sigmoid()) * new
            torch.testing.assert_close(layer(x, mask)[row, i], expected)


def test_dropout_acts_on_the_gate_alone():
    layer = GatedConvolution(4, dropout=1 - 1e-9).train()
    x, mask = padded([6], 4)
    new = layer.convolution(x).chunk(2, -1)[1]
    torch.testing.assert_close(layer(x, mask), 0.5 * x + 0.5 * new)


def test_the_recipe_sees_27_characters_to_each_side():
    encoder = DGCNN(VOCABULARY, 0, 128, size=8).eval()
    kept = {}
    encoder.embedding.register_forward_hook(lambda module, inputs, output: kept.update(x=output))
    output = encoder(torch.randint(2, 28, (1, 100)), None, torch.ones(1, 100, 1))
    (gradient,) = torch.autograd.grad(output[0, 50].sum(), kept["x"])
    seen = gradient[0].abs().sum(-1) > 0
    assert seen.nonzero().flatten().tolist() == list(range(50 - 27, 50 + 28))


@pytest.mark.parametrize("make", [DGCNN, BiLSTM])
def test_a_batch_of_different_lengths_equals_one_by_one(make: type):
    encoder = make(VOCABULARY, 5, 64, size=8).eval()
    torch.nn.init.normal_(encoder.positions.weight)
    lengths = [17, 3, 40, 1]
    characters = torch.randint(2, 28, (4, 40))
    words = torch.randn(4, 40, 5)
    mask = (torch.arange(40) < torch.tensor(lengths)[:, None]).unsqueeze(-1).float()
    together = encoder(characters * mask.squeeze(-1).long(), words, mask)
    for row, length in enumerate(lengths):
        alone = encoder(characters[row : row + 1, :length], words[row : row + 1, :length], mask[row : row + 1, :length])
        torch.testing.assert_close(together[row, :length], alone[0], atol=1e-6, rtol=1e-5)
        assert not together[row, length:].any()


def test_masked_positions_stay_zero_after_every_block():
    encoder = DGCNN(VOCABULARY, 0, 64, size=8)
    torch.nn.init.normal_(encoder.positions.weight)
    mask = (torch.arange(20) < torch.tensor([20, 7])[:, None]).unsqueeze(-1).float()
    outputs = []
    for module in (encoder.embedding, *encoder.blocks):
        module.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    encoder(torch.randint(2, 28, (2, 20)), None, mask)
    assert len(outputs) == 13
    for output in outputs:
        assert not output[1, 7:].any()
        assert output[1, :7].any()


def test_self_attention_is_the_formula_and_ignores_padding():
    layer = CharacterAttention(6, heads=2, head_size=3)
    x, mask = padded([5, 3], 6)
    query, key, value = (x @ part.T for part in layer.projection.weight.chunk(3))
    for row, length in enumerate([5, 3]):
        for head in range(2):
            part = slice(3 * head, 3 * head + 3)
            for i in range(length):
                scores = torch.stack([query[row, i, part] @ key[row, j, part] for j in range(length)]) / math.sqrt(3)
                expected = scores.softmax(0) @ value[row, :length, part]
                torch.testing.assert_close(layer(x, mask)[row, i, part], expected)
    assert not layer(x, mask)[1, 3:].any()


def test_span_vector_reads_six_points_from_the_end_to_the_start():
    layer = SpanVector(4)
    spans = torch.tensor([[2, 7], [3, 3], [0, 1]])
    points = layer.points(spans).tolist()
    assert points[0] == [7, 6, 5, 4, 3, 2]
    assert points[1] == [3] * 6
    assert points[2] == [1, 1, 1, 0, 0, 0]
    encoded = torch.randn(2, 9, 4)
    rows = torch.tensor([0, 1, 1])
    output = layer(encoded, rows, spans)
    for number in range(3):
        states = encoded[rows[number], points[number]].unsqueeze(0)
        read, _ = layer.gru(states)
        torch.testing.assert_close(output[number], torch.cat([read[0, -1, :4], read[0, 0, 4:]]))


def test_detectors_take_the_maximum_over_characters_only():
    layer = GlobalDetectors(4, 3)
    x, mask = padded([6, 2], 4)
    entities, relations = layer(x - 5 * mask, mask)  # all negative: a maximum over padding would be 0
    expected = layer.relations((x - 5)[1, :2].amax(0)).sigmoid().log()
    torch.testing.assert_close(relations[1], expected)
    torch.testing.assert_close(entities[0, 3], layer.entities(x[0, 3] - 5).sigmoid().log())


def naive_head(encoded: Tensor, mask: Tensor, parts: list[Tensor], weight: Tensor, bias: Tensor) -> Tensor:
    """ReLU of a convolution of kernel 3 over concatenated parts, zero outside the mask, position by position."""
    x = torch.cat(parts, -1) * mask
    rows = []
    for row in range(len(x)):
        line = []
        for i in range(x.shape[1]):
            seen = [x[row, j] if 0 <= j < x.shape[1] else torch.zeros(x.shape[2]) for j in (i - 1, i, i + 1)]
            line.append((weight @ torch.cat(seen) + bias).relu())
        rows.append(torch.stack(line))
    return torch.stack(rows)


def test_subject_head_is_the_formula():
    head = SubjectHead(6, 2)
    x, mask = padded([7, 4], 6)
    prior = torch.randint(0, 2, (2, 7, 2)).float() * mask
    parts = [x, head.attention(x, mask), prior]
    hidden = naive_head(x, mask, parts, head.convolution.weight, head.convolution.bias)
    torch.testing.assert_close(head(x, mask, prior), head.ends(hidden))


def test_object_head_equals_one_convolution_over_everything():
    torch.manual_seed(1)
    size, predicates = 6, 4
    head = ObjectHead(size, predicates, 2, 2 * predicates)
    x, mask = padded([7, 4], size)
    positions = torch.nn.Embedding(16, size)
    rows, spans = torch.tensor([0, 0, 1]), torch.tensor([[1, 3], [5, 5], [0, 2]])
    subject_prior = torch.randint(0, 2, (2, 7, 2)).float() * mask
    object_prior = torch.randint(0, 2, (3, 7, 2 * predicates)).float() * mask[rows]
    log_p = head(x, mask, head.shared(x, mask, subject_prior), positions, rows, spans, object_prior)
    # k: the subject's vector plus the embedded distances to its start and its end.
    vector = head.span_vector(x, rows, spans)
    about = torch.zeros(3, 7, 2 * size)
    for number, (start, end) in enumerate(spans.tolist()):
        for i in range(7):
            distances = torch.cat([positions.weight[abs(i - start)], positions.weight[abs(i - end)]])
            about[number, i] = vector[number] + distances
    attended = head.attention(x, mask)[rows]
    parts = [x[rows], attended, about, subject_prior[rows], object_prior]
    # The two matrices as that of one convolution over parts in this order.
    text, subject = head.text_part.weight.view(128, 3, -1), head.subject_part.weight.view(128, 3, -1)
    split = text.split([size, 128, 2], -1), subject.split([2 * size, 2 * predicates], -1)
    weight = torch.cat([split[0][0], split[0][1], split[1][0], split[0][2], split[1][1]], -1).flatten(1)
    hidden = naive_head(x[rows], mask[rows], parts, weight, head.text_part.bias)
    ends = head.ends(hidden).sigmoid().view(3, 7, predicates, 2) * head.some(hidden).sigmoid().unsqueeze(-1)
    torch.testing.assert_close(log_p.exp(), ends, atol=1e-6, rtol=1e-4)


def test_cross_entropy_of_products_is_that_of_the_product():
    logits = torch.randn(3, 50, dtype=torch.float64)
    target = torch.rand(50) < 0.3
    log_p = log_sigmoid(logits).sum(0)
    expected = F.binary_cross_entropy(logits.sigmoid().prod(0), target.double(), reduction="none")
    torch.testing.assert_close(binary_cross_entropy_of_log_probability(log_p, target), expected)


def test_cross_entropy_of_products_has_the_right_gradient():
    logits = torch.randn(3, 20, dtype=torch.float64, requires_grad=True)
    target = torch.rand(20) < 0.3
    assert torch.autograd.gradcheck(
        lambda x: binary_cross_entropy_of_log_probability(log_sigmoid(x).sum(0), target), logits
    )


@pytest.mark.parametrize("logit", [-200.0, -80.0, -20.0, 20.0, 80.0, 200.0])
@pytest.mark.parametrize("truth", [False, True])
def test_cross_entropy_is_finite_and_its_gradient_right_at_extreme_logits(logit: float, truth: bool):
    x = torch.full((2,), logit, requires_grad=True)
    loss = binary_cross_entropy_of_log_probability(log_sigmoid(x).sum(), torch.tensor(truth))
    loss.backward()
    assert loss.isfinite()
    assert x.grad.isfinite().all()
    exact = torch.full((2,), logit, dtype=torch.float64)
    p = torch.sigmoid(exact).prod()
    # d/dx of log p is 1 - sigmoid(x); of log(1 - p) for the other case.
    if truth:
        expected = -(1 - torch.sigmoid(exact[0]))
        assert x.grad[0].item() == pytest.approx(expected.item(), abs=1e-6)
        assert loss.item() == pytest.approx(-2 * F.logsigmoid(exact[0]).item(), rel=1e-5)
    elif logit < 0:
        assert loss.item() == pytest.approx(p.item(), abs=1e-6)
        assert x.grad.abs().max() < 1e-6
    elif logit < 87:  # log p is not yet rounded to 0
        assert x.grad[0].item() == pytest.approx(0.5, abs=1e-6), "confidently wrong: pushed down at full strength"
        assert loss.item() == pytest.approx(logit - math.log(2), rel=1e-6)
    else:
        assert loss.item() == pytest.approx(-math.log(torch.finfo(torch.float32).tiny), rel=1e-6)


def naive_pairs(start: Tensor, end: Tensor, low: float, high: float) -> list[list[int]]:
    found = []
    for row in range(len(start)):
        for i in range(start.shape[1]):
            if start[row, i] > low:
                ends = [j for j in range(i, start.shape[1]) if end[row, j] > high]
                if ends:
                    found.append([row, i, ends[0]])
    return found


@settings(max_examples=50, deadline=None)
@given(rows=st.integers(0, 5), length=st.integers(1, 20), seed=st.integers(0, 10**6))
def test_pairs_are_those_of_a_loop(rows: int, length: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    start, end = torch.rand(2, rows, length, generator=generator)
    assert pair_spans(start, end, 0.6, 0.7).tolist() == naive_pairs(start, end, 0.6, 0.7)


def pairs_of(spans: list[tuple[int, int]], pairing: str) -> list[tuple[int, int]]:
    """What the starts and ends of spans are paired to, in one of two sequences."""
    start, end = torch.zeros(2, 9), torch.zeros(2, 9)
    for first, last in spans:
        start[1, first] = end[1, last] = 1
    found = pair_spans(start, end, 0.5, 0.5, pairing).tolist()
    assert all(sequence == 1 for sequence, _, _ in found)
    return [(first, last) for _, first, last in found]


@pytest.mark.parametrize(
    ("spans", "nearest"),
    [
        ([(0, 2), (0, 4)], [(0, 2)]),  # 北京市 in 北京市政府
        ([(0, 2), (0, 4), (0, 7)], [(0, 2)]),
        ([(0, 5), (2, 5)], [(0, 5), (2, 5)]),  # one end
        ([(0, 6), (2, 3)], [(0, 3), (2, 3)]),  # inside
        ([(0, 2), (0, 4), (6, 6), (7, 8)], [(0, 2), (6, 6), (7, 8)]),
        ([(1, 1)], [(1, 1)]),
        ([], []),
    ],
)
def test_nested_spans_are_all_found_when_asked(spans: list[tuple[int, int]], nearest: list[tuple[int, int]]):
    assert pairs_of(spans, "nested") == sorted(spans)
    assert pairs_of(spans, "nearest") == nearest


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 2)), max_size=4))
def test_nested_pairing_of_separate_spans_is_the_nearest(drawn: list[tuple[int, int]]):
    spans, free = [], 0
    for first, length in sorted(drawn):
        if first >= free and first + length < 9:
            spans.append((first, first + length))
            free = first + length + 1
    assert pairs_of(spans, "nested") == pairs_of(spans, "nearest") == spans


def test_ends_without_a_start_and_starts_without_an_end():
    start, end = torch.tensor([[0.0, 1, 0, 1, 0, 0]]), torch.tensor([[1.0, 0, 0, 0, 0, 0]])
    assert pair_spans(start, end, 0.5, 0.5, "nested").shape == (0, 3)
    end[0, 4] = 1
    assert pair_spans(start, end, 0.5, 0.5, "nested").tolist() == [[0, 1, 4], [0, 3, 4]]


@pytest.mark.parametrize("kind", [FullAttention, AtrousAttention, LocalAttention, SparseAttention, FixedAttention])
def test_triple_encoder_sees_no_padding(kind: type[MultiheadSelfAttention]):
    encoder = AttentionEncoder(["a", "b", "c"], 5, 40, size=16, num_layers=2, num_heads=2, attention=kind).eval()
    torch.nn.init.normal_(encoder.positions.weight)
    characters, words, mask = torch.randint(0, 3, (2, 30)), torch.randn(2, 30, 5), torch.ones(2, 30, 1)
    mask[1, 20:] = 0
    output = encoder(characters, words, mask)
    assert output.shape == (2, 30, 16)
    assert not output[1, 20:].any()
    alone = encoder(characters[1:, :20], words[1:, :20], mask[1:, :20])
    torch.testing.assert_close(output[1:, :20], alone)
    # The order matters, through the table of positions.
    turned = encoder(characters.flip(1), words.flip(1), mask.flip(1)).flip(1)
    assert not torch.allclose(turned[0], output[0], atol=1e-3)
