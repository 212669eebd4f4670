"""What is read of a CPU, from the words of Linux."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pxdbg_runtime.cpu import Cpu, this_cpu

if TYPE_CHECKING:
    from pathlib import Path

INTEL = """\
processor\t: 0
model name\t: Some Xeon @ 2.00GHz
flags\t\t: fpu sse2 avx2 avx512f avx512_vnni avx_vnni

processor\t: 1
model name\t: Another
flags\t\t: fpu
"""


@pytest.mark.parametrize(
    ("text", "name", "dot_products"),
    [
        (INTEL, "Some Xeon @ 2.00GHz", ("avx512_vnni", "avx_vnni")),
        (INTEL.replace("avx512_vnni avx_vnni", "avx512bw"), "Some Xeon @ 2.00GHz", ()),
        (INTEL.replace("avx512_vnni", "xavx512_vnni").replace(" avx_vnni", ""), "Some Xeon @ 2.00GHz", ()),
        ("model name: A\nFeatures : fp asimd asimddp\n", "A", ("asimddp",)),
        ("", None, ()),
        ("no colon at all\n", None, ()),
    ],
)
def test_the_first_processor_is_read(
    tmp_path: Path, text: str, name: str | None, dot_products: tuple[str, ...]
) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    cpu = this_cpu(path)
    assert cpu.dot_products == dot_products
    assert cpu.has_dot_products == bool(dot_products)
    assert cpu.name == name if name else cpu.name


def test_a_system_without_the_file_is_known_by_name_alone(tmp_path: Path) -> None:
    cpu = this_cpu(tmp_path / "gone")
    assert cpu == Cpu(name=cpu.name, dot_products=(), features=frozenset())


def test_this_machine_has_a_name() -> None:
    assert this_cpu().name
