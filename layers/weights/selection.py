"""Selecting parameters: by regular expressions on their names, or by module class with ``type:NAME``."""

import difflib
import re
from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized, type_before_parametrizations

DEFAULT_EXCLUDE = ("type:norm", "bias[^.]*$")
"""Normalisation layers and biases, which benefit from neither decay nor a trust ratio (kexue.fm/archives/7094)."""

# All of torch's normalisation classes end like this (LayerNorm, RMSNorm, GroupNorm, SyncBatchNorm, InstanceNorm2d), and
# so do those of other libraries (ConditionalLayerNorm, ScaleNorm), which no isinstance check would find.
_NORM_CLASS = re.compile(r"Norm\d?d?$")

# What torch.nn.utils.parametrize makes of the name `weight`.
_PARAMETRIZED = re.compile(r"\bparametrizations\.(\w+)\.original\d*$")


def check_entries(argument: str, entries: Sequence[str] | None) -> list[str] | None:
    """The entries as a list, after checking that each is a regular expression or ``type:NAME``.

    Args:
        argument: name of the argument, for the message.
        entries: what the user passed; ``None`` stays ``None``.

    Raises:
        ValueError: for a bare string (whose letters would each be an entry), a non-string, or a bad expression.
    """
    if entries is None:
        return None
    if isinstance(entries, str):
        raise ValueError(f"{argument} ({entries!r}) must be a list of strings: write [{entries!r}]")
    for entry in entries:
        if not isinstance(entry, str) or not entry or entry == "type:":
            raise ValueError(f"{argument} entry ({entry!r}) must be a regular expression or 'type:NAME'")
        if not entry.startswith("type:"):
            try:
                re.compile(entry)
            except re.error as error:
                raise ValueError(f"{argument} entry ({entry!r}) must be a regular expression: {error}") from None
    return list(entries)


def parameter_names(module: nn.Module) -> dict[nn.Parameter, list[str]]:
    """All names of each parameter, the first one being that of ``module.named_parameters()``.

    A shared parameter (tied embeddings) has several names; an expression that matches any of them selects it. A
    parametrized one (``encoder.parametrizations.weight.original``) also has the name of the tensor that it yields
    (``encoder.weight``), so that expressions keep selecting the same weights.
    """
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    for aliases in names.values():
        plain = map(_plain_name, aliases)
        aliases += [name for name in dict.fromkeys(plain) if name not in aliases]
    return names


def uses(module: nn.Module) -> dict[nn.Parameter, list[tuple[nn.Module, str]]]:
    """Where each parameter is used: the modules and the names of the tensor there, without parametrizations."""
    found: dict[nn.Parameter, list[tuple[nn.Module, str]]] = {}
    for child in module.modules():
        if isinstance(child, ParametrizationList):
            continue
        for name, parameter in child.named_parameters(recurse=False, remove_duplicate=False):
            found.setdefault(parameter, []).append((child, name))
        if is_parametrized(child):
            for name, parametrization in parametrizations_of(child).items():
                for parameter in parametrization.parameters():
                    found.setdefault(parameter, []).append((child, name))
    return found


def parametrizations_of(module: nn.Module) -> Any:
    """The ``ModuleDict`` of ``ParametrizationList`` that torch adds to a parametrized module, unknown to its stubs."""
    return module.parametrizations


def _plain_name(name: str) -> str:
    return _PARAMETRIZED.sub(r"\1", name)


def matching(module: nn.Module, entry: str) -> set[nn.Parameter]:
    """Parameters of ``module`` that one entry selects (see ``select``)."""
    if not entry.startswith("type:"):
        expression = re.compile(entry)
        names = parameter_names(module)
        return {parameter for parameter, aliases in names.items() if any(map(expression.search, aliases))}
    wanted = entry.removeprefix("type:")
    chosen: set[nn.Parameter] = set()
    for child in module.modules():
        if any(_is_class(cls, wanted) for cls in type(child).__mro__):
            chosen.update(child.parameters(recurse=False))
            # A weight under torch's parametrizations (weight norm) lies one level deeper, yet is the layer's own.
            if isinstance(parametrizations := getattr(child, "parametrizations", None), nn.Module):
                chosen.update(parametrizations.parameters())
    return chosen


def select(
    module: nn.Module,
    include: Sequence[str] | None,
    exclude: Sequence[str],
    owner: str,
    may_match_nothing: Sequence[str] = (),
) -> set[nn.Parameter]:
    """Parameters matched by an entry of ``include`` and by no entry of ``exclude``.

    Args:
        module: the module to select from.
        include: entries, each a regular expression (``re.search`` on the full parameter name) or ``type:NAME`` (the
            direct parameters of all modules of that class or a subclass; ``type:norm`` = all normalisation layers).
            ``None`` selects everything, an empty list nothing.
        exclude: entries; an empty list excludes nothing.
        owner: name of the caller, for the message.
        may_match_nothing: default entries, which are no mistake if the module has no such parameter.

    Raises:
        ValueError: if any other entry matches nothing; the message names the nearest parameter or class.
    """
    chosen = set(parameter_names(module)) if include is None else set()
    for argument, entries in (("include", include or ()), ("exclude", exclude)):
        for entry in entries:
            found = matching(module, entry)
            if not found and entry not in may_match_nothing:
                raise ValueError(f"{owner}: {argument} entry {entry!r} matches no parameter; {nearest(module, entry)}")
            chosen = chosen - found if argument == "exclude" else chosen | found
    return chosen


def _is_class(cls: type, wanted: str) -> bool:
    return _NORM_CLASS.search(cls.__name__) is not None if wanted == "norm" else cls.__name__ == wanted


def nearest(module: nn.Module, entry: str) -> str:
    """What an entry that matches nothing may have meant, as part of a message."""
    if entry.startswith("type:"):
        children = [child for child in module.modules() if not isinstance(child, ParametrizationList)]
        children = [child for child in children if any(True for _ in child.parameters())]
        classes = sorted({type_before_parametrizations(child).__name__ for child in children})
        return _closest(entry.removeprefix("type:"), classes, "the nearest class is ", "type:")
    names = [_plain_name(name) for name, _ in module.named_parameters()]
    return _closest(re.sub(r"[\\^$()\[\]{}?*+|]", "", entry), names, "the nearest one is ", "")


def _closest(word: str, candidates: list[str], lead: str, prefix: str) -> str:
    if not candidates:
        return "the module has no parameters"

    # The parts of a dotted name are compared too: 'encodr' is near 'encoder.layers.0.weight'.
    def likeness(candidate: str) -> float:
        parts = [candidate, *candidate.split(".")]
        return max(difflib.SequenceMatcher(None, word.lower(), part.lower()).ratio() for part in parts)

    return f"{lead}{prefix + max(candidates, key=likeness)!r}"
