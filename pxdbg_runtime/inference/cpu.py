"""Detect the CPU: its name, and whether it adds products of 8-bit integers without saturation."""

from __future__ import annotations

import functools
import importlib
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Cpu", "detect_cpu"]

_DOT_PRODUCTS: Final = ("avx512_vnni", "avx_vnni", "asimddp")
"""Linux's names of the instructions that add products of bytes in 32 bits: VNNI on x86, dot products on Arm."""
_CPUINFO: Final = Path("/proc/cpuinfo")


@dataclass(frozen=True, kw_only=True)
class Cpu:
    """Name and instruction sets of the CPU.

    Attributes
    ----------
    name : str
    dot_products : tuple of str or None
        Instructions that add products of 8-bit integers in 32 bits; None if the system does not list them. Without
        these instructions ONNX Runtime adds pairs of products in 16 bits, which saturate unless the weights have 7
        bits.
    features : frozenset of str
        All instruction sets that the system lists.
    """

    name: str
    dot_products: tuple[str, ...] | None
    features: frozenset[str]

    @property
    def has_dot_products(self) -> bool:
        """Whether 8-bit weights are known to give correct sums."""
        return bool(self.dot_products)


@functools.cache
def detect_cpu(cpuinfo: Path = _CPUINFO) -> Cpu:
    """Read the CPU of this machine from Linux; on other systems only its name is known."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip().lower(), value.strip())
    flags = set(fields.get("flags", fields.get("features", "")).split())
    name = fields.get("model name") or _format_arm_name(fields) or _find_other_name()
    dot_products = tuple(each for each in _DOT_PRODUCTS if each in flags) if flags else None
    return Cpu(name=name, dot_products=dot_products, features=frozenset(flags))


def _format_arm_name(fields: dict[str, str]) -> str:
    """Name an Arm CPU by its implementer and part numbers: Linux gives no name."""
    numbers = [fields.get(key, "") for key in ("cpu implementer", "cpu part")]
    return f"{platform.machine()}, implementer {numbers[0]}, part {numbers[1]}" if all(numbers) else ""


def _find_other_name() -> str:
    system = platform.system()
    name = _read_macos_name() if system == "Darwin" else _read_windows_name() if system == "Windows" else ""
    return name or platform.processor() or platform.machine() or "unknown"


def _read_macos_name() -> str:
    command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _read_windows_name() -> str:
    try:
        winreg = importlib.import_module("winreg")
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"HARDWARE\DESCRIPTION\System\CentralProcessor\0") as key:
            name, _ = winreg.QueryValueEx(key, "ProcessorNameString")
    except (ImportError, OSError):
        return ""
    return str(name).strip()
