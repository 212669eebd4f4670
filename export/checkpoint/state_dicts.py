"""Find the state dict of a generator in a checkpoint, in any container and under any prefix.

All tensors of a checkpoint are listed by their paths: the keys on the way to them, split at their dots, so that nested
dicts and joined keys are the same. A state dict is then a prefix under which the weights of a family are.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

from torch import Tensor

from export.checkpoint.file_kinds import SAVE_ALONE
from export.checkpoint.norms import gather_weights
from export.checkpoint.pickles import explain_whole_model
from export.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from export.checkpoint.norms import Key, Weight
    from export.checkpoint.pickles import PickledContent

__all__ = ["RECORDS", "TOP", "Layout", "StateDict", "find_state_dict"]

TOP: Final = "."
"""Path of the state dict at the top of a checkpoint."""
RECORDS: Final = ("num_batches_tracked", "n_averaged", "sv0")
"""Counters of training steps and logged norms do not affect the output: they may be missing, or hold any value."""
_WRAPPERS: Final = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Keys that PyTorch adds when it wraps a module, at any depth."""
_N_NAMED: Final = 4
_MAX_DEPTH: Final = 32
_MAX_NODES: Final = 500_000
"""Objects that refer to one another have paths without number; no checkpoint has deeper or more entries than this."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The shapes of the weights of a family, by their keys."""

    family: str
    shapes: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class StateDict:
    """The weights of a family by their keys, and their path in the checkpoint, joined by dots or `TOP`."""

    path: str
    layout: Layout
    weights: Mapping[str, Weight]


@dataclass(frozen=True, kw_only=True)
class _Contents:
    """The weights of a checkpoint, and its other objects."""

    weights: Mapping[Key, Weight]
    others: Mapping[Key, str]
    """Type names of the objects that are not tensors."""
    dicts: Mapping[Key, Key]
    """For each tensor, the path of the dict that contains it."""
    ambiguous: frozenset[Key]
    """Paths of more than one tensor."""


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """A prefix under which there are weights of a family."""

    layout: Layout
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
    path: Path,
    archive: PickledContent,
    layouts: Sequence[Layout],
    others: Iterable[Layout] = (),
    *,
    state_key: str | None = None,
) -> StateDict:
    """Find the one state dict of a family in a checkpoint.

    Parameters
    ----------
    path : Path
        Path of the checkpoint, for messages.
    archive : PickledContent
        Its content.
    layouts : sequence of Layout
        Layouts of the variants of the family.
    others : iterable of Layout
        Layouts of other families, to recognise their state dicts.
    state_key : str, optional
        Path of the state dict, or of a container with no other state dict of the family.

    Raises
    ------
    CheckpointError
        If none fits, or several do.
    """
    if not isinstance(archive.content, dict | list | tuple):
        raise CheckpointError(path, f"holds a {type(archive.content).__name__}: expected a state dict.")
    contents = _list_contents(path, archive.content)
    candidates = list(_list_candidates(contents, layouts))
    fitting = [candidate for candidate in candidates if candidate.fits]
    if state_key is not None:
        candidates = _within(candidates, state_key)
        if not candidates:
            found = ", ".join(_format_path(candidate) for candidate in fitting) or "none"
            raise CheckpointError(path, f"holds no state dict under {state_key!r} (found: {found}).")
        fitting = [candidate for candidate in candidates if candidate.fits]
    if len(fitting) > 1:
        fitting = [candidate for candidate in fitting if candidate.has_shapes] or fitting
    if len(fitting) > 1:
        paths = _join_with_and(_format_path(candidate) for candidate in fitting)
        raise CheckpointError(path, f"holds several state dicts, {paths}: choose with --state-key.")
    if not fitting:
        raise CheckpointError(path, _explain_misfit(archive, contents, candidates, layouts[0], others))
    chosen = fitting[0]
    for source in (source for weight in chosen.weights.values() for source in weight.sources):
        if source in contents.ambiguous:
            raise CheckpointError(path, f"holds two tensors under {'.'.join(source)!r}: {SAVE_ALONE}.")
    return StateDict(path=chosen.path, layout=chosen.layout, weights=chosen.weights)


def _within(candidates: list[_Candidate], state_key: str) -> list[_Candidate]:
    """Select the candidates at a path if one lacks no weights, or else also all candidates below it."""
    wanted = () if state_key == TOP else tuple(state_key.split("."))
    if not any(candidate.prefix[: len(wanted)] == wanted for candidate in candidates):
        wanted = _drop_wrappers(wanted)
    exact = [candidate for candidate in candidates if candidate.prefix == wanted and not candidate.missing]
    return exact or [candidate for candidate in candidates if candidate.prefix[: len(wanted)] == wanted]


def _list_candidates(contents: _Contents, layouts: Iterable[Layout]) -> Iterator[_Candidate]:
    """List all prefixes of the layouts; the tensors of a whole state dict below a prefix are not unknown there."""
    paths = [*contents.weights, *contents.others]
    prefixes = [(layout, prefix) for layout in layouts for prefix in _list_prefixes(paths, layout)]
    whole = [prefix for layout, prefix in prefixes if _is_whole(contents, layout, prefix)]
    for layout, prefix in prefixes:
        n = len(prefix)
        inner = [each for each in whole if len(each) > n and each[:n] == prefix]
        keys = {key: (*prefix, *key.split(".")) for key in layout.shapes}
        weights = {key: contents.weights[full] for key, full in keys.items() if full in contents.weights}
        dicts = {contents.dicts[source] for weight in weights.values() for source in weight.sources}
        below = {".".join(full[n:]): full for full in contents.weights if full[:n] == prefix}
        yield _Candidate(
            layout=layout,
            prefix=prefix,
            weights=weights,
            missing=frozenset(layout.shapes.keys() - weights.keys()),
            unknown=frozenset(
                key
                for key, full in below.items()
                if key not in layout.shapes
                and not key.endswith(RECORDS)
                and not any(full[: len(each)] == each for each in inner)
                and any(contents.dicts[source] in dicts for source in contents.weights[full].sources)
            ),
            others={key: contents.others[full] for key, full in keys.items() if full in contents.others},
            has_shapes=all(tuple(weight.tensor.shape) == layout.shapes[key] for key, weight in weights.items()),
        )


def _is_whole(contents: _Contents, layout: Layout, prefix: Key) -> bool:
    """Whether the weights below a prefix are those of the layout and no others, apart from records."""
    n = len(prefix)
    below = {".".join(key[n:]) for key in contents.weights if key[:n] == prefix and not key[-1].endswith(RECORDS)}
    return below == layout.shapes.keys()


def _list_prefixes(keys: Iterable[Key], layout: Layout) -> list[Key]:
    """List the prefixes before keys of the family, in the order of the checkpoint."""
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
    ambiguous: set[Key] = set()
    stack: list[tuple[Key, Key, tuple[int, ...], object]] = [((), (), (), content)]
    n_nodes = 0
    while stack:
        key, holder, ancestors, value = stack.pop()
        n_nodes += 1
        if n_nodes > _MAX_NODES:
            message = f"holds more than {_MAX_NODES:,} entries, shared ones counted each time: {SAVE_ALONE}."
            raise CheckpointError(path, message)
        if isinstance(value, Tensor):
            if tensors.setdefault(key, value) is not value:
                ambiguous.add(key)
            dicts.setdefault(key, holder)
            continue
        others[_drop_wrappers(key)] = type(value).__name__
        if len(ancestors) < _MAX_DEPTH:
            ancestors = (*ancestors, id(value))
            children = [
                ((*key, *str(name).split(".")), key, ancestors, child)
                for name, child in _list_children(value)
                if id(child) not in ancestors  # as in a configuration whose nodes know their parents
            ]
            stack += reversed(children)
    n_of_each = Counter(_drop_wrappers(key) for key in tensors)
    names = {key: plain if n_of_each[plain := _drop_wrappers(key)] == 1 else key for key in tensors}
    weights = gather_weights({names[key]: tensor for key, tensor in tensors.items()})
    return _Contents(
        weights=weights,
        others=others,
        dicts={names[key]: holder for key, holder in dicts.items()},
        ambiguous=frozenset(names[key] for key in ambiguous),
    )


def _list_children(value: object) -> Iterator[tuple[object, object]]:
    if isinstance(value, dict):
        # Some optimizers have tensors as keys.
        yield from ((name, child) for name, child in value.items() if not isinstance(name, Tensor))
        if type(value) is OrderedDict:  # the attributes of an object that became a placeholder; they may be its items
            yield from ((name, child) for name, child in vars(value).items() if value.get(name) is not child)
    elif isinstance(value, list | tuple):
        yield from ((at, child) for at, child in enumerate(value) if isinstance(child, Tensor | dict | list | tuple))


def _drop_wrappers(key: Key) -> Key:
    return tuple(part for part in key if part not in _WRAPPERS)


def _explain_misfit(
    archive: PickledContent, contents: _Contents, candidates: list[_Candidate], layout: Layout, others: Iterable[Layout]
) -> str:
    """Explain why no state dict fits: another family, keys that the nearest candidate lacks, or other content."""
    for other in others:
        if any(candidate.fits for candidate in _list_candidates(contents, [other])):
            return f"is of the family {other.family}, not {layout.family}: pass --family {other.family}."
    if not candidates and archive.module is not None:
        return explain_whole_model(archive.module)
    if not candidates:
        example = next(iter(layout.shapes))
        tensors = _list_some(".".join(key) for key in contents.weights)
        found = f"its tensors are {tensors}" if tensors else "it holds no tensors"
        return f"holds no weights of the family {layout.family}, such as {example}: {found}."
    nearest = max(
        candidates, key=lambda candidate: len(candidate.weights) + len(candidate.others) - len(candidate.unknown)
    )
    where = "" if nearest.path == TOP else f" under {nearest.path!r}"
    for key, kind in nearest.others.items():
        return f"holds {kind} under {'.'.join((*nearest.prefix, key))!r}: expected a tensor."
    parts = []
    if nearest.missing:
        parts.append(f"lacks {_list_some(nearest.missing)}")
    if nearest.unknown:
        are = "are" if len(nearest.unknown) > 1 else "is"
        parts.append(f"holds {_list_some(nearest.unknown)}, which {are} unknown")
    return f"is not of the family {layout.family}:{where} it {' and '.join(parts)}."


def _format_path(candidate: _Candidate) -> str:
    return f"{TOP} (the top of the file)" if candidate.path == TOP else candidate.path


def _join_with_and(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _list_some(keys: Iterable[str]) -> str:
    listed = sorted(keys)
    named = ", ".join(islice(listed, _N_NAMED))
    rest = len(listed) - _N_NAMED
    return f"{named} and {rest} more" if rest > 0 else named
