"""The ways to write digits to the data store, and the choice among them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest

from pxdbg_runtime import Digits
from pxdbg_runtime.basf2 import Specs, filling
from pxdbg_runtime.digits import COLUMN_DTYPES
from tests.basf2_store import find_messages, process_events, read_store

if TYPE_CHECKING:
    from types import ModuleType

    from pxdbg_runtime.model.graph_file import GraphFile


def random_digits(n_digits: int) -> Digits:
    random = np.random.default_rng(1)
    limits = {"sensor_id": 2**16, "u_cell": 250, "v_cell": 768, "charge": 256}
    columns = {name: random.integers(0, high, n_digits).astype(COLUMN_DTYPES[name]) for name, high in limits.items()}
    return Digits(event=np.zeros(n_digits, dtype=np.int64), **columns)


FILLS: Final = {
    "fill_by_release": "with PyStoreArray.fillArray",
    "fill_in_bulk": "with a compiled function",
    "fill_one_by_one": "one by one",
}


@pytest.mark.parametrize("name", FILLS)
def test_each_fill_replaces_the_digits(double: ModuleType, name: str) -> None:
    root = double.ROOT
    store = root.Belle2.DataStore.Instance()
    store.reset()
    store.phase = store.c_Initialize
    array = root.Belle2.PyStoreArray(root.Belle2.PXDDigit.Class(), "PXDDigits")
    array.registerInDataStore(store.c_DontWriteOut)
    store.phase = store.c_Processing
    digits = random_digits(1000)
    assert filling.compile_bulk_fill(root)
    for each in (digits, Digits.empty(), digits, random_digits(3000), digits):
        getattr(filling, name)(root, array, each)
        assert read_store(root, array.getPtr()) == each
    last = array[len(digits) - 1]
    assert last.getCharge() == digits.charge[-1]
    assert last.getSensorID().getID() == digits.sensor_id[-1]
    store.phase = store.c_Building


@pytest.mark.parametrize(("name", "description"), FILLS.items())
def test_the_fastest_fill_of_the_release_is_used_and_logged(
    double: ModuleType, resnet_graph: GraphFile, monkeypatch: pytest.MonkeyPatch, name: str, description: str
) -> None:
    specs = Specs(model="resnet", checkpoint=resnet_graph.path, seed=3)
    expected = process_events(double, specs, {(0, 0): 2})
    assert filling.compile_bulk_fill(double.ROOT)  # not every way to fill compiles it
    if name != "fill_by_release":
        monkeypatch.delattr(double.ROOT.Belle2.PyStoreArray, "fillArray")
    if name == "fill_one_by_one":
        monkeypatch.setattr(filling, "compile_bulk_fill", lambda _: False)
    fill_in_bulk = filling.fill_in_bulk
    for each in FILLS:  # the slow loop has a test of its own
        monkeypatch.setattr(filling, each, fill_in_bulk if each == name else None)
    double.logged.clear()
    assert process_events(double, specs, {(0, 0): 2}) == expected
    assert f"digits are written {description}." in find_messages(double, "INFO")


def test_an_interpreter_that_does_not_compile_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    root = SimpleNamespace(gInterpreter=SimpleNamespace(Declare=lambda _: False))
    assert not filling.compile_bulk_fill(root)  # type: ignore[arg-type]  # all that is looked at
    assert "did not compile the bulk fill" in caplog.text
