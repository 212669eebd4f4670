"""Pinned memory, with a driver that notes what it is asked; a real one is met on machines with a GPU alone."""

from __future__ import annotations

import ctypes
import gc
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pxdbg_runtime.inference import pinned_memory, session
from pxdbg_runtime.inference.pinned_memory import pin_memory
from pxdbg_runtime.inference.providers import CUDA
from pxdbg_runtime.inference.session import ImageSession

if TYPE_CHECKING:
    from pxdbg_runtime.model.graph_file import GraphFile


class Driver:
    """Counts contexts and notes pinned addresses; refuses what is named."""

    def __init__(self, refused: str = "") -> None:
        self.refused = refused
        self.n_retained = self.n_pushed = 0
        self.pinned: dict[int, int] = {}

    def __getattr__(self, name: str) -> object:
        return lambda *arguments: 1 if name == self.refused else self._answer(name, arguments)

    def _answer(self, name: str, arguments: tuple[object, ...]) -> int:
        self.n_retained += {"cuDevicePrimaryCtxRetain": 1, "cuDevicePrimaryCtxRelease_v2": -1}.get(name, 0)
        self.n_pushed += {"cuCtxPushCurrent_v2": 1, "cuCtxPopCurrent_v2": -1}.get(name, 0)
        address = arguments[0] if arguments else None
        if name == "cuMemHostRegister_v2" and isinstance(address, ctypes.c_void_p):
            size = arguments[1]
            assert isinstance(size, ctypes.c_size_t)
            self.pinned[address.value or 0] = size.value
        elif name == "cuMemHostUnregister" and isinstance(address, ctypes.c_void_p):
            del self.pinned[address.value or 0]
        return 0


def use_driver(monkeypatch: pytest.MonkeyPatch, refused: str = "") -> Driver:
    driver = Driver(refused)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: driver)
    return driver


@pytest.mark.slow
def test_memory_is_pinned_as_long_as_its_array_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = use_driver(monkeypatch)
    array = np.empty((2, 250, 768), np.uint8)
    part = array[:1]
    assert pin_memory(array, "0")
    assert driver.pinned == {array.ctypes.data: array.nbytes}
    del array
    gc.collect()
    assert driver.pinned == {part.ctypes.data: 2 * part.nbytes}
    del part
    gc.collect()
    assert (driver.pinned, driver.n_pushed, driver.n_retained) == ({}, 0, 0)


@pytest.mark.parametrize("refused", ["cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuMemHostRegister_v2"])
def test_a_driver_that_refuses_leaves_ordinary_memory(monkeypatch: pytest.MonkeyPatch, refused: str) -> None:
    driver = use_driver(monkeypatch, refused)
    assert not pin_memory(np.empty(10, np.uint8), "0")
    assert (driver.pinned, driver.n_pushed, driver.n_retained) == ({}, 0, 0)


def test_a_driver_that_refuses_a_fork_leaves_memory_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    driver = use_driver(monkeypatch)
    array = np.empty(10, np.uint8)
    assert pin_memory(array, "0")
    driver.refused = "cuInit"
    monkeypatch.setattr("sys.unraisablehook", lambda problem: print(problem.exc_value))  # noqa: T201
    del array
    gc.collect()
    assert capsys.readouterr().out == ""


def test_a_machine_without_a_driver_leaves_ordinary_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pinned_memory, "CUDA_DRIVER", "libno-such-driver.so")
    assert not pin_memory(np.empty(10, np.uint8), "0")
    assert not pin_memory(np.empty(10, np.uint8), "first")


def test_a_session_on_a_gpu_pins_its_buffers_once(event_wide_graph: GraphFile, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = []
    monkeypatch.setattr(session, "pin_memory", lambda array, device_id: pinned.append((len(array), device_id)))
    made = ImageSession(event_wide_graph, provider="cpu")
    made.give_back(made.take_buffer(3))
    assert pinned == []
    monkeypatch.setattr(made, "provider", CUDA)
    monkeypatch.setattr(made, "provider_options", {"device_id": "2"})
    small, large = made.take_buffer(3), made.take_buffer(40)
    made.give_back(small)
    made.give_back(large)
    assert made.take_buffer(20) is large
    assert made.take_buffer(20) is not small
    assert pinned == [(3, "2"), (40, "2"), (20, "2")]
