"""A model's graph, with names for the places where it may be cut."""

import difflib
import inspect
import traceback
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils import parametrize

from .tied_linear import TiedLinear

LeafModules = Sequence[str | type[nn.Module]]


class Untraceable(ValueError):
    """A model of whose forward there is no graph."""


class TracedModel:
    """The graph of a model and the names of its nodes.

    Args:
        model: the model.
        leaf_modules: paths or classes of modules to keep as one node each, whatever is inside.

    Attributes:
        graph: the ``torch.fx.Graph``.
        listed: the names of the places that may be cut, in order of execution: inputs by name; calls of modules by the
            module's path, ``path#1``, ``path#2`` ... if there are several; other operations by fx's names.

    Arguments of ``forward`` that have a default are bound to it: a graph has no branches.

    Raises:
        Untraceable: if the forward of the model itself can't be traced, or differs in training.
        ValueError: if a leaf is unknown, or a part of the graph would lose something.
    """

    def __init__(self, model: nn.Module, leaf_modules: LeafModules = ()) -> None:
        _check_leaf_modules(model, leaf_modules)
        self.model = model
        classes = tuple(leaf for leaf in leaf_modules if not isinstance(leaf, str))
        self._leaves = {name for name, module in model.named_modules() if isinstance(module, classes)}
        self._leaves |= {leaf for leaf in leaf_modules if isinstance(leaf, str)}
        in_training, _, _ = _trace(model, leaf_modules, training=True)
        self.graph, self._calls, self._constants = _trace(model, leaf_modules, training=False)
        _check_same(model, in_training, self.graph)
        _check_nodes(model, self.graph)
        self._nodes: dict[str, fx.Node] = {}
        for path, calls in self._calls.items():
            for number, node in enumerate(calls, 1):
                if node is not None:
                    self._nodes[f"{path}#{number}" if len(calls) > 1 else path] = node
        named: dict[fx.Node, list[str]] = {node: [] for node in self.graph.nodes}
        for name, node in self._nodes.items():
            named[node].append(name)
        self.listed: list[str] = []
        for node in self.graph.nodes:
            if node.op in ("output", "get_attr"):
                continue
            if node.name not in self._calls:  # else a path, perhaps of several calls
                self._nodes.setdefault(node.name, node)
            self.listed += sorted(named[node], key=len, reverse=True) or [node.name]
        result = self.output.args[0]
        if isinstance(result, fx.Node):
            self._nodes.setdefault("output", result)

    @property
    def output(self) -> fx.Node:
        """The output node; its arguments are what the model returns."""
        return next(node for node in reversed(self.graph.nodes) if node.op == "output")

    @property
    def inputs(self) -> list[fx.Node]:
        """The nodes of the arguments of ``forward``, in their order."""
        return [node for node in self.graph.nodes if node.op == "placeholder"]

    def part(self, graph: fx.Graph, name: str) -> fx.GraphModule:
        """A module for a part of the graph; the constants of the forward that it uses become its buffers."""
        vars(self.model).update(self._constants)
        try:
            made = fx.GraphModule(self.model, graph, name)
        finally:
            for constant in self._constants:
                delattr(self.model, constant)
        # torch makes all buffers that it copies persistent.
        for path, _, field in (str(node.target).rpartition(".") for node in graph.nodes if node.op == "get_attr"):
            if field in self.model.get_submodule(path)._non_persistent_buffers_set:
                made.get_submodule(path)._non_persistent_buffers_set.add(field)
        return made

    def name_of(self, node: fx.Node) -> str:
        """The name to show for a node: the shortest of its modules' paths, else fx's own."""
        return min((name for name in self.listed if self._nodes[name] is node), key=len, default=node.name)

    def find(self, name: str) -> fx.Node:
        """The node of a name.

        Raises:
            ValueError: if there is none or several; the message lists candidates.
        """
        if name in self._nodes:
            return self._nodes[name]
        kind = type(self.model).__name__
        path = self._path_of_same_module(name)
        calls = self._calls.get(path, [])
        if len(calls) == 1 and calls[0] is not None:
            return calls[0]
        if len(calls) > 1:
            several = ", ".join(f"{path}#{number}" for number, node in enumerate(calls, 1) if node is not None)
            raise ValueError(f"{kind} calls {name} {len(calls)} times: name one of {several}")
        if calls or name == "output":
            inside = [listed for listed in self.listed if not calls or listed.startswith(f"{path}.")]
            raise ValueError(f"{name} of {kind} returns several values: name one of {_few(inside)}")
        near = difflib.get_close_matches(name, self.listed, n=3, cutoff=0.3) or self.listed
        raise ValueError(f"{kind} has no node '{name}' to cut at; nearest: {_few(near)} (layers.reuse.nodes lists all)")

    def hides(self, name: str) -> bool:
        """Whether a name is the path of a module inside one that could not be traced."""
        paths = dict(self.model.named_modules(remove_duplicate=False))
        inside = [node for node in self.graph.nodes if node.op == "call_module" and node.target not in self._leaves]
        return name in paths and name not in self._calls and any(name.startswith(f"{node.target}.") for node in inside)

    def _path_of_same_module(self, name: str) -> str:
        """The first path of the module at this path: a module in two places goes by its first."""
        paths = dict(self.model.named_modules(remove_duplicate=False))
        return next((path for path, module in paths.items() if name in paths and module is paths[name]), name)


class _Tracer(fx.Tracer):
    """Traces down to modules without submodules; a module whose inside can't be traced becomes one node."""

    def __init__(self, leaf_modules: LeafModules) -> None:
        super().__init__()
        self.leaf_paths = {leaf for leaf in leaf_modules if isinstance(leaf, str)}
        self.leaf_types = tuple(leaf for leaf in leaf_modules if not isinstance(leaf, str))
        # By path, the node of each call; None if the call returned anything but one value.
        self.calls: dict[str, list[fx.Node | None]] = {}
        self._places_inputs = False

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> tuple[Any, list[Any]]:
        """Binds optional arguments: an unknown value is never None, so it takes the branch of one that is given."""
        self._places_inputs = True
        function, args = super().create_args_for_root(root_fn, is_module, concrete_args)
        self._places_inputs = False
        parameters = inspect.signature(inspect.unwrap(root_fn)).parameters.values()
        given = [p for p in parameters if p.default is p.empty and p.kind != p.VAR_KEYWORD][1:]
        placed = any(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in given)
        bound = {p.name: p.default for p in parameters if p.default is not p.empty}
        bound |= {f"*{p.name}": () for p in parameters if p.kind == p.VAR_POSITIONAL and placed}
        bound |= {f"**{p.name}": {} for p in parameters if p.kind == p.VAR_KEYWORD}
        if bound and not given:
            raise TypeError("all its arguments have defaults, so which of them are its inputs is not known")
        for place, proxy in enumerate(args):
            if isinstance(proxy, fx.Proxy) and proxy.node.target in bound:
                args[place] = bound[proxy.node.target]
                self.graph.erase_node(proxy.node)
        return function, args

    def create_arg(self, a: Any) -> Any:
        if self._places_inputs:  # a default, of whatever class, which is bound
            return a
        if isinstance(a, dict) and type(a) not in (dict, OrderedDict):
            raise TypeError(f"a graph would make a dict of {type(a).__name__}")
        return super().create_arg(a)

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        if name in self.leaf_paths or isinstance(module, self.leaf_types):
            return True
        if isinstance(module, TiedLinear):
            return False  # so that the graph contains the embedding's weight
        if parametrize.is_parametrized(module):
            return all(child is module.parametrizations for child in module.children())
        return super().is_leaf_module(module, name) or not any(True for _ in module.children())

    def call_module(self, module: nn.Module, forward: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        path = self.path_of_module(module)
        last = next(iter(reversed(self.graph.nodes)))
        calls, stack = {name: list(found) for name, found in self.calls.items()}, self.module_stack.copy()
        try:
            value = super().call_module(module, forward, args, kwargs)
        except Exception:
            self.calls, self.module_stack = calls, stack
            for node in reversed(self.graph.nodes):
                if node is last:
                    break
                self.graph.erase_node(node)
            value = self.create_proxy("call_module", path, args, kwargs)
        self.calls.setdefault(path, []).append(value.node if isinstance(value, fx.Proxy) else None)
        return value


def _check_leaf_modules(model: nn.Module, leaf_modules: LeafModules) -> None:
    paths = dict(model.named_modules())
    for leaf in leaf_modules:
        if isinstance(leaf, str) and leaf not in paths:
            near = difflib.get_close_matches(leaf, paths, n=3, cutoff=0.3) or list(paths)[1:]
            raise ValueError(f"leaf_modules: {type(model).__name__} has no module '{leaf}'; nearest: {_few(near)}")


def _trace(
    model: nn.Module, leaf_modules: LeafModules, training: bool
) -> tuple[fx.Graph, dict[str, list[fx.Node | None]], dict[str, Any]]:
    tracer, constants = _Tracer(leaf_modules), {}
    with _mode(model, training):
        attributes = set(vars(model))
        try:
            graph = tracer.trace(model)
        except Exception as error:
            raise Untraceable(
                f"the forward of {type(model).__name__} can't be traced ({_place(error)}{_first_line(error)}): move "
                "what depends on values or sizes into a module of its own, or split a module inside it"
            ) from error
        finally:
            # fx leaves the constants of the forward on the model.
            for name in set(vars(model)) - attributes:
                constants[name] = vars(model)[name]
                delattr(model, name)
    return graph, tracer.calls, constants


def _check_nodes(model: nn.Module, graph: fx.Graph) -> None:
    """Raises ValueError for what a part of the graph would lose."""
    for node in graph.nodes:
        if not node.users and changes_input(model, node):
            raise ValueError(
                f"{type(model).__name__}: {node.name} changes its input in place and its result is not used, which "
                "a part would lose: use the result, or name the module in leaf_modules"
            )
        if node.op == "call_module":
            inside = set(model.get_submodule(node.target).modules())
            outside = set(model.modules()) - inside
            if any(isinstance(module, TiedLinear) and module.embedding in outside for module in inside):
                raise ValueError(
                    f"{node.target} is one node, but the embedding of its TiedLinear lies outside, so a part would not "
                    "have its weight: keep both in one node, or neither"
                )


def changes_input(model: nn.Module, node: fx.Node) -> bool:
    """Whether an operation works in place."""
    if node.op == "call_method":
        return str(node.target).endswith("_") and not str(node.target).endswith("__")
    if node.op == "call_module":
        return bool(getattr(model.get_submodule(str(node.target)), "inplace", False))
    if node.op != "call_function" or getattr(node.target, "__module__", "") == "_operator":  # operator.and_
        return False
    return bool(node.kwargs.get("inplace")) or getattr(node.target, "__name__", "").endswith("_")


def may_change_input(model: nn.Module, node: fx.Node) -> bool:
    """Whether an operation works in place, or is a module of which only a run would tell."""
    inside = model.get_submodule(str(node.target)).modules() if node.op == "call_module" else ()
    unknown = (getattr(part, "inplace", False) or not type(part).__module__.startswith("torch.") for part in inside)
    return changes_input(model, node) or any(unknown)


@contextmanager
def _mode(model: nn.Module, training: bool) -> Iterator[None]:
    """All modules in training or evaluation mode, without calling ``train()``, which a model may override."""
    modes = {module: module.training for module in model.modules()}
    for module in modes:
        module.training = training
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _check_same(model: nn.Module, in_training: fx.Graph, in_evaluation: fx.Graph) -> None:
    """Raises Untraceable if the graph depends on the mode, which nothing in it would show."""
    both = [[_described(node) for node in graph.nodes] for graph in (in_training, in_evaluation)]
    if both[0] == both[1]:
        return
    pairs = zip(in_training.nodes, in_evaluation.nodes, strict=False)
    different = next((pair[1] for pair in pairs if _described(pair[0]) != _described(pair[1])), None)
    stack = [] if different is None else [path for path, _ in (different.meta.get("nn_module_stack") or {}).values()]
    where = stack[-1] if stack else ""
    advice = f"name it in leaf_modules (['{where}'])" if where else "move that part into a module of its own"
    raise Untraceable(
        f"the forward of {where or type(model).__name__} differs between training and evaluation, which a graph "
        f"can't express: {advice}"
    )


def _described(node: fx.Node) -> tuple[str, ...]:
    return node.op, str(node.target), str(node.args), str(node.kwargs)


def _place(error: Exception) -> str:
    """File and line of the innermost code that isn't torch's."""
    torch_folder = str(Path(torch.__file__).parent)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(torch_folder) and frame.filename != __file__ and "<" not in frame.filename
    ]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}: " if frames else ""


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _few(names: Sequence[str], most: int = 12) -> str:
    shown = list(names[:most]) + ([f"... ({len(names)} in all)"] if len(names) > most else [])
    return ", ".join(shown)
