"""One case: alter a sound file, read it, and judge what came."""

from __future__ import annotations

import random
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from pxdbg_runtime.errors import PxdbgError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tests.fuzz.reader import Reader

__all__ = ["ENDINGS", "FAILURES", "Case", "Kind", "read_samples", "run_cases"]

Kind = Literal[
    "refused", "accepted", "equal", "foreign error", "altered content", "bad message", "memory", "hang", "crash"
]
ENDINGS: Final[tuple[Kind, ...]] = ("hang", "crash")
"""Failures that end the process."""
FAILURES: Final[tuple[Kind, ...]] = ("foreign error", "altered content", "bad message", "memory", *ENDINGS)
MAX_MESSAGE_CHARACTERS: Final = 3000
MAX_MORE_BYTES: Final = 1 << 30
"""By which a case may raise the peak of resident memory: no sample has a thousandth of it."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """The outcome of a case.

    Attributes
    ----------
    number : int
    kind : str
        ``refused``: with an error of this package. ``accepted``: read, and no digest protects it. ``equal``: read, and
        what the digest protects is that of the sound file. Else a failure.
    summary, detail : str
        Of a failure: what failures of one cause have in common, and all that is known.
    """

    number: int
    kind: Kind
    summary: str = ""
    detail: str = ""


def read_samples(reader: Reader, folder: Path) -> list[object]:
    """Read the sound files; returns what a digest protects of each."""
    path = folder / reader.file_name
    expected = []
    for sample in reader.samples:
        path.write_bytes(reader.seal(sample))
        expected.append(reader.read(path))
    return expected


def run_cases(
    reader: Reader, name: str, seed: int, numbers: Iterable[int], folder: Path, expected: Sequence[object]
) -> Iterator[Case]:
    """Run cases; each depends on the reader's name, the seed and its number alone.

    The file that a case reads stays in `folder` until the next one; `expected` is from `read_samples`.
    """
    path = folder / reader.file_name
    peak = _measure_peak()
    for number in numbers:
        rng = random.Random(f"{name} {seed} {number}")
        chosen = rng.randrange(len(reader.samples))
        path.unlink()
        path.write_bytes(reader.seal(reader.mutate(reader.samples[chosen], rng)))
        case = _read(reader, path, expected[chosen], number)
        grown, peak = _measure_peak() - peak, _measure_peak()
        if grown > MAX_MORE_BYTES:
            case = Case(number=number, kind="memory", summary="too much", detail=f"{grown / 1e9:.1f} GB more: {case}")
        yield case


def _read(reader: Reader, path: Path, expected: object, number: int) -> Case:
    try:
        found = reader.read(path)
    except PxdbgError as error:
        message = str(error)
        if "\n" in message or not message.strip() or len(message) > MAX_MESSAGE_CHARACTERS:
            return Case(number=number, kind="bad message", summary=type(error).__name__, detail=message)
        return Case(number=number, kind="refused")
    except Exception as error:  # noqa: BLE001  # any of them is what is looked for
        frame = traceback.extract_tb(error.__traceback__)[-1]
        summary = f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
        return Case(number=number, kind="foreign error", summary=summary, detail=traceback.format_exc())
    if found is None:
        return Case(number=number, kind="accepted")
    if found == expected:
        return Case(number=number, kind="equal")
    detail = f"{found!r:.1000}\ninstead of\n{expected!r:.1000}"
    return Case(number=number, kind="altered content", summary="accepted", detail=detail)


def _measure_peak() -> int:
    """Measure the peak of resident memory, bytes; 0 on Windows."""
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
