"""Make texts of users' files safe to print: without control characters for the terminal."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

__all__ = ["keep_colours", "make_line", "make_safe"]

_UNSAFE: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories of control and format characters (bidirectional overrides), surrogates, line separators."""
_COLOURS: Final = re.compile(r"(\x1b\[[0-9;:]*m)")


def make_safe(text: str) -> str:
    r"""Replace control characters by their escape sequences, as visible text.

    Parameters
    ----------
    text : str

    Returns
    -------
    str
        Line breaks and tabs stay; an escape character becomes the four characters ``\x1b``.

    Examples
    --------
    >>> print(make_safe("a\x1b[2Jb"))
    a\x1b[2Jb
    """
    if text.isprintable():  # almost always
        return text
    return "".join(_escape(character) if _is_unsafe(character) else character for character in text)


def make_line(text: str) -> str:
    r"""Replace control characters as `make_safe` does, and line breaks too: no text of a file forges a line of output.

    Examples
    --------
    >>> print(make_line("stand-in\ndigest: checked"))
    stand-in\ndigest: checked
    """
    return make_safe(text).replace("\n", r"\n")


def keep_colours(text: str) -> str:
    """Replace control characters as `make_safe` does, but keep the sequences that choose colours."""
    if text.isprintable():
        return text
    return "".join(part if _COLOURS.fullmatch(part) else make_safe(part) for part in _COLOURS.split(text))


def _is_unsafe(character: str) -> bool:
    return character not in "\n\t" and unicodedata.category(character) in _UNSAFE


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()
