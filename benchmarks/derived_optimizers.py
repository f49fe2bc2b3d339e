"""Step time and memory of each derived optimizer over torch's AdamW alone, and against the same trick elsewhere.

A transformer's parameters (10 million and 100 million, in many tensors) with given gradients; one sample is the mean of
five optimizer steps, so that Lookahead's synchronisation is in it. All arms share the parameters and run in turn in one
process. torch's AdamW runs in its for-loop form (torch's default on a CPU), its foreach and its fused form; each trick
is set against AdamW alone in the same form. Memory is the growth of the resident set, each arm in a process of its own.
The last row sets all tricks together against the whole training step of ``configs/infomax_cifar10.yaml``.
"""

import multiprocessing
import statistics
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from benchmarks._processes import knows_its_memory, own_bytes
from callbacks import (
    AveragedWeights,
    GradientAccumulation,
    LayerAdaptation,
    LazyUpdates,
    Lookahead,
    ParameterwiseLR,
    PiecewiseLinearLR,
    WeightDecay,
)
from callbacks.update_chain.chain import UpdateChain
from callbacks.update_chain.rule import UpdateRule

NAME = "derived_optimizers"
STEPS = 5  # Lookahead's k
SIZES = {
    "1M": {"width": 96, "layers": 6, "words": 4_000},
    "10M": {"width": 256, "layers": 8, "words": 15_000},
    "100M": {"width": 768, "layers": 12, "words": 20_000},
}
TRICKS: dict[str, Callable[[], list[UpdateRule]]] = {
    "accumulation": lambda: [GradientAccumulation(4)],
    "learning rate": lambda: [PiecewiseLinearLR({1000: 1.0, 10_000: 0.1})],
    "decay": lambda: [WeightDecay(0.01)],
    "layer adaptation": lambda: [LayerAdaptation()],
    "LAMB": lambda: [WeightDecay(0.01), LayerAdaptation()],
    "lazy": lambda: [LazyUpdates(["type:Embedding"])],
    "lookahead": lambda: [Lookahead(STEPS)],
    "parameterwise": lambda: [ParameterwiseLR({"linear1": 0.5})],
    "average": lambda: [AveragedWeights(0.999)],
    "all six": lambda: [
        GradientAccumulation(4),
        PiecewiseLinearLR({1000: 1.0, 10_000: 0.1}),
        WeightDecay(0.01),
        LayerAdaptation(),
        LazyUpdates(["type:Embedding"]),
        Lookahead(STEPS),
    ],
}


class Words(nn.Module):
    """The parameters of a transformer encoder with word embeddings."""

    def __init__(self, width: int, layers: int, words: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(width, 4, 4 * width) for _ in range(layers))
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator) * 1e-3
        # A batch touches a part of the words only.
        self.embedding.weight.grad[torch.arange(words) % 4 != 0] = 0


def chained(model: nn.Module, optimizer: torch.optim.Optimizer, rules: list[UpdateRule]) -> Callable[[], None]:
    """One optimizer step with the rules around it, as the Trainer runs them."""
    for rule in rules:
        rule.choose(model)
    chain = UpdateChain(optimizer, rules, model)

    def step() -> None:
        chain.before_step()
        optimizer.step()
        chain.after_step()

    return step


def interleaved(arms: dict[str, Callable[[], None]], rounds: int, steps: int = STEPS) -> dict[str, list[float]]:
    """For each arm the mean seconds of a step in each round; all arms in turn, each round starting with another."""
    for step in arms.values():
        step()
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    order = list(arms)
    for _ in range(rounds):
        for name in order:
            start = time.perf_counter()
            for _ in range(steps):
                arms[name]()
            seconds[name].append((time.perf_counter() - start) / steps)
        order = order[1:] + order[:1]
    return seconds


def step_times(size: str, rounds: int) -> list[dict[str, Any]]:
    """Each trick on AdamW over AdamW alone, both in the same one of torch's three forms."""
    rows = []
    for form, tricks in {
        "for-loop": list(TRICKS),
        "foreach": ["decay", "LAMB", "all six"],
        "fused": ["decay", "LAMB", "all six"],
    }.items():
        model = Words(**SIZES[size])
        parameters = list(model.parameters())
        flags = {"for-loop": {"foreach": False}}.get(form, {form: True})
        optimizer = torch.optim.AdamW(parameters, lr=1e-6, weight_decay=0.0, **flags)
        arms: dict[str, Callable[[], None]] = {"alone": optimizer.step}
        arms |= {name: chained(model, optimizer, TRICKS[name]()) for name in tricks}
        seconds = interleaved(arms, rounds)
        for name in tricks:
            case = f"step, {name} on {form} AdamW, {size} in {len(parameters)} tensors"
            rows.append(row(case, f"torch AdamW alone, {form}", seconds["alone"], seconds[name]))
    return rows


def against_pytorch_optimizer(size: str, rounds: int) -> list[dict[str, Any]]:
    """The same trick there and here: Lookahead on the same optimizer, and LAMB, which is of one piece there."""
    try:
        import pytorch_optimizer
    except ImportError:
        return []
    model = Words(**SIZES[size])
    parameters = list(model.parameters())
    adam = partial(torch.optim.Adam, parameters, lr=1e-6)

    def lamb(**flags: bool) -> Callable[[], None]:
        return chained(model, adam(**flags), [WeightDecay(0.01, exclude=[]), LayerAdaptation(exclude=[])])

    arms = {
        "lookahead there": pytorch_optimizer.Lookahead(adam(foreach=False), k=STEPS, alpha=0.5).step,
        "lookahead on for-loop Adam": chained(model, adam(foreach=False), [Lookahead(STEPS)]),
        "LAMB there": pytorch_optimizer.Lamb(parameters, lr=1e-6, weight_decay=0.01).step,
        "LAMB on for-loop Adam": lamb(foreach=False),
        "LAMB on fused Adam": lamb(fused=True),
    }
    seconds = interleaved(arms, rounds)
    peer = f"pytorch_optimizer {version('pytorch_optimizer')}"
    return [
        row(f"step, {name}, {size} in {len(parameters)} tensors", peer, seconds[f"{name.split()[0]} there"], times)
        for name, times in seconds.items()
        if not name.endswith("there")
    ]


def _peak_bytes(size: str, trick: str | None, answer: Any) -> None:
    """In a process of its own: the largest resident set over a few steps."""
    model = Words(**SIZES[size])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, foreach=False)
    step = optimizer.step if trick is None else chained(model, optimizer, TRICKS[trick]())
    for _ in range(STEPS + 1):
        step()
    bytes_of_weights = sum(parameter.nbytes for parameter in model.parameters())
    answer.put((own_bytes("VmHWM"), bytes_of_weights))


def peak_bytes(size: str, trick: str | None) -> tuple[int, int]:
    """The largest resident set of a process that trains with a trick (None: without), and the bytes of the weights."""
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=_peak_bytes, args=(size, trick, answer))
    process.start()
    result = answer.get()
    process.join()
    return result


def memory(size: str, tricks: list[str]) -> list[dict[str, Any]]:
    """The peak with each trick over that of AdamW alone."""
    if not knows_its_memory():
        return []
    alone, weights = peak_bytes(size, None)
    rows = []
    for trick in tricks:
        ours, _ = peak_bytes(size, trick)
        rows.append(
            {
                "benchmark": NAME,
                "case": f"memory, {trick}, {size}",
                "peer": "torch AdamW alone, for-loop",
                "ratio": alone / ours,
                "peer_bytes": alone,
                "our_bytes": ours,
                "extra_copies_of_the_parameters": (ours - alone) / weights,
            }
        )
    return rows


def training_step(rounds: int, steps: int) -> list[dict[str, Any]]:
    """All tricks together as a share of a whole training step of Deep InfoMax in the blog's form (batch of 64)."""
    from datamodules.batches import ImageBatch
    from lightning_modules import DeepInfoMax

    torch.manual_seed(0)
    model = DeepInfoMax(optimizer=partial(torch.optim.Adam, eps=1e-7))
    model.log = model.log_dict = lambda *_, **__: None  # no Trainer
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-6, eps=1e-7)
    images = torch.rand(64, 3, 32, 32).contiguous(memory_format=torch.channels_last) - 0.5
    batch = ImageBatch(images, torch.zeros(64, dtype=torch.int64))

    def learn(step: Callable[[], None]) -> Callable[[], None]:
        def whole() -> None:
            optimizer.zero_grad()
            model.training_step(batch, 0).backward()
            step()

        return whole

    rules = [rule for rule in TRICKS["all six"]() if not isinstance(rule, LazyUpdates)]
    rules.append(LazyUpdates(include=["mlp"]))  # no embeddings here: the matrices of the scores stand in for them
    tricks = chained(model, optimizer, rules)
    seconds = interleaved({"alone": learn(optimizer.step), "with": learn(tricks)}, rounds, steps)
    result = row(
        "training step of infomax_cifar10.yaml with all six", "the same without", seconds["alone"], seconds["with"]
    )
    # The difference of two long times is mostly noise; the tricks' own time is measured beside it.
    own = interleaved({"alone": optimizer.step, "with": tricks}, 2 * rounds)
    extra = statistics.median(ours - alone for ours, alone in zip(own["with"], own["alone"], strict=True))
    result["share_of_the_step"] = extra / statistics.median(seconds["alone"])
    return [result]


def row(case: str, peer: str, peer_seconds: list[float], our_seconds: list[float]) -> dict[str, Any]:
    """The ratio is the median over rounds, within which both ran under the same load."""
    ratio = statistics.median(peer / ours for peer, ours in zip(peer_seconds, our_seconds, strict=True))
    return {
        "benchmark": NAME,
        "case": case,
        "peer": peer,
        "ratio": ratio,
        "our_time_over_the_peers": 1 / ratio,
        "peer_ms": 1e3 * statistics.median(peer_seconds),
        "our_ms": 1e3 * statistics.median(our_seconds),
        "threads": torch.get_num_threads(),
    }


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Rows with the ratio (the peer's time or memory over ours: above 1 is better) and what was measured.

    Args:
        quick: one million parameters and few rounds, for a look or a test.
    """
    if quick:
        rows = step_times("1M", rounds=3) + against_pytorch_optimizer("1M", rounds=3)
        return rows + memory("10M", ["decay", "all six"]) + training_step(rounds=1, steps=1)
    rows = step_times("10M", rounds=9) + step_times("100M", rounds=3)
    rows += against_pytorch_optimizer("10M", rounds=9) + against_pytorch_optimizer("100M", rounds=3)
    return rows + memory("100M", ["decay", "LAMB", "lookahead", "average", "all six"]) + training_step(5, steps=1)
