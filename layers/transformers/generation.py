"""Writing with an autoregressive network, token by token."""

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
) -> Tensor:
    """Goes on with prompts. Each token is read once: what the attentions need of those before is kept. What all
    prompts have is read at once.

    Args:
        network: the network, in evaluation mode.
        prompts: (B, P) int64, filled up with anything behind the end of a shorter one. P may be 0 where the network
            has a start.
        count: tokens to add to each.
        lengths: (B,) int64, tokens of each prompt; None: P.
        temperature: the logits are divided by it; 0 takes the most probable token.
        top_k: draw among so many of the most probable tokens only.
        generator: draws, on the device of the network; None: torch's own.

    Returns:
        (B, P + count) int64: row b is the prompt, then its ``count`` tokens from place ``lengths[b]`` on; what stands
        behind them has no meaning.

    Raises:
        ValueError: if there is nothing to begin with, an argument is out of its range, or there are too few positions.
    """
    check_sampling(temperature, top_k)
    batch, longest = prompts.shape
    if lengths is None:
        lengths = prompts.new_full((batch,), longest)
    shortest, total = int(lengths.min()), longest + count
    first = 1 if network.start is None else 0
    if shortest < first:
        raise ValueError("an empty prompt: the network has nothing to begin with")
    tokens = torch.cat([prompts, prompts.new_zeros(batch, count)], dim=1)
    if not count:
        return tokens
    state = network.init_state(batch, total - first)
    logits = network.prefill(tokens[:, :shortest], state)
    for place in range(shortest, total):
        drawn = draw(logits, temperature, top_k, generator)
        tokens[:, place] = torch.where(place < lengths, tokens[:, place], drawn)
        if place + 1 < total:
            logits = network.step(tokens[:, place], state)
    return tokens


def check_sampling(temperature: float, top_k: int | None) -> None:
    """Raises ValueError where a token can't be drawn so."""
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature ({temperature}) must be at least 0")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k ({top_k}) must be at least 1")


def draw(logits: Tensor, temperature: float, top_k: int | None, generator: torch.Generator | None) -> Tensor:
    """A token from each row of logits: (B, V) -> (B,) int64."""
    if temperature == 0:
        return logits.argmax(-1)
    logits = logits.float() / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        least = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
    return torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(1)
