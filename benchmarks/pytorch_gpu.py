"""Whole events in PyTorch on a GPU, from the draws to the digits. Importing this module imports PyTorch.

The device and the floating-point type are parameters, so that the tests compute the same on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils import convert_conv2d_weight_memory_format

from benchmarks.timing import Run, time_rate
from export.charge import compute_charges
from export.parity import fold_model
from pxdbg_runtime.sensors import N_SENSORS

if TYPE_CHECKING:
    from export.families import Family
    from export.families.generator_module import GeneratorModule

Hits = NDArray[np.int16]
"""Shape (4, hits): sensor index, u cell, v cell, and charge in ADU."""
CompileMode = Literal["default", "reduce-overhead"]
"""Modes of ``torch.compile``; ``reduce-overhead`` replays CUDA graphs."""
_WARM_UP_EVENTS: Final = 3
"""The first call compiles, the second records a CUDA graph, and the third replays it."""


def check_cuda() -> None:
    """Raise RuntimeError with the reason if PyTorch computes on no NVIDIA GPU here."""
    if torch.version.cuda is None:
        message = f"PyTorch {torch.__version__} is built without CUDA: install a build with CUDA (https://pytorch.org)."
        raise RuntimeError(message)
    if not torch.cuda.is_available():
        message = (
            f"PyTorch {torch.__version__} with CUDA {torch.version.cuda} finds no NVIDIA GPU, or a driver that is too "
            "old for it: compare the output of nvidia-smi."
        )
        raise RuntimeError(message)


def prepare_model(model: GeneratorModule, *, device: str, dtype: torch.dtype) -> GeneratorModule:
    """Copy a model to a device, its norms folded into its weights, and its weights with channels last."""
    return convert_conv2d_weight_memory_format(fold_model(model).to(device, dtype), torch.channels_last)


def draw_event_inputs(family: Family, *, device: str, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Draw the inputs of a module for the forty images of an event, on the device."""
    draws = {each.name: torch.randn(each.shape, device=device, dtype=dtype) for each in family.draws}
    sensors = torch.arange(N_SENSORS, device=device)
    return tuple(sensors if each.draw is None else draws[each.draw] for each in family.inputs)


def copy_hits(charges: torch.Tensor) -> Hits:
    """Find the hits of charges, uint8 (n, 250, 768), on their device, and copy them to the host as digits.

    Coordinates and charges fit into 16 bits, so one copy of eight bytes a hit takes them to the host. It waits until
    they are computed.
    """
    cells = charges.nonzero(as_tuple=True)
    hits: Hits = torch.stack([each.to(torch.int16) for each in (*cells, charges[cells])]).cpu().numpy()
    return hits


def build_event_generator(
    model: GeneratorModule, family: Family, *, device: str, dtype: torch.dtype, mode: CompileMode | None
) -> Callable[[], Hits]:
    """Build a function that generates an event: draws, forty images at once, charges, and digits on the host.

    Parameters
    ----------
    model : GeneratorModule
        Float32, in inference mode; it is copied.
    family : Family
        The variant of the model.
    device : str
    dtype : torch.dtype
        Of the draws, the weights and the images; charges are computed in float32.
    mode : CompileMode or None
        How ``torch.compile`` compiles the images and their charges together, at the first call; None computes them
        operator by operator.
    """
    prepared = prepare_model(model, device=device, dtype=dtype)

    def compute_event(*inputs: torch.Tensor) -> torch.Tensor:
        return compute_charges(prepared(*inputs).float(), family.cut)

    # Without these options, breaks in the graph and dynamic shapes would make it slower without a message.
    compute = compute_event if mode is None else torch.compile(compute_event, mode=mode, fullgraph=True, dynamic=False)

    @torch.inference_mode()
    def generate() -> Hits:
        return copy_hits(compute(*draw_event_inputs(family, device=device, dtype=dtype)))

    return generate


def time_events(generate: Callable[[], Hits], n_events: int) -> Run:
    """Warm up, and return a function that measures the events a second.

    Raises RuntimeError if the warm-up finds no hits: empty images would be digitised in less time.
    """

    def warm_up() -> None:
        if not all(generate().size for _ in range(_WARM_UP_EVENTS)):
            message = "PyTorch's images have no hits: they are empty, or their values are not finite."
            raise RuntimeError(message)

    def work() -> None:
        for _ in range(n_events):
            generate()

    return time_rate(work, n_events, warm_up=warm_up)
