"""The specs of the basf2 module, and the numbers that it makes of basf2's: neither needs basf2."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pxdbg_runtime.basf2 import Specs
from pxdbg_runtime.basf2.numbering import derive_seed, pack_event_number
from pxdbg_runtime.basf2.specs import MODELS, ModelName
from pxdbg_runtime.checks import check_event, check_seed
from pxdbg_runtime.errors import ArgumentTypeError, ArgumentValueError
from tests.checkpoints import light_state, save, save_safetensors

if TYPE_CHECKING:
    from pxdbg_runtime.model.graph_file import GraphFile


def test_importing_needs_neither_basf2_nor_root_nor_pytorch() -> None:
    script = (
        "import sys\n"
        "for name in ('basf2', 'ROOT', 'simulation', 'torch', 'onnx', 'onnxruntime', 'numba', 'export'):\n"
        "    sys.modules[name] = None\n"
        "import pxdbg_runtime.basf2\n"
        "print(pxdbg_runtime.basf2.Specs().payload)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "PXDBackgroundGenerator_convnet_onnx\n"


def test_defaults_and_order_are_the_originals(latent_graph: GraphFile) -> None:
    assert Specs() == Specs("convnet", None, None, 1, 1, "PXDBackgroundGenerator")
    assert (Specs().precision, Specs().provider, Specs().random_stream) == ("auto", "auto", "philox")
    specs = Specs("resnet", str(latent_graph.path), -5, 2, 3, "mine")
    assert (specs.model, specs.checkpoint, specs.seed) == ("resnet", latent_graph.path, -5)
    assert (specs.nintra, specs.ninter, specs.globaltag) == (2, 3, "mine")
    assert specs.given_model == latent_graph.path


def test_environment_variables_in_paths_are_replaced(latent_graph: GraphFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PXDBG_FOLDER", str(latent_graph.path.parent))
    for path in ("$PXDBG_FOLDER/tiny.onnx", Path("${PXDBG_FOLDER}/tiny.onnx")):
        assert Specs(checkpoint=path).checkpoint == latent_graph.path


@pytest.mark.parametrize("model", MODELS)
def test_the_payload_bears_the_name_of_the_model(model: ModelName) -> None:
    assert Specs(model).payload == f"PXDBackgroundGenerator_{model}_onnx"
    assert "ieagan" in MODELS


def test_a_built_in_model_is_used_only_if_it_is_named() -> None:
    assert Specs(model="resnet").given_model is None
    assert Specs(model="resnet", checkpoint="builtin:resnet").given_model == "resnet"
    with pytest.raises(
        ArgumentValueError,
        match="'builtin:gan' names no built-in model: expected builtin:convnet or builtin:ieagan or builtin:resnet",
    ):
        Specs(checkpoint="builtin:gan")


@pytest.mark.parametrize("name", ["mine.pt", "legacy.pt", "mine.safetensors"])
def test_of_a_pytorch_checkpoint_the_export_command_is_given(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "my weights"
    folder.mkdir()
    path, state = folder / name, light_state("resnet")
    if name.endswith(".pt"):
        save({"fc.bias": state["fc.bias"]}, path, legacy=name == "legacy.pt")
    else:
        save_safetensors({"fc.bias": state["fc.bias"]}, path)
    with pytest.raises(
        ArgumentValueError, match=rf"`python -m export '\S+my weights/{name}' --family resnet --output graphs`"
    ):
        Specs(model="resnet", checkpoint=path)


def test_a_file_that_cannot_be_read_is_refused(latent_graph: GraphFile, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ArgumentValueError, match=r"tiny\.onnx cannot be read: Permission denied"):
        Specs(checkpoint=latent_graph.path)


WRONG: Final[list[tuple[type[ArgumentTypeError | ArgumentValueError], str, object, str]]] = [
    (ArgumentTypeError, "model", None, "model must be text, but is None"),
    (ArgumentTypeError, "checkpoint", 3, r"checkpoint must be the path of a graph, but is 3 \(int\)"),
    (ArgumentTypeError, "seed", 1.0, r"seed must be an integer, but is 1\.0"),
    (ArgumentTypeError, "nintra", "2", "nintra must be an integer, but is '2'"),
    (ArgumentTypeError, "ninter", None, "ninter must be an integer, but is None"),
    (ArgumentTypeError, "globaltag", None, r"globaltag must be text, but is None \(NoneType\)"),
    (ArgumentTypeError, "precision", 32, "precision must be text, but is 32"),
    (ArgumentTypeError, "provider", None, "provider must be text, but is None"),
    (ArgumentTypeError, "random_stream", None, "random_stream must be text, but is None"),
    (ArgumentValueError, "model", "vae", "model must be one of convnet, resnet, ieagan, but is 'vae'"),
    (ArgumentValueError, "model", "", "model must not be empty"),
    (ArgumentValueError, "checkpoint", "$NO/a", r"there is no file \$NO/a \(given as '\$NO/a'\)"),
    (ArgumentValueError, "checkpoint", "/tmp", "there is no file /tmp"),
    (ArgumentValueError, "checkpoint", "x" * 300, "checkpoint x* cannot be read: File name too long"),
    (ArgumentValueError, "seed", 2**63, r"seed must lie in \[-2\^63, 2\^63 - 1\]"),
    (ArgumentValueError, "nintra", 0, "nintra must lie between 1 and 4096 threads, but is 0"),
    (ArgumentValueError, "ninter", -1, "ninter must lie between 1 and 4096 threads, but is -1"),
    (ArgumentValueError, "globaltag", "", "globaltag must not be empty"),
    (ArgumentValueError, "precision", "half", "precision must be one of auto, float32, float16, int8, but is 'half'"),
    (ArgumentValueError, "random_stream", "numpy", "random_stream must be one of philox, torch, but is 'numpy'"),
]


@pytest.mark.parametrize(("error", "argument", "value", "message"), WRONG)
def test_wrong_arguments_are_refused(
    error: type[ArgumentTypeError | ArgumentValueError], argument: str, value: object, message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        Specs(**{argument: value})  # type: ignore[arg-type]  # the point of the test
    assert caught.value.argument == argument


NUMBERS: Final = st.tuples(st.integers(0, 2**11 - 1), st.integers(0, 2**20 - 1), st.integers(0, 2**32 - 1))


@given(NUMBERS, NUMBERS)
@pytest.mark.slow
def test_events_have_numbers_of_their_own(one: tuple[int, int, int], other: tuple[int, int, int]) -> None:
    assert (check_event(pack_event_number(*one)) == check_event(pack_event_number(*other))) == (one == other)
    assert (pack_event_number(*one) < pack_event_number(*other)) == (one < other)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((2**11, 0, 0), r"The experiment number must lie in \[0, 2\^11 - 1\] .*, but is 2048"),
        ((0, 2**20, 0), r"The run number must lie in \[0, 2\^20 - 1\] .*, but is 1048576"),
        ((0, -1, 0), r"The run number must .*, but is -1"),
        ((0, 0, 2**32), r"The event number must lie in \[0, 2\^32 - 1\] .*, but is 4294967296"),
    ],
)
def test_numbers_out_of_range_are_refused(numbers: tuple[int, int, int], message: str) -> None:
    with pytest.raises(ArgumentValueError, match=message):
        pack_event_number(*numbers)


@settings(max_examples=30)
@given(st.text())
def test_any_text_is_a_seed(text: str) -> None:
    assert derive_seed(text) == check_seed(derive_seed(text))


def test_the_seed_is_that_of_the_hash() -> None:
    # SHA-512 of nothing begins cf83e1357eefb8bd, which is negative as a signed number.
    assert derive_seed("") == 0xCF83E1357EEFB8BD - 2**64
