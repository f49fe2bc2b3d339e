"""Lazy updates: embedding rows that a batch does not touch stay unchanged, with any optimizer."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .update_chain.chain import Action, Block, Phase, UpdateChain
from .update_chain.rule import UpdateRule


class LazyUpdates(UpdateRule):
    """Lazy updates: embedding rows that a batch does not touch stay unchanged, with any optimizer.

    ``dx <- dx * [the row's gradient is not 0]``, where a row is a parameter's last axis. Otherwise momentum would keep
    moving the embeddings of absent words. It acts after decay and layer adaptation, so absent rows are not decayed
    either. A table that is tied to a softmax has a dense gradient: none of its rows is ever absent.

    Args:
        include: the parameters to act on (see ``layers.weights.selection.select``), for example ``[type:Embedding]``;
            no default.
        freeze_state: also freeze the optimizer's moments of absent rows (as torch's SparseAdam does) instead of letting
            them decay (the author's choice). Needs a second copy of the moments of these parameters. Only state tensors
            of the parameter's shape are frozen, not Adafactor's row and column sums.
        log: log ``train/lazy_rows_share``, the share of unchanged rows, in [0, 1].

    Raises:
        ValueError: if an entry is not a valid expression or, at the start, matches nothing.

    Source: kexue.fm/archives/6869 and 7094 section 6. A row whose fp16 gradient underflows to 0 counts as absent.

    Example:
        trainer:
          callbacks+:
            - class_path: LazyUpdates
              init_args: {include: ["type:Embedding"]}
    """

    phase = Phase.LAZY
    needs_old = True
    repeatable = True

    def __init__(self, include: Sequence[str], freeze_state: bool = False, log: bool = False) -> None:
        if include is None:
            raise ValueError("LazyUpdates: include (None) must name the embeddings, for example ['type:Embedding']")
        super().__init__(include, log=log)
        self.freeze_state = freeze_state
        self._touched: dict[tuple[str, str], Tensor] = {}
        self._state: dict[tuple[str, str], dict[str, Tensor]] = {}

    def settings(self) -> dict[str, Any]:
        return {"include": self.include, "freeze_state": self.freeze_state}

    def before_step(self, chain: UpdateChain) -> None:
        self._touched = {key: mask for key, mask in self._touched.items() if key[0] != chain.key}
        for name, parameter in chain.items():
            if parameter.grad is None or not self.chosen(parameter):
                continue
            self._touched[chain.key, name] = rows_with_gradient(parameter.grad)
            if self.freeze_state:
                state = chain.optimizer.state.get(parameter, {})
                kept = self._state.setdefault((chain.key, name), {})
                for key, value in state.items():
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        kept.setdefault(key, torch.empty_like(value)).copy_(value)

    def plan(self, block: Block) -> Action | None:
        positions = block.members(self, stepped_only=True)
        if not positions:
            return None
        chain, params, old = block.chain, block.params(positions), block.old(positions)
        keys = [(chain.key, name) for name in block.names(positions)]

        def stay(lr: float) -> None:
            # torch has no foreach form of `where`, and a model has few tables.
            for key, parameter, before in zip(keys, params, old, strict=True):
                touched = self._touched[key]
                torch.where(touched, parameter, before, out=parameter)
                for name, kept in self._state.get(key, {}).items():
                    state = chain.optimizer.state[parameter][name]
                    torch.where(touched, state, kept, out=state)

        return stay

    def restart(self, chain: UpdateChain) -> None:
        # The copied moments belong to the optimizer's previous state.
        self._state = {key: state for key, state in self._state.items() if key[0] != chain.key}

    def measurements(self, chain: UpdateChain) -> dict[str, float | Tensor]:
        masks = [mask for key, mask in self._touched.items() if key[0] == chain.key]
        rows = sum(mask.numel() for mask in masks)
        if not rows:
            return {}
        return {"lazy_rows_share": 1.0 - sum(mask.sum().double() for mask in masks) / rows}


def rows_with_gradient(gradient: Tensor) -> Tensor:
    """Whether each row has a non-zero component.

    Shapes:
        gradient: (..., D), dense or sparse in its rows.
        returns: (..., 1) bool; () for a scalar.
    """
    if gradient.layout == torch.sparse_coo:
        if gradient.sparse_dim() != 1 or gradient.ndim != 2:
            return rows_with_gradient(gradient.to_dense())
        gradient = gradient.coalesce()
        touched = torch.zeros(gradient.shape[0], 1, dtype=torch.bool, device=gradient.device)
        touched[gradient.indices()[0]] = (gradient.values() != 0).any(-1, keepdim=True)
        return touched
    return (gradient != 0).any(-1, keepdim=True) if gradient.ndim else gradient != 0
