"""Random chains on random shapes against a plain-Python reference, written from the formulas with lists of floats."""

import itertools
import math
from bisect import bisect_right

import pytest
import pytorch_lightning as pl
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from callbacks import (
    AveragedWeights,
    GradientAccumulation,
    LayerAdaptation,
    LazyUpdates,
    Lookahead,
    ParameterwiseLR,
    PiecewiseLinearLR,
    WeightConstraint,
    WeightDecay,
)
from tests.callbacks.chain_tools import index_loader
from tests.tools import quiet_trainer

LR = 0.05


class Shapes(pl.LightningModule):
    """Parameters p0, p1, … of given shapes with given gradients (None: no gradient at this batch)."""

    def __init__(self, init, gradients, optimizer):
        super().__init__()
        self.p = nn.ParameterList([nn.Parameter(torch.tensor(value, dtype=torch.float64)) for value in init])
        self.gradients = gradients
        self.optimizer = optimizer

    def training_step(self, batch, batch_idx):
        given = self.gradients[batch_idx]
        return sum(
            (parameter * torch.tensor(g, dtype=torch.float64)).sum()
            for parameter, g in zip(self.p, given, strict=True)
            if g is not None
        )

    def configure_optimizers(self):
        if self.optimizer == "sgd":
            return torch.optim.SGD(self.parameters(), lr=LR, momentum=0.8)
        return torch.optim.Adam(self.parameters(), lr=LR, betas=(0.8, 0.9), eps=1e-6)


def norm(rows):
    return math.sqrt(sum(x * x for row in rows for x in row))


def max_norm(rows, limit):
    return [[x * min(1, limit / max(norm([row]), 1e-300)) for x in row] for row in rows]


def each(function, *tensors):
    return [[function(*xs) for xs in zip(*rows, strict=True)] for rows in zip(*tensors, strict=True)]


def windows(schedule, batches):
    start, done = 0, []
    while start < batches:
        keys = sorted({0: 1} | schedule)
        n = ({0: 1} | schedule)[keys[bisect_right(keys, len(done)) - 1]]
        done.append(range(start, min(start + n, batches)))
        start += n
    return done


def factor(schedule, t):
    points = sorted(({0: 0.0} | schedule).items())
    for (a, x), (b, y) in itertools.pairwise(points):
        if a <= t < b:
            return x + (y - x) * (t - a) / (b - a)
    return points[-1][1]


class Reference:
    """One parameter as a list of rows; the optimizer and every trick element by element."""

    def __init__(self, rows, index, chain, optimizer):
        self.theta, self.index, self.chain, self.optimizer = rows, index, chain, optimizer
        self.slow, self.ema = rows, each(lambda x: 0.0, rows)
        self.first, self.second = each(lambda x: 0.0, rows), each(lambda x: 0.0, rows)
        self.calls = 0

    def base_step(self, g, lr):
        self.calls += 1
        if self.optimizer == "sgd":
            self.first = g if self.calls == 1 else each(lambda m, x: 0.8 * m + x, self.first, g)
            return each(lambda x, m: x - lr * m, self.theta, self.first)
        self.first = each(lambda m, x: 0.8 * m + 0.2 * x, self.first, g)
        self.second = each(lambda v, x: 0.9 * v + 0.1 * x * x, self.second, g)
        c1, c2 = 1 - 0.8**self.calls, 1 - 0.9**self.calls
        return each(lambda x, m, v: x - lr * (m / c1) / (math.sqrt(v / c2) + 1e-6), self.theta, self.first, self.second)

    def step(self, g, t):
        chain = self.chain
        lr = LR * (factor(chain["lr"], t) if "lr" in chain else 1)
        multiplier = chain["parameterwise"] if "parameterwise" in chain and self.index == 0 else 1.0
        if g is not None:
            old = self.theta
            before = self.first, self.second
            dx = each(lambda new, x: (new - x) * multiplier, self.base_step(g, lr), old)
            lr *= multiplier
            if "decay" in chain:
                dx = each(lambda d, x: d - lr * chain["decay"] * x, dx, old)
            if "adaptation" in chain and norm(dx) > 0 and norm(old) > 0:
                ratio = norm(old) / (norm(dx) / max(lr, 1e-7))
                dx = each(lambda d: d * ratio, dx)
            if "lazy" in chain:
                for i, row in enumerate(g):
                    if not any(row):
                        dx[i] = [0.0] * len(row)
                        if chain["lazy"]:  # the moments of absent rows stay
                            self.first[i], self.second[i] = before[0][i], before[1][i]
            self.theta = each(lambda x, d: x + d, old, dx)
        if "lookahead" in chain and (t + 1) % chain["lookahead"][0] == 0:
            alpha = chain["lookahead"][1]
            self.slow = self.theta = each(lambda s, x: s + alpha * (x - s), self.slow, self.theta)
        if "constraint" in chain:
            self.theta = max_norm(self.theta, chain["constraint"])
            self.slow = max_norm(self.slow, chain["constraint"])
        if "average" in chain:
            b = chain["average"]
            self.ema = each(lambda e, x: b * e + (1 - b) * x, self.ema, self.theta)


number = st.floats(-2, 2).map(lambda x: round(x, 3))
tricks = st.fixed_dictionaries(
    {},
    optional={
        "lr": st.dictionaries(st.integers(0, 6), st.sampled_from([0.0, 0.3, 1.0, 1.7]), min_size=1, max_size=3),
        "parameterwise": st.sampled_from([0.0, 0.5, 2.0]),
        "decay": st.sampled_from([0.0, 0.1, 0.7]),
        "adaptation": st.just(True),
        "lazy": st.booleans(),
        "lookahead": st.tuples(st.integers(1, 4), st.sampled_from([0.0, 0.5, 0.8, 1.0])),
        "constraint": st.sampled_from([0.1, 1.5]),
        "average": st.sampled_from([0.0, 0.6, 0.99]),
        "accumulation": st.dictionaries(st.integers(0, 4), st.integers(1, 4), min_size=1, max_size=2),
    },
)


def build(chain):
    make = {
        "lr": PiecewiseLinearLR,
        "parameterwise": lambda m: ParameterwiseLR({r"p\.0$": m}),
        "decay": lambda rate: WeightDecay(rate, exclude=[]),
        "adaptation": lambda _: LayerAdaptation(exclude=[]),
        "lazy": lambda freeze: LazyUpdates(["p"], freeze),
        "lookahead": lambda a: Lookahead(*a, evaluate="fast"),
        "constraint": lambda limit: WeightConstraint("max_norm", limit, exclude=[]),
        "average": AveragedWeights,
        "accumulation": GradientAccumulation,
    }
    return {name: make[name](value) for name, value in chain.items()}


@st.composite
def cases(draw):
    shapes = draw(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=3))

    def rows(shape):
        row = st.lists(number, min_size=shape[1], max_size=shape[1])
        return st.lists(st.one_of(row, st.just([0.0] * shape[1])), min_size=shape[0], max_size=shape[0])

    init = [draw(rows(shape)) for shape in shapes]
    gradients = [
        # The first parameter always has a gradient, so that every batch counts in its window.
        [draw(rows(shape) if i == 0 else st.one_of(rows(shape), st.none())) for i, shape in enumerate(shapes)]
        for _ in range(draw(st.integers(1, 9)))
    ]
    order = draw(st.randoms(use_true_random=False))
    return draw(tricks), init, gradients, draw(st.sampled_from(["sgd", "adam"])), order


def sum_of(gradients):
    present = [g for g in gradients if g is not None]
    return [[sum(xs) / len(gradients) for xs in zip(*rows, strict=True)] for rows in zip(*present, strict=True)]


# Lightning takes 30 ms per fit, so the number of examples bounds the time of this test.
@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(case=cases())
def test_random_chains_against_plain_python(case):
    chain, init, gradients, optimizer, order = case
    rules = build(chain)
    listed = list(rules.values())
    order.shuffle(listed)
    module = Shapes(init, gradients, optimizer)
    seen = {}

    class Last(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            seen["theta"] = [parameter.tolist() for parameter in pl_module.p]

    quiet_trainer(*listed, Last(), max_epochs=1).fit(module, index_loader(len(gradients)))
    references = [Reference([list(row) for row in rows], i, chain, optimizer) for i, rows in enumerate(init)]
    steps = windows(chain.get("accumulation", {}), len(gradients))
    for t, window in enumerate(steps):
        for i, reference in enumerate(references):
            parts = [gradients[b][i] for b in window]
            reference.step(None if all(part is None for part in parts) else sum_of(parts), t)
    for i, reference in enumerate(references):
        expected = [x for row in reference.theta for x in row]
        actual = [x for row in seen["theta"][i] for x in row]
        assert actual == pytest.approx(expected, rel=1e-7, abs=1e-9), chain
        if "average" in chain:
            average = rules["average"].copies["optimizer0"][f"p.{i}"].flatten().tolist()
            corrected = [x / (1 - chain["average"] ** len(steps)) for row in reference.ema for x in row]
            assert average == pytest.approx(corrected, rel=1e-7, abs=1e-9), chain
