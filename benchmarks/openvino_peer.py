"""OpenVINO as a peer: a graph on its CPU plugin, float32, one thread, a fixed batch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final, Protocol

from benchmarks.environment import check_installed
from benchmarks.events import PEER_BATCH_SIZE, draws_of, event_run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from benchmarks.timing import Run
    from pxdbg_runtime.model.graph_file import GraphFile

__all__ = ["openvino_run"]

_OPTIONS: Final = {
    "INFERENCE_NUM_THREADS": "1",
    "NUM_STREAMS": "1",
    # On processors with bfloat16 the plugin would round to it unasked.
    "INFERENCE_PRECISION_HINT": "f32",
}


class _Request(Protocol):
    def infer(self, inputs: Mapping[str, NDArray[np.float32]]) -> object: ...


class _Compiled(Protocol):
    def create_infer_request(self) -> _Request: ...


class _Model(Protocol):
    def reshape(self, shape: Sequence[int]) -> None: ...


class _Core(Protocol):
    def read_model(self, model: str) -> _Model: ...

    def compile_model(self, model: _Model, device_name: str, config: Mapping[str, str]) -> _Compiled: ...


def openvino_run(graph: GraphFile) -> Run:
    """Warm a graph up on OpenVINO, and make what times the images of the event in batches.

    Raises
    ------
    MissingPackageError
        If OpenVINO is not installed.
    RuntimeError
        If it cannot run the graph.
    """
    check_installed("openvino")
    core: _Core = importlib.import_module("openvino").Core()
    model = core.read_model(str(graph.path))
    card = graph.card
    model.reshape([PEER_BATCH_SIZE, card.latent_size])
    request = core.compile_model(model, "CPU", _OPTIONS).create_infer_request()
    (name,) = (each.name for each in card.inputs)
    (latents,) = draws_of(card).values()
    return event_run(lambda sensors: request.infer({name: latents[sensors.start : sensors.stop]}))
