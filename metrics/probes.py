"""Three probes of the quality of frozen features.

All learn from a *memory* (the training set's features and classes) and score *queries* (the test set's):

* ``knn_accuracy``: majority vote of the k nearest neighbours by cosine; nothing is trained;
* ``linear_probe_accuracy``: multinomial logistic regression;
* ``mlp_probe_accuracy``: one hidden layer of 200 units, the classifier of the Deep InfoMax paper's tables.

The three measure different things: never compare one probe's accuracy with another's.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import skip_init

CHUNK_ROWS = 4096  # samples per chunk, in double precision or in a matrix product


@contextmanager
def _plain_fp32(device: torch.device) -> Iterator[None]:
    """Gradients on, autocast and inference mode off, whatever the caller (a test loop) set."""
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        yield


def _check(memory: Tensor, memory_labels: Tensor, queries: Tensor, query_labels: Tensor) -> None:
    for name, features, labels in (("memory", memory, memory_labels), ("queries", queries, query_labels)):
        if features.ndim != 2 or labels.shape != features.shape[:1]:
            shapes = f"{tuple(features.shape)} and {tuple(labels.shape)}"
            raise ValueError(f"{name}: features must be (N, d) and labels (N,), got {shapes}")
        if not len(features):
            raise ValueError(f"{name}: no samples")
        if not features.isfinite().all():
            raise ValueError(f"{name}: features must be finite, got nan or inf")
        if labels.min() < 0:
            raise ValueError(f"{name}: labels must be 0 or more, got {int(labels.min())} (-1 stands for 'no class')")
    if memory.shape[1] != queries.shape[1]:
        raise ValueError(f"memory has {memory.shape[1]} features per sample, queries have {queries.shape[1]}")


def _num_classes(*labels: Tensor) -> int:
    return 1 + max(int(part.max()) for part in labels)


def nearest_neighbors(memory: Tensor, queries: Tensor, k: int, chunk_size: int = CHUNK_ROWS) -> tuple[Tensor, Tensor]:
    """The k memory vectors of largest cosine, cos(q, m) = <q, m> / (|q| |m|), for every query; nearest first.

    Works chunk by chunk, with one matrix product per pair of chunks, and keeps the best k so far: besides inputs and
    results it needs memory for one product and two chunks only.

    Args:
        memory: (N, d), any float dtype; computed in fp32. A zero vector has cosine 0 with everything.
        queries: (Q, d).
        k: neighbours per query, at most N.
        chunk_size: rows of memory and of queries per product.

    Returns:
        Similarities (Q, k) fp32 in [-1, 1] and indices into the memory (Q, k) int64.

    Raises:
        ValueError: if k is not in 1..N.
    """
    if not 1 <= k <= len(memory):
        raise ValueError(f"k must be in 1..{len(memory)} (the size of the memory), got {k}")
    found = []
    with _plain_fp32(queries.device), torch.no_grad():
        for some_queries in queries.split(chunk_size):
            directions = F.normalize(some_queries.float())
            best = torch.empty(len(directions), 0, device=queries.device)
            where = torch.empty(len(directions), 0, dtype=torch.int64, device=queries.device)
            for number, some_memory in enumerate(memory.split(chunk_size)):
                product = directions @ F.normalize(some_memory.float()).T
                values, places = product.topk(min(k, len(some_memory)))
                best = torch.cat([best, values], dim=1)
                where = torch.cat([where, places + number * chunk_size], dim=1)
                best, order = best.topk(min(k, best.shape[1]))
                where = where.gather(1, order)
            found.append((best, where))
    return torch.cat([best for best, _ in found]), torch.cat([where for _, where in found])


def knn_accuracy(
    memory: Tensor,
    memory_labels: Tensor,
    queries: Tensor,
    query_labels: Tensor,
    k: int = 20,
    chunk_size: int = CHUNK_ROWS,
) -> float:
    """Accuracy of the majority vote of a query's k nearest memory vectors by cosine.

    Ties between classes are broken by the sum of their voters' cosines.

    Args:
        memory, queries: (N, d), (Q, d), any float dtype.
        memory_labels, query_labels: (N,), (Q,) int64, 0 or more.
        k: voters; if the memory is smaller, all of it votes.
        chunk_size: see ``nearest_neighbors``.

    Returns:
        Accuracy in [0, 1].

    Raises:
        ValueError: for shapes that don't fit, no samples, features that are not finite, negative labels, k < 1.
    """
    _check(memory, memory_labels, queries, query_labels)
    similarities, neighbors = nearest_neighbors(memory, queries, min(k, len(memory)), chunk_size)
    voters = memory_labels.long()[neighbors]
    votes = torch.zeros(len(queries), _num_classes(memory_labels, query_labels), device=queries.device)
    weight = torch.zeros_like(votes)
    votes.scatter_add_(1, voters, torch.ones_like(similarities))
    weight.scatter_add_(1, voters, similarities)
    winners = votes == votes.amax(dim=1, keepdim=True)
    predicted = weight.masked_fill(~winners, -torch.inf).argmax(dim=1)
    return (predicted == query_labels).double().mean().item()


def _standardiser(memory: Tensor) -> Callable[[Tensor], Tensor]:
    """The map x -> (x - mean) / std with the memory's statistics per feature, in fp32; constant features map to 0.

    Sums are in fp64, chunk by chunk: features may come in half precision and in any number.
    """
    mean = sum(part.double().sum(0) for part in memory.split(CHUNK_ROWS)) / len(memory)
    variance = sum((part.double() - mean).square_().sum(0) for part in memory.split(CHUNK_ROWS)) / len(memory)
    # Constant up to rounding: dividing such a feature by its tiny deviation would blow up differences in the queries.
    constant = variance <= (torch.finfo(torch.float32).eps * mean.abs()).square()
    shift, scale = mean.float(), torch.where(constant, 0.0, variance.rsqrt()).float()

    def standardise(features: Tensor) -> Tensor:
        return (features.float() - shift).mul_(scale)

    return standardise


def _accuracy(predict: Callable[[Tensor], Tensor], queries: Tensor, query_labels: Tensor) -> float:
    """Share of queries whose largest logit is that of their class."""
    chunks = zip(queries.split(CHUNK_ROWS), query_labels.split(CHUNK_ROWS), strict=True)
    return sum(int((predict(part).argmax(1) == labels).sum()) for part, labels in chunks) / len(queries)


def linear_probe_accuracy(
    memory: Tensor,
    memory_labels: Tensor,
    queries: Tensor,
    query_labels: Tensor,
    l2: float = 1e-2,
    max_iterations: int = 50,
    chunk_size: int = 65536,
) -> float:
    """Accuracy of multinomial logistic regression on standardised features.

    Minimises mean_n -log softmax(W x_n + b)[y_n] + l2 / 2 |W|^2 over W and b by full-batch L-BFGS from zero: no
    randomness, no learning rate. x are the features, standardised by the memory's mean and standard deviation; a
    constant feature is 0. scikit-learn's ``LogisticRegression`` has the same minimum with C = 1 / (l2 * N).

    Args:
        memory, queries: (N, d), (Q, d), any float dtype; one fp32 copy of the memory is made.
        memory_labels, query_labels: (N,), (Q,) int64, 0 or more.
        l2: weight of the penalty.
        max_iterations: maximum number of L-BFGS steps; it stops earlier when the gradient vanishes. With a few hundred
            features it reaches the minimum; with thousands it stops a little before, which halves the time at no cost
            in accuracy.
        chunk_size: rows per matrix product.

    Returns:
        Accuracy in [0, 1].

    Raises:
        ValueError: for shapes that don't fit, no samples, negative labels.
    """
    _check(memory, memory_labels, queries, query_labels)
    with _plain_fp32(memory.device):
        standardise = _standardiser(memory)
        inputs, labels = standardise(memory), memory_labels.long().clone()
        classes = _num_classes(memory_labels, query_labels)
        # (classes, d), not its transpose: the gradient's matrix product is many times faster on a CPU this way.
        weight = torch.zeros(classes, inputs.shape[1], device=inputs.device, requires_grad=True)
        bias = torch.zeros(classes, device=inputs.device, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [weight, bias],
            max_iter=max_iterations,
            tolerance_grad=1e-5,
            tolerance_change=1e-9,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = l2 / 2 * weight.square().sum()
            loss.backward()
            loss = loss.detach()
            for some_inputs, some_labels in zip(inputs.split(chunk_size), labels.split(chunk_size), strict=True):
                logits = F.linear(some_inputs, weight, bias)
                part = F.cross_entropy(logits, some_labels, reduction="sum") / len(labels)
                part.backward()
                loss += part.detach()
            return loss

        optimizer.step(closure)
        with torch.no_grad():
            return _accuracy(lambda part: F.linear(standardise(part), weight, bias), queries, query_labels)


class _SeededDropout(nn.Module):
    """Dropout with masks from its own generator, so that the global random state is untouched."""

    def __init__(self, p: float, generator: torch.Generator) -> None:
        super().__init__()
        self.p, self.generator = p, generator

    def forward(self, features: Tensor) -> Tensor:
        if not self.training:
            return features
        keep = torch.empty_like(features).bernoulli_(1 - self.p, generator=self.generator)
        return features * keep / (1 - self.p)


def _mlp(in_features: int, num_classes: int, hidden: int, dropout: float, generator: torch.Generator) -> nn.Sequential:
    """Linear, BatchNorm, Dropout, ReLU, Linear, with torch's default initialisation drawn from ``generator``."""
    first = skip_init(nn.Linear, in_features, hidden, device=generator.device)
    last = skip_init(nn.Linear, hidden, num_classes, device=generator.device)
    with torch.no_grad():
        for layer in (first, last):
            bound = layer.in_features**-0.5
            for parameter in layer.parameters():
                parameter.uniform_(-bound, bound, generator=generator)
    norm = nn.BatchNorm1d(hidden, device=generator.device)
    return nn.Sequential(first, norm, _SeededDropout(dropout, generator), nn.ReLU(), last)


def mlp_probe_accuracy(
    memory: Tensor,
    memory_labels: Tensor,
    queries: Tensor,
    query_labels: Tensor,
    epochs: int = 10,
    batch_size: int = 512,
    lr: float = 2e-3,
    seed: int = 0,
) -> float:
    """Accuracy of the Deep InfoMax paper's classifier, softmax(W2 relu(dropout(BN(W1 x + b1))) + b2), 200 hidden units.

    The network is the paper's (arXiv 1808.06670: one hidden layer of 200 units, batch normalisation, dropout 0.1,
    ReLU, linear). The training differs, to suit a CPU: batches of 512 instead of 64; Adam with one cosine cycle (a
    tenth of the steps rising to ``lr``, then falling to 0) over 10 epochs instead of lr 1e-4 divided by ten at epochs
    50 and 100; and standardised features, as so few steps can't make up for features of very different scales. An
    incomplete last batch of an epoch is dropped, as in the paper's code.

    Args:
        memory, queries: (N, d), (Q, d), any float dtype; one fp32 copy of the memory is made.
        memory_labels, query_labels: (N,), (Q,) int64, 0 or more.
        epochs: passes over the memory.
        batch_size: maximum samples per step; a memory of fewer than 64 * batch_size samples takes N / 64, but at least
            the paper's 64.
        lr: peak learning rate of the cycle.
        seed: of the initial weights, the order of the samples and the dropout masks. Same seed and machine: same
            result. The global random state is neither read nor changed.

    Returns:
        Accuracy in [0, 1].

    Raises:
        ValueError: for shapes that don't fit, no samples, negative labels, fewer than two samples in the memory.
    """
    _check(memory, memory_labels, queries, query_labels)
    if len(memory) < 2:
        raise ValueError("memory: batch normalisation needs at least two samples, got 1")
    with _plain_fp32(memory.device):
        generator = torch.Generator(memory.device).manual_seed(seed)
        standardise = _standardiser(memory)
        inputs, labels = standardise(memory), memory_labels.long().clone()
        classes = _num_classes(memory_labels, query_labels)
        network = _mlp(inputs.shape[1], classes, hidden=200, dropout=0.1, generator=generator)
        # Otherwise a small memory would give only a handful of steps.
        batch_size = min(batch_size, max(len(inputs) // 64, 64), len(inputs))
        steps = len(inputs) // batch_size
        optimizer = torch.optim.Adam(network.parameters(), lr=lr, fused=inputs.device.type in ("cpu", "cuda"))
        total, rising = epochs * steps, max(1, epochs * steps // 10)

        def cycle(step: int) -> float:
            if step < rising:
                return (step + 1) / rising
            return 0.5 + 0.5 * math.cos(math.pi * (step - rising) / max(1, total - rising))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, cycle)
        for _ in range(epochs):
            order = torch.randperm(len(inputs), generator=generator, device=inputs.device)
            for batch in order[: steps * batch_size].split(batch_size):
                loss = F.cross_entropy(network(inputs[batch]), labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
        network.eval()
        with torch.no_grad():
            return _accuracy(lambda part: network(standardise(part)), queries, query_labels)
