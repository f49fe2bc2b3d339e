"""The chain as a whole: order, several optimizers, precision, clipping, errors and messages."""

from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins import MixedPrecision
from pytorch_lightning.strategies import FSDPStrategy
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import nn

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
from callbacks.update_chain.chain import Phase, UpdateChain
from callbacks.update_chain.rule import UpdateRule
from tests.callbacks.chain_tools import GivenGradients, MemoryLogger, assert_same, index_loader, random_gradients, run
from tests.tools import quiet_trainer

ADAM = partial(torch.optim.Adam, lr=0.02)
SGD = partial(torch.optim.SGD, lr=0.1)


def all_tricks():
    return [
        AveragedWeights(0.9),
        Lookahead(2),
        LazyUpdates(["embedding"]),
        LayerAdaptation(),
        WeightDecay(0.1),
        ParameterwiseLR({"linear": 0.5}),
        PiecewiseLinearLR({3: 1.0}),
        GradientAccumulation(2),
    ]


def test_the_order_of_the_list_does_not_matter():
    gradients = random_gradients(9, absent=0.2)
    forwards = run(GivenGradients(gradients, ADAM), *all_tricks()).trajectory
    backwards = run(GivenGradients(gradients, ADAM), *reversed(all_tricks())).trajectory
    for one, other in zip(forwards, backwards, strict=True):
        assert_same(one, other)


def test_the_chain_is_printed_and_logged_once(capsys):
    logger = MemoryLogger()
    run(GivenGradients(random_gradients(3), ADAM), *all_tricks(), logger=logger)
    lines = [line for line in capsys.readouterr().out.splitlines() if "Update chain" in line]
    assert lines == [
        "Update chain of Adam: gradient: GradientAccumulation(steps=2) -> "
        "learning rate: ParameterwiseLR(multipliers={'linear': 0.5}) on 2 of 5 tensors -> "
        "learning rate: PiecewiseLinearLR(schedule={0: 0.0, 3: 1.0}) -> "
        "decay: WeightDecay(rate=0.1, exclude=['type:norm', 'bias[^.]*$']) on 2 of 5 tensors -> "
        "layer adaptation: LayerAdaptation(exclude=['type:norm', 'bias[^.]*$']) on 2 of 5 tensors -> "
        "lazy: LazyUpdates(include=['embedding'], freeze_state=False) on 1 of 5 tensors -> "
        "lookahead: Lookahead(steps=2, step_size=0.5) -> average: AveragedWeights(decay=0.9)"
    ]
    assert logger.hyperparameters["update_chain"] == lines[0]


class TwoOptimizers(GivenGradients):
    """Manual optimization: the linear layer and the embedding have their own optimizers and steps."""

    automatic_optimization = False

    def training_step(self, batch, batch_idx):
        given = self.given[int(batch[0])]
        for i, (optimizer, part) in enumerate(zip(self.optimizers(), ("linear", "embedding"), strict=True)):
            if i == 1 and batch_idx % 2:
                continue
            optimizer.zero_grad()
            self.manual_backward(sum((self.get_parameter(n) * g).sum() for n, g in given.items() if n.startswith(part)))
            optimizer.step()

    def configure_optimizers(self):
        return [self.make_optimizer(self.linear.parameters()), SGD(self.embedding.parameters())]


def manual_tricks():
    return [trick for trick in all_tricks() if not isinstance(trick, GradientAccumulation)]


def test_manual_optimization_with_two_optimizers_equals_two_runs():
    gradients = random_gradients(8)
    both = run(TwoOptimizers(gradients, ADAM), *manual_tricks()).trajectory[-1]

    class Part(GivenGradients):
        def configure_optimizers(self):
            return self.make_optimizer([p for n, p in self.named_parameters() if n in self.given[0]])

    linear = [{n: g for n, g in given.items() if n.startswith("linear")} for given in gradients]
    alone = run(Part(linear, ADAM), *manual_tricks()).trajectory[-1]
    assert torch.equal(both["linear.weight"], alone["linear.weight"])
    embedding = [{"embedding.weight": given["embedding.weight"]} for given in gradients[::2]]
    alone = run(Part(embedding, SGD), *manual_tricks()).trajectory[-1]
    assert torch.equal(both["embedding.weight"], alone["embedding.weight"])


def test_measurements_of_two_optimizers_have_different_names():
    logger = MemoryLogger()
    rule = PiecewiseLinearLR({8: 1.0}, log=True)
    run(TwoOptimizers(random_gradients(4), ADAM), rule, logger=logger, log_every_n_steps=1)
    assert logger.values("train/learning_rate/optimizer0")[:4] == pytest.approx([0, 0.0025, 0.005, 0.0075])
    # The second one steps only at every other batch.
    assert sorted(set(logger.values("train/learning_rate/optimizer1"))) == pytest.approx([0.0, 0.0125])


def test_frozen_parameters_and_parameters_that_no_optimizer_has():
    class Frozen(GivenGradients):
        def configure_optimizers(self):
            self.embedding.requires_grad_(False)
            return self.make_optimizer([*self.linear.parameters(), *self.embedding.parameters()])

    gradients = [{n: g for n, g in given.items() if n.startswith("linear")} for given in random_gradients(6)]
    module = Frozen(gradients, ADAM)
    start = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    after = run(module, *all_tricks()).trajectory[-1]
    assert_same(after, {name: start[name] for name in ("embedding.weight", "norm.weight", "norm.bias")})
    assert not torch.equal(after["linear.weight"], start["linear.weight"])


def test_a_group_that_is_added_while_training():
    """Unfreezing adds a parameter group: the rules include it, Lookahead from its weights at that moment."""

    class Thaws(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 3:
                trainer.optimizers[0].add_param_group({"params": [pl_module.embedding.weight]})

    class Starts(GivenGradients):
        def configure_optimizers(self):
            return self.make_optimizer(self.linear.parameters())

    gradients = random_gradients(7)
    module = Starts(gradients, SGD)
    theta = module.embedding.weight.detach().clone()
    slow = theta.clone()
    run(module, WeightDecay(0.5), Lookahead(2, 0.5, evaluate="fast"), Thaws())
    for step in range(3, 7):
        theta = theta - 0.1 * (gradients[step]["embedding.weight"] + 0.5 * theta)
        if (step + 1) % 2 == 0:
            slow = theta = 0.5 * slow + 0.5 * theta
    torch.testing.assert_close(module.embedding.weight.detach(), theta, rtol=0, atol=1e-13)


def test_clipping_comes_before_the_step_and_after_the_window():
    gradients = random_gradients(6)
    module = GivenGradients(gradients, SGD)
    theta = module.linear.weight.detach().clone()
    run(module, GradientAccumulation(3), WeightDecay(0.5), gradient_clip_val=0.5)
    for window in (gradients[:3], gradients[3:]):
        means = {name: sum(given[name] for given in window) / 3 for name in window[0]}
        length = torch.cat([mean.flatten() for mean in means.values()]).norm()
        theta = theta - 0.1 * (means["linear.weight"] * (0.5 / (length + 1e-6)) + 0.5 * theta)
    torch.testing.assert_close(module.linear.weight.detach(), theta, rtol=0, atol=1e-12)


def test_a_step_that_the_scaler_skips_changes_and_counts_nothing():
    """fp16 on a CPU with a real GradScaler: the second batch overflows."""
    overflowing, gradients = 1, random_gradients(5)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)

    class Overflows(GivenGradients):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return loss * float("inf") if batch_idx == overflowing else loss

    def tricks():
        return [
            WeightDecay(0.1),
            PiecewiseLinearLR({4: 1.0}),
            Lookahead(2),
            AveragedWeights(0.9),
            LazyUpdates(["embedding"], freeze_state=True),
        ]

    module = Overflows(gradients, ADAM)
    rules = tricks()
    skipped = run(module, *rules, plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
    assert rules[0].session.chains[0].steps == 4
    assert_same(skipped.trajectory[1], skipped.trajectory[0])
    assert skipped.learning_rates == [[0.0], [0.005], [0.005], [0.01], [0.015]]
    others = [given for step, given in enumerate(gradients) if step != overflowing]
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**9)  # what the overflow leaves; powers of 2 need no rounding
    plain = run(GivenGradients(others, ADAM), *tricks(), plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
    assert_same(skipped.trajectory[-1], plain.trajectory[-1])


def test_lbfgs_evaluates_its_closure_many_times_in_one_step():
    class Quadratic(GivenGradients):
        def training_step(self, batch, batch_idx):
            return (self.linear.weight**2).sum()

    module = Quadratic([{}] * 3, partial(torch.optim.LBFGS, lr=0.1, max_iter=3))
    start = module.linear.weight.detach().clone()
    rule = WeightDecay(0.5)
    after = run(module, rule).trajectory[0]["linear.weight"]
    assert rule.session.chains[0].steps == 3
    plain = run(Quadratic([{}] * 3, partial(torch.optim.LBFGS, lr=0.1, max_iter=3))).trajectory[0]["linear.weight"]
    torch.testing.assert_close(after, plain - 0.1 * 0.5 * start, rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", ["foreach", "fused", "for-loop"])
def test_every_path_of_torch_works_in_full_precision(kind):
    gradients = random_gradients(6)
    flags = {} if kind == "for-loop" else {kind: True}
    module = GivenGradients(gradients, partial(torch.optim.Adam, lr=0.02, **flags))
    reference = GivenGradients(gradients, partial(torch.optim.AdamW, lr=0.02, weight_decay=0.1, **flags))
    assert_same(run(module, WeightDecay(0.1, exclude=[])).trajectory[-1], run(reference).trajectory[-1], atol=1e-13)


class MaxNorm(UpdateRule):
    """A user's own constraint: each row of the linear layer has at most norm 0.5."""

    phase = Phase.CONSTRAINT

    def plan(self, block):
        positions = [i for i in block.positions if block.chain.names[i] == "linear.weight"]
        params = block.params(positions)

        def constrain(lr):
            for parameter in params:
                parameter.mul_((0.5 / parameter.norm(dim=1, keepdim=True)).clamp(max=1))

        return constrain if positions else None


def test_a_constraint_holds_on_lookaheads_slow_copy_too():
    gradients = random_gradients(6)
    lookahead, average = Lookahead(2, 0.5), AveragedWeights(0.5)
    recorded = run(GivenGradients(gradients, SGD), average, MaxNorm(), lookahead)
    module = GivenGradients(gradients, SGD)
    fast = module.linear.weight.detach().clone()
    slow, ema = fast.clone(), torch.zeros_like(fast)
    for step, given in enumerate(gradients):
        fast = fast - 0.1 * given["linear.weight"]
        if step % 2:
            fast = 0.5 * slow + 0.5 * fast
        fast = fast * (0.5 / fast.norm(dim=1, keepdim=True)).clamp(max=1)
        slow = fast.clone() if step % 2 else slow
        ema = 0.5 * ema + 0.5 * fast
        torch.testing.assert_close(recorded.trajectory[step]["linear.weight"], fast, rtol=0, atol=1e-14)
    torch.testing.assert_close(lookahead.copies["optimizer0"]["linear.weight"], slow, rtol=0, atol=1e-14)
    expected = ema / (1 - 0.5**6)
    torch.testing.assert_close(average.copies["optimizer0"]["linear.weight"], expected, rtol=0, atol=1e-14)


def test_works_without_a_trainer():
    torch.manual_seed(0)
    model = nn.Linear(2, 2)
    rule = WeightDecay(0.5)
    rule.choose(model)
    chain = UpdateChain(torch.optim.SGD(model.parameters(), lr=0.1), [rule], model)
    weight, bias = model.weight.detach().clone(), model.bias.detach().clone()
    model(torch.ones(1, 2)).sum().backward()
    chain.before_step()
    chain.optimizer.step()
    chain.after_step()
    torch.testing.assert_close(model.weight.detach(), weight - 0.1 - 0.05 * weight)
    torch.testing.assert_close(model.bias.detach(), bias - 0.1)


@pytest.mark.parametrize("rule", [WeightDecay(), Lookahead(), PiecewiseLinearLR({1: 1}), AveragedWeights()])
def test_sharded_strategies_are_refused(rule):
    trainer = quiet_trainer(rule)
    trainer.strategy.__class__ = type("FSDPStrategy", (FSDPStrategy,), {})
    with pytest.raises(MisconfigurationException, match=f"{type(rule).__name__} needs whole parameters .*FSDPStrategy"):
        rule.setup(trainer, GivenGradients([], SGD), "fit")


def test_fused_optimizers_under_a_scaler_are_refused():
    module = GivenGradients(random_gradients(2), partial(torch.optim.Adam, lr=0.1, fused=True))
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    with pytest.raises(MisconfigurationException, match="can't work with fused Adam under 16-mixed"):
        run(module, WeightDecay(), plugins=[plugin])


def test_an_optimizer_that_shards_is_refused():
    class ZeroRedundancyOptimizer(torch.optim.SGD):
        pass

    module = GivenGradients(random_gradients(2), partial(ZeroRedundancyOptimizer, lr=0.1))
    with pytest.raises(MisconfigurationException, match="can't work with ZeroRedundancyOptimizer"):
        run(module, WeightDecay())


def test_a_checkpoint_without_callbacks_gives_a_warning(tmp_path):
    module = GivenGradients(random_gradients(2), SGD)
    callback = ModelCheckpoint(tmp_path, save_weights_only=True)
    with pytest.warns(UserWarning, match="writes the raw weights, not those of AveragedWeights"):
        run(module, AveragedWeights(), callback, enable_checkpointing=True)


def test_a_module_without_an_optimizer_is_left_as_it_is(tmp_path):
    module = GivenGradients(random_gradients(4), lambda parameters: None)
    start = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    trainer = quiet_trainer(*all_tricks())
    trainer.fit(module, index_loader(4), index_loader(1))
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    assert_same(start, dict(module.named_parameters()))


def test_after_an_exception_the_callbacks_can_be_used_again():
    class Crashes(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 3:
                raise RuntimeError("crash")

    gradients = random_gradients(8)
    rules = all_tricks()
    trainer = quiet_trainer(*rules, Crashes())
    with pytest.raises(RuntimeError, match="crash"):
        trainer.fit(GivenGradients(gradients, ADAM), index_loader(8))
    again = run(GivenGradients(gradients, ADAM), *rules).trajectory[-1]
    assert_same(again, run(GivenGradients(gradients, ADAM), *all_tricks()).trajectory[-1])
