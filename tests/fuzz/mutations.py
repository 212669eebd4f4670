"""Alter sound files: any bytes, the members of a zip archive, and the values of a JSON text."""

from __future__ import annotations

import copy
import io
import json
import zipfile
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

__all__ = ["mutate_bytes", "mutate_json", "mutate_json_or_bytes", "mutate_zip"]

MAX_CHANGES: Final = 4
MAX_BLOCK_BYTES: Final = 400
MAX_REPETITIONS: Final = 50
EXTREMES: Final = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
FRAGMENTS: Final = (
    b"\x1b[2J",
    b"NaN",
    b"1e999",
    b'"\\ud800"',
    b"\\u0000",
    b"\xff\xfe",
    b"PK\x03\x04",
    b"PAR1",
    b"pxdbg",
    b"null",
    b"[" * 300,
    b'{"a":' * 300,
    b"-9223372036854775809",
    b"\x08\x96\x01",
)


def mutate_bytes(content: bytes, rng: Random) -> bytes:
    """Change bytes at random: between one and four changes."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, MAX_CHANGES)):
        rng.choice(_CHANGES)(changed, rng)
    return bytes(changed)


def _choose_block(content: bytearray, rng: Random) -> tuple[int, int]:
    start = rng.randrange(len(content) + 1)
    return start, min(len(content), start + rng.randint(1, rng.choice((1, 8, MAX_BLOCK_BYTES))))


def _flip_bit(content: bytearray, rng: Random) -> None:
    if content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def _set_byte(content: bytearray, rng: Random) -> None:
    if content:
        content[rng.randrange(len(content))] = rng.randrange(256)


def _cut_end(content: bytearray, rng: Random) -> None:
    del content[rng.randrange(len(content) + 1) :]


def _cut_block(content: bytearray, rng: Random) -> None:
    start, end = _choose_block(content, rng)
    del content[start:end]


def _insert_bytes(content: bytearray, rng: Random) -> None:
    place = rng.randrange(len(content) + 1)
    content[place:place] = rng.randbytes(rng.randint(1, 32))


def _insert_fragment(content: bytearray, rng: Random) -> None:
    place = rng.randrange(len(content) + 1)
    fragment = rng.choice(FRAGMENTS)
    content[place : place + rng.choice((0, len(fragment)))] = fragment


def _repeat_block(content: bytearray, rng: Random) -> None:
    start, end = _choose_block(content, rng)
    content[end:end] = content[start:end] * rng.randint(1, MAX_REPETITIONS)


def _swap_blocks(content: bytearray, rng: Random) -> None:
    (start, end), (other_start, other_end) = sorted((_choose_block(content, rng), _choose_block(content, rng)))
    if end <= other_start:
        one, other = content[start:end], content[other_start:other_end]
        content[start:other_end] = other + content[end:other_start] + one


def _copy_block(content: bytearray, rng: Random) -> None:
    start, end = _choose_block(content, rng)
    place = rng.randrange(len(content) + 1)
    content[place : place + end - start] = content[start:end]


def _set_integer(content: bytearray, rng: Random) -> None:
    size = rng.choice((1, 2, 4, 8))
    place = rng.randrange(len(content) + 1)
    value = rng.choice(EXTREMES) % 2 ** (8 * size)
    content[place : place + size] = value.to_bytes(size, rng.choice(("little", "big")))


_CHANGES: Final[tuple[Callable[[bytearray, Random], None], ...]] = (
    _flip_bit,
    _set_byte,
    _cut_end,
    _cut_block,
    _insert_bytes,
    _insert_fragment,
    _repeat_block,
    _swap_blocks,
    _copy_block,
    _set_integer,
)


def mutate_zip(content: bytes, rng: Random) -> bytes:
    """Change one member of an archive whose checksums are right again, or any bytes of it."""
    if rng.random() < 0.5:
        return mutate_bytes(content, rng)
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as sound, zipfile.ZipFile(written, "w") as changed:
        changed.comment = sound.comment
        chosen = rng.choice(sound.namelist())
        for entry in sound.infolist():
            member = sound.read(entry)
            changed.writestr(entry, mutate_bytes(member, rng) if entry.filename == chosen else member)
    return written.getvalue()


HOSTILE_VALUES: Final[tuple[Any, ...]] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    256,
    2**31,
    2**63 - 1,
    2**63,
    -(2**63) - 1,
    10**400,
    0.5,
    -0.0,
    1e308,
    5e-324,
    "",
    "0" * 64,
    "a" * 5000,
    "\x1b]0;title\x07\x1b[2J",
    "[link=https://example.invalid]x[/link]",
    "<script>alert(1)</script>",
    "\u202eevil",
    "two\nlines",
    "\ud800",
    "\x00",
    "../../etc/passwd",
    [],
    {},
    [[]],
    [None],
    {"": {}},
    list(range(300)),
)
RAW_VALUES: Final = ("NaN", "Infinity", "-Infinity", "1e999", "[" * 2000, "0x1", "'a'", "1" * 5000)
"""What JSON lacks, and what is nested too deeply."""
_RAW_PLACE: Final = "raw value goes here"


def mutate_json(text: str, rng: Random) -> str:
    """Change values, names and lists of a JSON text at random: between one and four changes."""
    root = [json.loads(text)]
    raw: str | None = None
    for _ in range(rng.randint(1, MAX_CHANGES)):
        parent = root if rng.random() < 0.05 else rng.choice(_list_containers(root[0]) or [root])
        if rng.random() < 0.1:
            raw = raw or rng.choice(RAW_VALUES)
            _put(parent, rng, _RAW_PLACE)
        elif isinstance(parent, dict):
            _change_object(parent, rng)
        else:
            _change_list(parent, rng)
        if not root:
            root = [None]
    written = json.dumps(root[0], ensure_ascii=rng.random() < 0.5)
    if raw is not None:
        written = written.replace(json.dumps(_RAW_PLACE), raw)
    if rng.random() < 0.05 and '": ' in written:  # a field twice
        start = written.index('"')
        written = written[:start] + written[start : written.index('": ') + 3] + "1, " + written[start:]
    return written


def mutate_json_or_bytes(content: bytes, rng: Random) -> bytes:
    """Change the values of a JSON text, its bytes, or both."""
    if rng.random() < 0.7:
        content = mutate_json(content.decode(), rng).encode(errors="surrogatepass")
        if rng.random() < 0.7:
            return content
    return mutate_bytes(content, rng)


def _list_containers(value: object) -> list[Any]:
    """List the objects and lists that are not empty, in a value and below it."""
    found: list[Any] = []
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict | list) and each:
            found.append(each)
            waiting.extend(each.values() if isinstance(each, dict) else each)
    return found


def _put(parent: Any, rng: Random, value: object) -> None:  # noqa: ANN401  # a container of JSON
    if parent:
        key = rng.choice(list(parent)) if isinstance(parent, dict) else rng.randrange(len(parent))
        parent[key] = value


def _change_object(parent: dict[str, Any], rng: Random) -> None:
    name = rng.choice(list(parent))
    change = rng.randrange(5)
    if change == 0:
        del parent[name]
    elif change == 1:
        parent[name[:-1] + rng.choice("aé\x1b\n")] = parent.pop(name)
    elif change == 2:
        other = rng.choice(list(parent))
        parent[name], parent[other] = parent[other], parent[name]
    elif change == 3 and isinstance(parent[name], int | float | str):
        parent[name] = _nudge(parent[name], rng)
    else:
        parent[name] = copy.deepcopy(rng.choice(HOSTILE_VALUES))


def _change_list(parent: list[Any], rng: Random) -> None:
    place = rng.randrange(len(parent))
    change = rng.randrange(5)
    if change == 0:
        del parent[place]
    elif change == 1:
        parent[place:place] = copy.deepcopy(parent[place : place + 1]) * rng.randint(1, MAX_REPETITIONS)
    elif change == 2:
        rng.shuffle(parent)
    elif change == 3 and isinstance(parent[place], int | float | str):
        parent[place] = _nudge(parent[place], rng)
    else:
        parent[place] = copy.deepcopy(rng.choice(HOSTILE_VALUES))


def _nudge(value: float | str, rng: Random) -> object:
    """Change a number a little or by its sign, a text by a character."""
    if isinstance(value, str):
        place = rng.randrange(len(value) + 1)
        return value[:place] + rng.choice(("", "a", "/", "\n", "\x1b", "é")) + value[place + 1 :]
    return rng.choice((value + 1, value - 1, -value, value * 2, value / 2 if abs(value) < 1e300 else 0.0, repr(value)))
