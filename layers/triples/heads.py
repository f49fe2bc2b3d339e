"""Heads of the triple extractor: which spans are subjects, and which are a subject's objects by predicate."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .gated_convolution import SequenceConvolution

UNITS = 128  # size of every hidden layer


class CharacterAttention(nn.Module):
    """Multi-head self-attention without biases and output projection: (B, L, D) -> (B, L, heads * head_size).

    Args:
        size: D.
        heads: number of heads.
        head_size: size of each head.

    Attributes:
        output_size: heads * head_size.
    """

    def __init__(self, size: int, heads: int = 8, head_size: int = 16) -> None:
        super().__init__()
        self.heads, self.output_size = heads, heads * head_size
        self.projection = nn.Linear(size, 3 * self.output_size, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Re-initialises the projections to queries, keys and values, each by itself."""
        for part in self.projection.weight.detach().chunk(3):
            nn.init.xavier_normal_(part)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, L, D) and the mask (B, L, 1), 0 for padding -> (B, L, heads * head_size), zero at padding."""
        query, key, value = self.projection(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = mask.bool().transpose(1, 2).unsqueeze(1)  # (B, 1, 1, L)
        output = F.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        return output.transpose(1, 2).flatten(2) * mask.to(output.dtype)


class GlobalDetectors(nn.Module):
    """Where any entity starts or ends and which relations a text has, as factors of all other probabilities.

        log sigmoid of: Linear(ReLU(Linear(t))) at each position (2);  Linear(ReLU(Linear(max_i t_i))) (C)

    They have no loss of their own.

    Args:
        size: D of the encoded characters.
        num_predicates: C.
    """

    def __init__(self, size: int, num_predicates: int) -> None:
        super().__init__()
        self.entities = nn.Sequential(nn.Linear(size, UNITS), nn.ReLU(), nn.Linear(UNITS, 2))
        self.relations = nn.Sequential(nn.Linear(size, UNITS), nn.ReLU(), nn.Linear(UNITS, num_predicates))

    def forward(self, encoded: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L, D), (B, L, 1) -> log-probabilities in float32: entity starts and ends (B, L, 2), relations (B, C)."""
        strongest = encoded.masked_fill(~mask.bool(), float("-inf")).amax(dim=1)
        return log_sigmoid(self.entities(encoded)), log_sigmoid(self.relations(strongest))


class SubjectHead(nn.Module):
    """Logits of subject starts and ends: Linear(ReLU(Conv_3([t, CharacterAttention(t), prior]))).

    Args:
        size: D of the encoded characters.
        prior_size: number of distant-supervision features per position; 0 for none.
    """

    def __init__(self, size: int, prior_size: int) -> None:
        super().__init__()
        self.attention = CharacterAttention(size)
        self.convolution = SequenceConvolution(size + self.attention.output_size + prior_size, UNITS)
        self.ends = nn.Linear(UNITS, 2)

    def forward(self, encoded: Tensor, mask: Tensor, prior: Tensor | None) -> Tensor:
        """(B, L, D), (B, L, 1), (B, L, prior_size) or None -> (B, L, 2)."""
        parts = [encoded, self.attention(encoded, mask)] + ([] if prior is None else [prior.to(encoded.dtype)])
        return self.ends(self.convolution(torch.cat(parts, dim=-1)).relu())


class SpanVector(nn.Module):
    """A span's vector: the last states of a bidirectional GRU over six positions from its end to its start.

    Positions are round(a * start + (1 - a) * end), a = 0, 0.2, ... 1.

    Args:
        size: D of the encoded characters; the vector has 2 D.
        num_points: number of positions.
    """

    shares: Tensor

    def __init__(self, size: int, num_points: int = 6) -> None:
        super().__init__()
        self.gru = nn.GRU(size, size, batch_first=True, bidirectional=True)
        self.register_buffer("shares", torch.linspace(0, 1, num_points), persistent=False)

    def points(self, spans: Tensor) -> Tensor:
        """Start and inclusive end (S, 2) int64 -> positions (S, num_points) int64."""
        start, end = spans.unsqueeze(-1).unbind(1)
        return (start * self.shares + end * (1 - self.shares)).round().long()

    def forward(self, encoded: Tensor, rows: Tensor, spans: Tensor) -> Tensor:
        """(B, L, D), the row of each span (S,) and the spans (S, 2) -> (S, 2 D)."""
        _, last = self.gru(encoded[rows.unsqueeze(1), self.points(spans)])
        return last.transpose(0, 1).flatten(1)


class ObjectHead(nn.Module):
    """For one subject: log-probabilities of object starts and ends for each predicate.

        h = ReLU(Conv_3([t, CharacterAttention(t), k, prior]))
        k_i = SpanVector(subject) + [P(|i - start|), P(|i - end|)],   P: the encoder's table of positions
        log sigmoid(Linear(h)) + log sigmoid(Linear_C(h))             (there is some object) * (it is of this predicate)

    The convolution is linear before its ReLU, so what doesn't depend on the subject is convolved once for all subjects
    of a text (``shared``).

    Args:
        size: D of the encoded characters.
        num_predicates: C.
        subject_prior_size: number of distant-supervision features about subjects per position; 0 for none.
        object_prior_size: number of those about objects of the given subject; 0 for none.
    """

    def __init__(self, size: int, num_predicates: int, subject_prior_size: int, object_prior_size: int) -> None:
        super().__init__()
        self.attention = CharacterAttention(size)
        self.span_vector = SpanVector(size)
        self.text_part = SequenceConvolution(size + self.attention.output_size + subject_prior_size, UNITS)
        self.subject_part = SequenceConvolution(2 * size + object_prior_size, UNITS, bias=False)
        self.reset_parameters()
        self.some = nn.Linear(UNITS, 1)
        self.ends = nn.Linear(UNITS, 2 * num_predicates)

    def reset_parameters(self) -> None:
        """Re-initialises the weights of the convolution's two parts."""
        # Glorot's bound for the two as one convolution.
        inputs = self.text_part.in_features + self.subject_part.in_features
        bound = (6 / (inputs + 3 * UNITS)) ** 0.5
        for part in (self.text_part, self.subject_part):
            nn.init.uniform_(part.weight, -bound, bound)

    def shared(self, encoded: Tensor, mask: Tensor, prior: Tensor | None) -> Tensor:
        """What all subjects share: (B, L, D), (B, L, 1), (B, L, subject_prior_size) or None -> (B, L, UNITS)."""
        parts = [encoded, self.attention(encoded, mask)] + ([] if prior is None else [prior.to(encoded.dtype)])
        return self.text_part(torch.cat(parts, dim=-1))

    def forward(
        self,
        encoded: Tensor,
        mask: Tensor,
        shared: Tensor,
        positions: nn.Embedding,
        rows: Tensor,
        spans: Tensor,
        prior: Tensor | None,
    ) -> Tensor:
        """Scores the objects of S subjects.

        Args:
            encoded: (B, L, D).
            mask: (B, L, 1).
            shared: (B, L, UNITS), from ``shared``.
            positions: the table P.
            rows: (S,) int64, the batch row of each subject.
            spans: (S, 2) int64, start and inclusive end of each subject.
            prior: (S, L, object_prior_size), or None.

        Returns:
            (S, L, C, 2) float32, log-probabilities of starts and ends.
        """
        place = torch.arange(encoded.shape[1], device=encoded.device)
        distances = (place.unsqueeze(-1) - spans.unsqueeze(1)).abs()  # (S, L, 2)
        about = positions(distances).flatten(2) + self.span_vector(encoded, rows, spans).unsqueeze(1)
        parts = [about] if prior is None else [about, prior.to(about.dtype)]
        own = self.subject_part(torch.cat(parts, dim=-1) * mask[rows].to(about.dtype))
        hidden = (shared[rows] + own).relu()
        ends = log_sigmoid(self.ends(hidden)).unflatten(-1, (-1, 2))
        return ends + log_sigmoid(self.some(hidden)).unsqueeze(-1)


def log_sigmoid(logits: Tensor) -> Tensor:
    """Log of the sigmoid, in float32 at least: sums of these are products of probabilities."""
    return F.logsigmoid(logits if logits.dtype == torch.float64 else logits.float())
