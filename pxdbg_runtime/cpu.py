"""What the CPU has: its name, and whether it multiplies 8-bit integers without saturating."""

from __future__ import annotations

import functools
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Cpu", "this_cpu"]

_DOT_PRODUCTS: Final = ("avx512_vnni", "avx_vnni", "asimddp")
"""What Linux calls the instructions that add products of bytes in 32 bits: VNNI on x86, dot products on Arm."""
_CPUINFO: Final = Path("/proc/cpuinfo")


@dataclass(frozen=True, kw_only=True)
class Cpu:
    """What is known of the CPU.

    Attributes
    ----------
    name : str
    dot_products : tuple of str
        Instructions that add products of 8-bit integers in 32 bits. Without them ONNX Runtime adds pairs of products in 16
        bits, which saturate, unless the weights have 7 bits.
    features : frozenset of str
        All instruction sets that the system names.
    """

    name: str
    dot_products: tuple[str, ...]
    features: frozenset[str]

    @property
    def has_dot_products(self) -> bool:
        """Whether 8-bit weights give the right products."""
        return bool(self.dot_products)


@functools.cache
def this_cpu(cpuinfo: Path = _CPUINFO) -> Cpu:
    """Find out what Linux says of this machine's CPU; on another system nothing is known but a name."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip().lower(), value.strip())
    flags = set(fields.get("flags", fields.get("features", "")).split())
    name = fields.get("model name") or platform.processor() or platform.machine() or "unknown"
    return Cpu(
        name=name, dot_products=tuple(each for each in _DOT_PRODUCTS if each in flags), features=frozenset(flags)
    )
