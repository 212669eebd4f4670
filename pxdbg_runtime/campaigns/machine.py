"""What a machine computes with, and whether its digits are known to be the same as another's.

docs/random-streams.md has the measurements: in int8 on x86 CPUs with AVX2 the digits are the same with any other
instruction sets and any release of ONNX Runtime. Elsewhere the device and the release must be the same.
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Final

from pxdbg_runtime.inference.devices import name_device
from pxdbg_runtime.inference.providers import CPU, import_onnxruntime
from pxdbg_runtime.json_records import Record, Text
from pxdbg_runtime.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pxdbg_runtime.model.card import Precision

__all__ = ["Machine", "describe_machine", "explain_mismatch", "name_host"]

_X86: Final = frozenset({"x86_64", "amd64", "i386", "i686"})


class Machine(Record, frozen=True, kw_only=True):
    """What a machine computes with.

    Attributes
    ----------
    pxdbg_runtime, onnxruntime : str
        Versions.
    architecture : str
        Such as "x86_64".
    device : str
        Model and instruction sets of the CPU, or model and driver of the GPU.
    """

    pxdbg_runtime: Text
    onnxruntime: Text
    architecture: Text
    device: Text


def describe_machine(provider: str, provider_options: Mapping[str, str]) -> Machine:
    """Describe this machine, as far as it fixes the digits of an execution provider.

    Raises
    ------
    MissingPackageError
        If ONNX Runtime is not installed.
    """
    return Machine(
        pxdbg_runtime=__version__,
        onnxruntime=str(import_onnxruntime().__version__),
        architecture=platform.machine() or "unknown",
        # A device without a name is known to be the same on its own machine only.
        device=name_device(provider, provider_options) or f"a device without a name of {name_host()}",
    )


def name_host() -> str:
    """Name this machine."""
    return platform.node() or "unknown"


def explain_mismatch(precision: Precision, provider: str, planned: Machine, found: Machine) -> str:
    """Explain why the digits of two machines are not known to be the same; empty if they are."""
    names = ["pxdbg_runtime", "onnxruntime", "architecture", "device"]
    if precision == "int8" and provider == CPU and {planned.architecture.lower(), found.architecture.lower()} <= _X86:
        names = ["pxdbg_runtime"]
    return "; ".join(
        f"{name}: {getattr(planned, name)} in the plan, {getattr(found, name)} here"
        for name in names
        if getattr(planned, name) != getattr(found, name)
    )
