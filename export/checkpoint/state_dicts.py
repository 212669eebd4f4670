"""The generator in what a training program saved: wherever its weights lie, under whatever prefix.

All tensors of a checkpoint are listed by the keys that lead to them, split at their dots: whether a training program
nests dicts or joins keys makes no difference. A state dict is then a prefix under which the weights of a family lie.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

from torch import Tensor

from export.checkpoint.file_kinds import SAVE_ALONE
from export.checkpoint.norms import gather_weights
from export.checkpoint.pickles import whole_model_message
from export.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from export.checkpoint.norms import Key, Weight
    from export.checkpoint.pickles import PickledContent

__all__ = ["TOP", "Layout", "StateDict", "find_state_dict"]

TOP: Final = "."
"""How the top of a checkpoint is named among the paths of its state dicts."""
COUNTERS: Final = ("num_batches_tracked", "n_averaged")
"""What counts training steps has no part in the output: it may be absent or stand beside the weights."""
_WRAPPERS: Final = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Keys that PyTorch puts around a module, at any depth, and that are part of no generator."""
_N_NAMED: Final = 4
_DEEPEST: Final = 32
_MOST_NODES: Final = 500_000
"""A pickle may hold itself: what lies deeper, or is more than this, belongs to no training program."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The state dict of a family.

    Attributes
    ----------
    family : str
    shapes : dict of str to tuple of int
        Shape of each weight, by its key.
    """

    family: str
    shapes: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class StateDict:
    """The weights of a family within a checkpoint.

    Attributes
    ----------
    path : str
        Where they lie: the keys that lead to them, joined by dots; `TOP` for the top of the checkpoint.
    weights : dict of str to Weight
        By their keys in the family.
    """

    path: str
    weights: Mapping[str, Weight]


@dataclass(frozen=True, kw_only=True)
class _Contents:
    """A checkpoint's tensors, with the norms joined, and what else it holds."""

    weights: Mapping[Key, Weight]
    others: Mapping[Key, str]
    """Name of the type of all that is not a tensor."""
    dicts: Mapping[Key, Key]
    """Of each tensor, the dict that holds it."""


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """A prefix under which some weights of a family lie."""

    prefix: Key
    weights: Mapping[str, Weight]
    missing: frozenset[str]
    unknown: frozenset[str]
    others: Mapping[str, str]
    has_shapes: bool

    @property
    def fits(self) -> bool:
        return not self.missing and not self.unknown

    @property
    def path(self) -> str:
        return ".".join(self.prefix) or TOP


def find_state_dict(
    path: Path, archive: PickledContent, layout: Layout, others: Iterable[Layout] = (), *, state_key: str | None = None
) -> StateDict:
    """Find the one state dict of a family in a checkpoint.

    Parameters
    ----------
    path : Path
        Of the checkpoint, for messages.
    archive : PickledContent
        What it holds.
    layout : Layout
        Of the family.
    others : iterable of Layout
        Of other families, to recognise their state dicts.
    state_key : str, optional
        Path of the state dict to take, or of what holds it alone.

    Raises
    ------
    CheckpointError
        If none fits, or several do.
    """
    if not isinstance(archive.content, dict | list | tuple):
        raise CheckpointError(path, f"holds a {type(archive.content).__name__}: expected a state dict.")
    contents = _list_contents(path, archive.content)
    candidates = list(_candidates(contents, layout))
    fitting = [candidate for candidate in candidates if candidate.fits]
    if state_key is not None:
        candidates = _within(candidates, state_key)
        if not candidates:
            found = ", ".join(_shown(candidate) for candidate in fitting) or "none"
            raise CheckpointError(path, f"holds no state dict under {state_key!r} (found: {found}).")
        fitting = _within(fitting, state_key)
    if len(fitting) > 1:
        fitting = [candidate for candidate in fitting if candidate.has_shapes] or fitting
    if len(fitting) > 1:
        paths = _and(_shown(candidate) for candidate in fitting)
        raise CheckpointError(path, f"holds several state dicts, {paths}: choose with --state-key.")
    if not fitting:
        raise CheckpointError(path, _explain_misfit(archive, contents, candidates, layout, others))
    return StateDict(path=fitting[0].path, weights=fitting[0].weights)


def _within(candidates: list[_Candidate], state_key: str) -> list[_Candidate]:
    """Select those at a path, or else those anywhere below it."""
    wanted = () if state_key == TOP else _without_wrappers(tuple(state_key.split(".")))
    exact = [candidate for candidate in candidates if candidate.prefix == wanted]
    return exact or [candidate for candidate in candidates if candidate.prefix[: len(wanted)] == wanted]


def _candidates(contents: _Contents, layout: Layout) -> Iterator[_Candidate]:
    for prefix in _prefixes([*contents.weights, *contents.others], layout):
        n = len(prefix)
        keys = {key: (*prefix, *key.split(".")) for key in layout.shapes}
        weights = {key: contents.weights[full] for key, full in keys.items() if full in contents.weights}
        dicts = {contents.dicts[source] for weight in weights.values() for source in weight.sources}
        below = {".".join(full[n:]): full for full in contents.weights if full[:n] == prefix}
        yield _Candidate(
            prefix=prefix,
            weights=weights,
            missing=frozenset(layout.shapes.keys() - weights.keys()),
            unknown=frozenset(
                key
                for key, full in below.items()
                if key not in layout.shapes
                and not key.endswith(COUNTERS)
                and any(contents.dicts[source] in dicts for source in contents.weights[full].sources)
            ),
            others={key: contents.others[full] for key, full in keys.items() if full in contents.others},
            has_shapes=all(tuple(weight.tensor.shape) == layout.shapes[key] for key, weight in weights.items()),
        )


def _prefixes(keys: Iterable[Key], layout: Layout) -> list[Key]:
    """List, in the order of the checkpoint, all that stands before a key of the family."""
    prefixes: dict[Key, None] = {}
    for key in keys:
        for at in range(len(key)):
            if ".".join(key[at:]) in layout.shapes:
                prefixes[key[:at]] = None
    return list(prefixes)


def _list_contents(path: Path, content: object) -> _Contents:
    tensors: dict[Key, Tensor] = {}
    dicts: dict[Key, Key] = {}
    others: dict[Key, str] = {}
    stack: list[tuple[Key, Key, int, object]] = [((), (), 0, content)]
    n_nodes = 0
    while stack:
        key, holder, depth, value = stack.pop()
        n_nodes += 1
        if n_nodes > _MOST_NODES:
            raise CheckpointError(path, f"holds more than {_MOST_NODES:,} entries, or itself: {SAVE_ALONE}.")
        if isinstance(value, Tensor):
            if key in tensors:
                raise CheckpointError(path, f"holds two tensors under {'.'.join(key)!r}: {SAVE_ALONE}.")
            tensors[key], dicts[key] = value, holder
            continue
        others[_without_wrappers(key)] = type(value).__name__
        if depth < _DEEPEST:
            children = [((*key, *str(name).split(".")), key, depth + 1, child) for name, child in _children(value)]
            stack += reversed(children)
    n_of_each = Counter(_without_wrappers(key) for key in tensors)
    names = {key: plain if n_of_each[plain := _without_wrappers(key)] == 1 else key for key in tensors}
    weights = gather_weights({names[key]: tensor for key, tensor in tensors.items()})
    return _Contents(weights=weights, others=others, dicts={names[key]: holder for key, holder in dicts.items()})


def _children(value: object) -> Iterator[tuple[object, object]]:
    if isinstance(value, dict):
        yield from value.items()
        if type(value) is OrderedDict:  # the attributes of an object that a placeholder stands for
            yield from vars(value).items()
    elif isinstance(value, list | tuple):
        yield from ((at, child) for at, child in enumerate(value) if isinstance(child, Tensor | dict | list | tuple))


def _without_wrappers(key: Key) -> Key:
    return tuple(part for part in key if part not in _WRAPPERS)


def _explain_misfit(
    archive: PickledContent, contents: _Contents, candidates: list[_Candidate], layout: Layout, others: Iterable[Layout]
) -> str:
    """Say why no state dict fits: it is another family's, or what the nearest lacks, or what is there at all."""
    for other in others:
        if any(candidate.fits for candidate in _candidates(contents, other)):
            return f"is that of a {other.family}, not of a {layout.family}: pass --family {other.family}."
    if not candidates and archive.module is not None:
        return whole_model_message(archive.module)
    if not candidates:
        example = next(iter(layout.shapes))
        tensors = _named(".".join(key) for key in contents.weights)
        found = f"its tensors are {tensors}" if tensors else "it holds no tensors"
        return f"holds no weights of a {layout.family}, such as {example}: {found}."
    nearest = max(candidates, key=lambda candidate: len(candidate.weights) + len(candidate.others))
    where = "" if nearest.path == TOP else f" under {nearest.path!r}"
    for key, kind in nearest.others.items():
        return f"holds {kind} under {'.'.join((*nearest.prefix, key))!r}: expected a tensor."
    parts = []
    if nearest.missing:
        parts.append(f"lacks {_named(nearest.missing)}")
    if nearest.unknown:
        are = "are" if len(nearest.unknown) > 1 else "is"
        parts.append(f"holds {_named(nearest.unknown)}, which {are} not known")
    return f"is not that of a {layout.family}:{where} it {' and '.join(parts)}."


def _shown(candidate: _Candidate) -> str:
    return f"{TOP} (the top of the file)" if candidate.path == TOP else candidate.path


def _and(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _named(keys: Iterable[str]) -> str:
    listed = sorted(keys)
    named = ", ".join(islice(listed, _N_NAMED))
    rest = len(listed) - _N_NAMED
    return f"{named} and {rest} more" if rest > 0 else named
