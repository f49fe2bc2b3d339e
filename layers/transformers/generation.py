"""Autoregressive generation, token by token."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .sparse_transformer import SparseTransformerNetwork


@torch.no_grad()
def generate(
    network: SparseTransformerNetwork,
    prompts: Tensor,
    count: int,
    *,
    lengths: Tensor | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    generator: torch.Generator | None = None,
    never: Sequence[int] = (),
) -> Tensor:
    """Continues prompts. Each token is read once, with the attentions' keys and values cached; the positions that
    all prompts have are read in one call.

    Args:
        network: the network, in evaluation mode.
        prompts: (B, P) int64; shorter prompts are padded at the end with any token. P may be 0 if the network has a
            start.
        count: number of tokens to add to each prompt.
        lengths: (B,) int64, number of tokens in each prompt; None: P.
        temperature: divides the logits; 0 takes the most probable token.
        top_k: draw only from this many of the most probable tokens; None: from all.
        generator: random generator on the network's device; None: torch's default.
        never: tokens that are not drawn, unless there is no other.

    Returns:
        (B, P + count) int64: row b is the prompt followed by ``count`` tokens from position ``lengths[b]`` on; what
        comes after them has no meaning.

    Raises:
        ValueError: if there is nothing to start from, an argument is out of range, or there are too few positions.
    """
    check_sampling(temperature, top_k)
    batch, longest = prompts.shape
    if lengths is None:
        lengths = prompts.new_full((batch,), longest)
    shortest, total = int(lengths.min()), longest + count
    first = 1 if network.start is None else 0
    if shortest < first:
        raise ValueError("an empty prompt: the network has no start, give at least one token")
    tokens = torch.cat([prompts, prompts.new_zeros(batch, count)], dim=1)
    if not count:
        return tokens
    state = network.init_state(batch, total - first)
    logits = network.prefill(tokens[:, :shortest], state)
    for place in range(shortest, total):
        if 0 < len(never) < logits.shape[-1]:
            logits[:, list(never)] = float("-inf")
        drawn = draw(logits, temperature, top_k, generator)
        tokens[:, place] = torch.where(place < lengths, tokens[:, place], drawn)
        if place + 1 < total:
            logits = network.step(tokens[:, place], state)
    return tokens


def check_sampling(temperature: float, top_k: int | None) -> None:
    """Raises ValueError if an argument is out of range."""
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature ({temperature}) must be at least 0")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k ({top_k}) must be at least 1")


def draw(logits: Tensor, temperature: float, top_k: int | None, generator: torch.Generator | None) -> Tensor:
    """Draws a token from each row of logits: (B, V) -> (B,) int64."""
    if temperature == 0:
        return logits.argmax(-1)
    logits = logits.float() / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        least = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
    return torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(1)
