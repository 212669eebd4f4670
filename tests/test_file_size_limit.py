"""A limit on the size of files (ulimit -f): the output is refused in a sentence, and nothing is left."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pxdbg_runtime.digits import Digits
from pxdbg_runtime.errors import OutputError
from pxdbg_runtime.formats import describe_generation, open_writer
from pxdbg_runtime.generator import Generator
from tests.graphs import LATENT_CARD, latent_model, written

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

resource = pytest.importorskip("resource")


@contextlib.contextmanager
def small_files() -> Iterator[None]:
    """Let this process write no file of more than 2 kB for a while."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write(path: Path, generator: Generator, digits: Digits) -> None:
    with small_files(), open_writer(path, describe_generation(generator, range(1))) as writer:
        writer.write(digits)


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_an_output_beyond_the_limit_is_an_error_of_the_output(tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"a{suffix}"
    generator = Generator(written(tmp_path / "tiny.onnx", latent_model(), LATENT_CARD).path, seed=7)
    rng = np.random.default_rng(7)
    pixels = np.sort(rng.choice(250 * 768, 10_000, replace=False))
    digits = Digits(
        event=np.zeros(10_000, np.int64),
        sensor_id=np.full(10_000, 8224, np.uint16),
        u_cell=(pixels // 768).astype(np.uint16),
        v_cell=(pixels % 768).astype(np.uint16),
        charge=rng.integers(1, 256, 10_000).astype(np.uint8),
    )
    with pytest.raises(OutputError, match=rf"a{suffix} cannot be written: .*[Ff]ile too large"):
        write(target, generator, digits)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.onnx"]
