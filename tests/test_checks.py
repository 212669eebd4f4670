"""Integers and paths as arguments: what counts as one is the same everywhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from pxdbg_runtime.checks import check_integer, check_path
from pxdbg_runtime.errors import ArgumentTypeError, ArgumentValueError

NO_INTEGERS: Final = [True, np.True_, 2.0, np.float64(2), "2", None, [2], np.array([2, 3]), np.array(2.0)]


@pytest.mark.parametrize("value", [2, np.int64(2), np.uint8(2), np.int16(2), np.array(2)])
def test_an_integer_of_any_kind_becomes_one_of_pythons(value: object) -> None:
    checked = check_integer("nintra", value, 1, 4)
    assert checked == 2
    assert type(checked) is int


@pytest.mark.parametrize("value", NO_INTEGERS, ids=repr)
def test_what_is_no_integer_is_refused(value: object) -> None:
    with pytest.raises(ArgumentTypeError, match=r"^nintra must be an integer, but is ") as caught:
        check_integer("nintra", value, 1, 4)
    assert caught.value.argument == "nintra"


@pytest.mark.parametrize("value", [0, 5, -(10**30), np.int64(5)])
def test_limits_and_their_unit_are_named(value: int) -> None:
    with pytest.raises(ArgumentValueError, match=rf"^nintra must lie between 1 and 4 threads, but is {value}\.$"):
        check_integer("nintra", value, 1, 4, unit="threads")
    with pytest.raises(ArgumentValueError, match=rf"^nintra must lie in \[1, 4\], but is {value}\.$"):
        check_integer("nintra", value, 1, 4, limits="[1, 4]")


class _Entry(os.PathLike[str]):
    def __fspath__(self) -> str:
        return "bg.parquet"


@pytest.mark.parametrize("value", ["bg.parquet", Path("bg.parquet"), _Entry()])
def test_a_path_of_any_kind_becomes_a_path(value: str | os.PathLike[str]) -> None:
    assert check_path("path", value) == Path("bg.parquet")


@pytest.mark.parametrize("value", [3, None, b"bg.parquet", ["bg.parquet"]])
def test_what_is_no_path_is_refused(value: object) -> None:
    with pytest.raises(ArgumentTypeError, match=r"^path must be a path, but is .* \(\w+\)\.$") as caught:
        check_path("path", value)  # type: ignore[arg-type]  # the point of the test
    assert caught.value.argument == "path"
