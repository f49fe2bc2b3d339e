"""Parts of models that can't be traced: they run the model's own forward, watched or led past what was skipped."""

import difflib
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

_CONTAINERS = (nn.ModuleList, nn.ModuleDict)  # they have no forward


class _Reached(BaseException):
    """The last wanted value is there. (Not an Exception: no forward should catch it.)"""


def module_names(model: nn.Module) -> list[str]:
    """The paths of all modules that may be called, in the order in which they were registered."""
    return [name for name, module in model.named_modules() if name and not isinstance(module, _CONTAINERS)]


class HookedFeatures(nn.Module):
    """Maps a model's inputs to ``{name: value}`` by forward hooks, and stops after the last of them.

    Values are what the modules return, tensors or others; a module's path means its first call, ``path#2`` the second.
    ``nn.TransformerEncoder`` makes no nested tensors of padded input here: values are the same without a gradient.

    Args:
        model: the model, which becomes a child under the name ``model``.
        names: paths of modules; ``output`` is the model's.
        reason: why it can't be traced, for messages.

    Raises:
        ValueError: a name is no module's; in a forward, a module that is not called.
    """

    def __init__(self, model: nn.Module, names: Sequence[str], reason: str) -> None:
        super().__init__()
        self.model = model
        self.wanted = {name: _place(model, name, reason) for name in names}
        self.training = model.training

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        calls: Counter[nn.Module] = Counter()

        def record(module: nn.Module, _: Any, value: Any) -> None:
            calls[module] += 1
            new = [name for name, place in places.items() if place == (module, calls[module])]
            found.update(dict.fromkeys(new, value))
            if len(found) == len(places):
                raise _Reached
            # What comes next may change it in place.
            found.update(dict.fromkeys(new, cloned(value) if new else None))

        places = {name: (self.model.get_submodule(path), number) for name, (path, number) in self.wanted.items()}
        with ExitStack() as hooks:
            for module in {module for module, _ in places.values()}:
                hooks.callback(module.register_forward_hook(record).remove)
            hooks.enter_context(_no_nested_tensors())
            try:
                self.model(*args, **kwargs)
            except _Reached:
                return {name: found[name] for name in places}
        missing = ", ".join(name for name in places if name not in found)
        raise ValueError(f"{type(self.model).__name__} did not call {missing} in this forward: name other modules")


@contextmanager
def _no_nested_tensors() -> Iterator[None]:
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _place(model: nn.Module, name: str, reason: str) -> tuple[str, int]:
    """The path and the number of the call that a name means."""
    names = module_names(model)
    if name == "output" and name not in names:
        return "", 1
    path, _, number = name.partition("#")
    # A module in two places has a name in each.
    if path in dict(model.named_modules(remove_duplicate=False)) and (number.isdecimal() or "#" not in name):
        return path, int(number or 1)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.3) or names[:12]
    raise ValueError(
        f"{type(model).__name__} has no module '{name}'; nearest: {', '.join(near)}. Only modules are places here: "
        f"{reason}"
    )


def split_running(model: nn.Module, cut: str) -> tuple[nn.Module, nn.Module] | None:
    """Head and tail of a model that can't be traced, or None if the cut is no module beside or inside a trunk.

    A trunk is an ``nn.Sequential`` or ``nn.ModuleList``; its blocks, and the modules before, around and behind it, are
    places to cut. Whether anything else crosses the cut shows when the tail runs: it then refuses.
    """
    paths = dict(model.named_modules(remove_duplicate=False))
    parent = paths.get(cut.rpartition(".")[0])
    if not cut or cut not in paths or parent is None or isinstance(paths[cut], _CONTAINERS):
        return None
    if not trunk_blocks(parent):
        return None
    return _Head(model, cut), _Tail(model, cut)


def trunk_blocks(model: nn.Module) -> list[str]:
    """The paths of the blocks of all trunks."""
    modules = dict(model.named_modules())
    return [name for name in modules if isinstance(modules.get(name.rpartition(".")[0]), nn.Sequential | nn.ModuleList)]


class _Part(nn.Module):
    """Registers its share of the model's modules, under their own names: up to the cut, or behind it.

    The order of registration decides. Parameters of modules around the cut are in both parts.
    """

    def __init__(self, model: nn.Module, cut: str, behind: bool) -> None:
        super().__init__()
        self._whole, self._cut = [model], cut  # in a list: a reference, not a child
        owner, part = model, self
        steps = cut.split(".")
        for depth, step in enumerate(steps, 1):
            for name, parameter in owner.named_parameters(recurse=False):
                part.register_parameter(name, parameter)
            names = list(owner._modules)
            place = names.index(step)
            for name in names[place + 1 :] if behind else names[:place]:
                part.register_module(name, owner._modules[name])
            owner = owner.get_submodule(step)
            last = depth == len(steps)
            if not (last and behind):
                part.register_module(step, owner if last else nn.Module())
            part.training = model.training
            if not last:
                part = part.get_submodule(step)  # type: ignore[assignment]


# What the model was called with, for each value that a head returned, as long as the value is alive.
_INPUTS: dict[int, tuple[Any, tuple[Any, ...], dict[str, Any]]] = {}


class _Head(_Part):
    """Runs the model up to the cut and returns what is there."""

    def __init__(self, model: nn.Module, cut: str) -> None:
        super().__init__(model, cut, behind=False)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        model = self._whole[0]
        module = model.get_submodule(self._cut)
        run = module.forward

        def stop(*inputs: Any, **options: Any) -> None:
            raise _Reached(run(*inputs, **options))

        with _forward_replaced(module, stop):
            try:
                model(*args, **kwargs)
            except _Reached as reached:
                (value,) = reached.args
            else:
                raise ValueError(f"{type(model).__name__} did not call {self._cut} in this forward")
        if not (tensors := _tensors(value)):
            raise ValueError(f"{self._cut} returns no tensor but a {type(value).__name__}: cut elsewhere")
        if any(part is tensors[0] for part in tree_leaves((args, kwargs))):
            # Unchanged at the cut: another object, which the inputs don't keep alive.
            value = tree_map(lambda part: part.view_as(part) if isinstance(part, Tensor) else part, value)
            tensors = _tensors(value)
        key = id(tensors[0])
        _INPUTS[key] = weakref.ref(tensors[0], lambda _: _INPUTS.pop(key, None)), args, kwargs
        return value


class _Tail(_Part):
    """Runs the model's forward on a value at the cut; what was before is skipped.

    Its inputs are needed for what does not pass through the cut (masks): those that the head got, or, for another value
    than the head returned, the caller's: ``tail(value, *inputs)``.
    """

    def __init__(self, model: nn.Module, cut: str) -> None:
        super().__init__(model, cut, behind=True)

    def forward(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if not args and not kwargs:
            args, kwargs = self._inputs_of(value)
        return _Replay(self._whole[0], self._cut, value).run(args, kwargs)

    def _inputs_of(self, value: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        for tensor in _tensors(value)[:1]:
            reference, args, kwargs = _INPUTS.get(id(tensor), (None, (), {}))
            if reference is not None and reference() is tensor:
                return args, kwargs
        raise ValueError(
            f"the tail after {self._cut} got a value that the head did not return: give it the inputs of "
            f"{type(self._whole[0]).__name__} too, for masks and shapes: tail(value, *inputs)"
        )


@contextmanager
def _forward_replaced(module: nn.Module, forward: Callable) -> Iterator[None]:
    """Not by hooks, which can't skip a forward, and for which ``nn.TransformerEncoderLayer`` takes another path."""
    own = vars(module).get("forward")
    module.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own  # type: ignore[method-assign]


def _maximal(model: nn.Module, cut: str) -> list[nn.Module]:
    """The largest modules that don't contain the cut and have weights; those without cost little and are run."""
    found: list[nn.Module] = []
    around = [model]
    for step in cut.split("."):
        around.append(around[-1].get_submodule(step))
    waiting = [child for module in around[:-1] for child in module.children()]
    while waiting:
        module = waiting.pop()
        if isinstance(module, _CONTAINERS):
            waiting += module.children()
        elif module not in around and any(True for _ in module.parameters()):
            found.append(module)
    return found


class _Replay:
    """A run of a model's forward in which one value takes the place of all that is computed up to the cut.

    Until then modules return stand-ins: tensors whose shape, dtype and device may be read, also of what is computed
    from them, but no value once the cut is passed. So what crosses the cut otherwise (a skip connection) is refused.
    """

    def __init__(self, model: nn.Module, cut: str, value: Any) -> None:
        self.model, self.cut, self.value = model, cut, value
        self.passed = False
        replay = self

        class StandIn(Tensor):
            @classmethod
            def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                return replay.compute(super().__torch_function__, func, types, args, kwargs or {})

        self.kind = StandIn

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = type(self.model).__name__
        with ExitStack() as replaced:
            for module, forward in self._forwards():
                replaced.enter_context(_forward_replaced(module, forward))
            try:
                output = self.model(*args, **kwargs)
            except Exception as error:
                if self.passed and isinstance(getattr(error, "obj", None), self.kind):
                    self._refuse()  # a field of what a module returned before
                if self.passed:
                    raise
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                raise ValueError(
                    f"the forward of {name} can't skip what comes before {self.cut} ({reason}): cut elsewhere"
                ) from error
        if not self.passed:
            raise ValueError(f"{name} did not call {self.cut} in this forward")
        if any(type(tensor) is self.kind for tensor in _tensors(output)):
            self._refuse()
        return output

    def compute(self, default: Callable, func: Any, types: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """An operation on stand-ins."""
        name = getattr(func, "__name__", "")
        if name.startswith("new_") or name.endswith("_like"):  # reads no value
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        try:
            result = default(func, types, args, kwargs)
        except Exception:
            if self.passed:  # the shapes don't fit either
                self._refuse()
            raise
        if self.passed and any(isinstance(part, Tensor) for part in tree_leaves(result)):
            self._refuse()
        return result

    def _forwards(self) -> Iterator[tuple[nn.Module, Callable]]:
        parent = self.model.get_submodule(self.cut.rpartition(".")[0])
        blocks = set(parent.children()) if isinstance(parent, nn.Sequential | nn.ModuleList) else ()
        # A block returns what the cut returns, perhaps a tuple.
        block = tree_map(lambda part: self._stand_in(part) if isinstance(part, Tensor) else part, self.value)
        other = self._stand_in(_tensors(self.value)[0])
        for module in _maximal(self.model, self.cut):
            yield module, self._until_passed(module.forward, block if module in blocks else other)
        module = self.model.get_submodule(self.cut)
        # What the head returned is the caller's, too: operations in place get a copy.
        yield module, self._until_passed(module.forward, cloned(self.value), passes=True)

    def _until_passed(self, run: Callable, result: Any, passes: bool = False) -> Callable:
        def forward(*args: Any, **kwargs: Any) -> Any:
            if self.passed:
                return run(*args, **kwargs)
            self.passed = passes
            return result

        return forward

    def _stand_in(self, tensor: Tensor) -> Tensor:
        # Memory of its own: operations in place (``h += skip``) would change the value at the cut.
        return torch.zeros_like(tensor).detach().as_subclass(self.kind)

    def _refuse(self) -> None:
        raise ValueError(f"the tail after {self.cut} also needs what was computed before it: cut elsewhere") from None


def cloned(value: Any) -> Any:
    """A copy of a module's result: its tensors are clones."""
    return tree_map(lambda part: part.clone() if isinstance(part, Tensor) else part, value)


def _tensors(value: Any) -> list[Tensor]:
    """The tensors in a module's result: alone, or in tuples, lists, mappings (the outputs of transformers are)."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [tensor for part in value for tensor in _tensors(part)] if isinstance(value, list | tuple) else []
