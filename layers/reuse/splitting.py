"""Models split in two, and features from inside: parts that share the model's weights."""

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import fx, nn

from .tracing import LeafModules, TracedModel, Untraceable, changes_input, may_change_input
from .untraced import HookedFeatures, cloned, module_names, split_running, trunk_blocks


def nodes(model: nn.Module, leaf_modules: LeafModules = ()) -> list[str]:
    """The names of the places where a model may be cut, in order of execution.

    Inputs have their names in ``forward``. A module's output has the module's path (``encoder.blocks.0``), numbered
    ``path#1``, ``path#2`` ... if the module is called several times; a module that returns the output of another one
    gives that place a second name. Other operations have the names that ``torch.fx`` gives (``add``, ``flatten_1``).
    Of a model that can't be traced they are the paths of its modules, in the order of their registration.

    Args: as ``split``.
    """
    try:
        return TracedModel(model, leaf_modules).listed
    except Untraceable:
        return module_names(model)


def split(model: nn.Module, cuts: str | Sequence[str], leaf_modules: LeafModules = ()) -> tuple[nn.Module, nn.Module]:
    """Cuts a model into two parts that share its weights: ``head`` computes the cuts, ``tail`` the output from them.

        tail(head(inputs)) = model(inputs)

    With one cut the head returns its value; with several, which are needed where a skip connection crosses the cut, a
    tuple. The tail takes what the head returns. The cut ``output`` (if the model returns one value) makes the tail the
    identity, the name of the only input the head.

    The parts hold only those of the model's own layers that they use and are in the model's mode: training a part
    trains the model. Move the model to its device before cutting it: the parts see changes of a weight in place, but
    not a newly assigned parameter. Hooks of the layers run, those of modules around them don't. The graph is traced
    with the default values of the inputs and the settings at the time of the call.

    Source: kexue.fm/archives/6985, tricks 6 and 7 (``get_outputs_of``), by ``torch.fx``.

    Args:
        model: a model whose ``forward`` can be traced. A module inside it that can't be becomes one node.
        cuts: names of nodes, as ``nodes`` lists them; a module's path means its output.
        leaf_modules: paths or classes of modules to keep as one node each, whatever is inside.

    Raises:
        ValueError: if a name is unknown or ambiguous (the message lists candidates), the tail needs more than the cuts
            provide (it says what), or the model can neither be traced (it says where and what to do) nor cut there.
    """
    cuts = [cuts] if isinstance(cuts, str) else list(cuts)
    try:
        traced = TracedModel(model, leaf_modules)
    except Untraceable as error:
        if len(cuts) == 1 and (parts := split_running(model, cuts[0])) is not None:
            return parts
        blocks = trunk_blocks(model)
        raise Untraceable(f"{error}{f', or cut it once, at a block ({blocks[0]})' if blocks else ''}") from error
    if not cuts:
        raise ValueError(f"split: no cuts; layers.reuse.nodes({type(model).__name__}) lists the places")
    if len(set(cuts)) < len(cuts):
        raise ValueError(f"split: a cut is named twice in {', '.join(cuts)}")
    if len(cuts) == 1 and traced.hides(cuts[0]) and (parts := split_running(model, cuts[0])) is not None:
        return parts
    named = {name: traced.find(name) for name in cuts}
    found = list(named.values())
    return _head(traced, found, found[0] if len(found) == 1 else tuple(found)), _tail(traced, named)


def features(model: nn.Module, names: str | Sequence[str], leaf_modules: LeafModules = ()) -> nn.Module:
    """A module that maps the model's inputs to ``{name: value}`` of places inside; it shares the weights.

    What none of them needs is not computed, nor among its parameters.

    Where a model or a module inside it can't be traced (Hugging Face's, ``nn.TransformerEncoder``), forward hooks find
    the values: then places are modules, values are what these return, perhaps tuples, a path means its first call
    (``path#2``: the second), all arguments of ``forward`` are open, and the result holds the whole model. The forward
    still ends after the last place.

    Source: kexue.fm/archives/6985, trick 5.

    Args, Raises: as ``split``; ``names`` for ``cuts``.
    """
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise ValueError(f"features: no names; layers.reuse.nodes({type(model).__name__}) lists the places")
    try:
        traced = TracedModel(model, leaf_modules)
    except Untraceable as error:
        return HookedFeatures(model, names, str(error))
    if hidden := [name for name in names if traced.hides(name)]:
        return HookedFeatures(model, names, f"{hidden[0]} lies inside a module that can't be traced")
    found = {name: traced.find(name) for name in names}
    return _head(traced, list(found.values()), found, copy_changed=True)


def _head(traced: TracedModel, targets: list[fx.Node], output: Any, copy_changed: bool = False) -> fx.GraphModule:
    needed = _needed(targets, stop=())
    graph = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    kept: dict[fx.Node, fx.Node] = {}
    for node in traced.graph.nodes:
        # All inputs, so that the head is called like the model.
        if node in needed or node.op == "placeholder":
            copied[node] = graph.node_copy(node, copied.__getitem__)
            if copy_changed and node in targets and any(changes_input(traced.model, user) for user in node.users):
                # The value before an in-place operation (ReLU(inplace=True)) changes it.
                kept[node] = graph.call_method("clone", (copied[node],))
    graph.output(fx.map_arg(output, lambda node: kept.get(node, copied[node])))
    return traced.part(graph, f"{type(traced.model).__name__}Head")


def _tail(traced: TracedModel, named: dict[str, fx.Node]) -> fx.GraphModule:
    cuts = list(named.values())
    results = list(traced.output.all_input_nodes)
    needed = _needed(results, stop=cuts)
    _refuse_missing(traced, named, needed)
    graph, copied = fx.Graph(), {}
    if len(cuts) == 1:
        copied[cuts[0]] = graph.placeholder(cuts[0].name)
    else:
        given = graph.placeholder("cuts")
        for position, node in enumerate(cuts):
            if node not in needed:
                continue
            copied[node] = graph.call_function(operator.getitem, (given, position))
    changes = any(may_change_input(traced.model, node) for node in needed.difference(cuts))
    for node in cuts:
        # What the head returned is the caller's, too: operations in place, on it or a view of it, get a copy.
        if node in copied and changes:
            copied[node] = graph.call_function(cloned, (copied[node],))
            copied[node].meta["is_wrapped"] = True  # as by fx.wrap: tracing or unpickling the tail keeps the call
    for node in traced.graph.nodes:
        if node in needed and node not in copied:
            copied[node] = graph.node_copy(node, copied.__getitem__)
    graph.output(fx.map_arg(traced.output.args[0], copied.__getitem__))
    return traced.part(graph, f"{type(traced.model).__name__}Tail")


def _refuse_missing(traced: TracedModel, named: dict[str, fx.Node], needed: set[fx.Node]) -> None:
    """Raises ValueError if the tail depends on an input of the model other than through the cuts."""
    cuts = set(named.values())
    from_input = _depending(traced.inputs)
    before = _needed(cuts, stop=()) - cuts
    behind = {node for node in needed if node not in before and node not in cuts}
    used = _unique(source for node in traced.graph.nodes if node in behind for source in node.all_input_nodes)
    missing = [node for node in [*used, *traced.output.all_input_nodes] if node in from_input and node in before]
    missing += [node for node in traced.inputs if node in behind]
    if missing:
        names = ", ".join(traced.name_of(node) for node in _unique(missing))
        raise ValueError(f"the tail after {', '.join(named)} also needs {names}: add to the cuts, or cut elsewhere")


def _needed(targets: Iterable[fx.Node], stop: Sequence[fx.Node]) -> set[fx.Node]:
    """The targets and all nodes that they are computed from, without looking beyond those in ``stop``."""
    return _closure(targets, lambda node: () if node in stop else node.all_input_nodes)


def _depending(sources: Iterable[fx.Node]) -> set[fx.Node]:
    return _closure(sources, lambda node: node.users)


def _closure(start: Iterable[fx.Node], following: Callable[[fx.Node], Iterable[fx.Node]]) -> set[fx.Node]:
    found, waiting = set(), list(start)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += following(node)
    return found


def _unique(found: Iterable[fx.Node]) -> list[fx.Node]:
    return list(dict.fromkeys(found))
