"""Graphs that do not fit their cards, or that ONNX Runtime does not know, are refused in one sentence."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest
from msgspec import structs
from onnx import TensorProto, helper

from pxdbg_runtime.errors import InferenceError
from pxdbg_runtime.inference.providers import CPU
from pxdbg_runtime.inference.session import ImageSession
from pxdbg_runtime.model.card import GraphInput
from tests.graphs import EVENT_WIDE_CARD, LATENT_CARD, build_model, event_wide_model, latent_model, write_graph

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from onnx import ModelProto

    from pxdbg_runtime.model.card import ModelCard

OTHER_CARDS: Final[dict[str, ModelCard]] = {
    "input of another name": structs.replace(
        LATENT_CARD, inputs=(GraphInput(name="latent", role="latent", draw="latent"),)
    ),
    "input that the graph lacks": structs.replace(
        LATENT_CARD, inputs=(*LATENT_CARD.inputs, GraphInput(name="number", role="sensor", draw=None))
    ),
    "input of another role": structs.replace(
        LATENT_CARD,
        draws=(*LATENT_CARD.draws, structs.replace(LATENT_CARD.draws[0], name="other")),
        inputs=(
            GraphInput(name="z", role="event_latent", draw="other"),
            GraphInput(name="y", role="latent", draw="latent"),
        ),
    ),
    "more latent values": structs.replace(
        LATENT_CARD, latent_size=3, draws=(structs.replace(LATENT_CARD.draws[0], shape=(40, 3)),)
    ),
    "input that the card does not know": structs.replace(EVENT_WIDE_CARD, inputs=EVENT_WIDE_CARD.inputs[:2]),
}


def build_graph_with_unknown_operator() -> ModelProto:
    return build_model([helper.make_node("NoSuchOperator", ["z"], ["images"])], {"z": ("n", 2)}, "images")


def build_graph_of_future_opset() -> ModelProto:
    model = latent_model()
    model.opset_import[0].version = 999
    return model


@pytest.mark.parametrize("make", [build_graph_with_unknown_operator, build_graph_of_future_opset])
def test_a_graph_that_onnx_runtime_refuses_is_one_sentence(make: Callable[[], ModelProto], tmp_path: Path) -> None:
    graph = write_graph(tmp_path / "graph.onnx", make(), LATENT_CARD)
    with pytest.raises(
        InferenceError, match=rf"^ONNX Runtime created no session for .*graph\.onnx on {CPU}: "
    ) as caught:
        ImageSession(graph)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("card", list(OTHER_CARDS.values()), ids=list(OTHER_CARDS))
def test_inputs_that_do_not_fit_the_card_are_refused(card: ModelCard, tmp_path: Path) -> None:
    model = event_wide_model() if card.name == EVENT_WIDE_CARD.name else latent_model()
    graph = write_graph(tmp_path / "graph.onnx", model, card)
    with pytest.raises(InferenceError, match=r"graph\.onnx does not fit its card: its inputs are .*, but the card has"):
        ImageSession(graph)


@pytest.mark.parametrize(
    ("name", "element_type", "shape"),
    [
        ("along_u", TensorProto.FLOAT, ("n", 250, 1)),
        ("along_v", TensorProto.FLOAT, ("n", 1, 768)),
        ("flat_u", TensorProto.FLOAT, ("n",)),
        ("images", TensorProto.FLOAT, (2, 250, 768)),
        ("images", TensorProto.DOUBLE, ("n", 250, 768)),
        ("images", TensorProto.FLOAT16, ("n", 250, 768)),
        ("images", TensorProto.UINT8, ("n", 250, 768)),
    ],
)
def test_an_output_of_another_shape_or_type_is_refused(
    name: str, element_type: int, shape: tuple[int | str, ...], tmp_path: Path
) -> None:
    model = latent_model()
    model.graph.node[-1].output[0] = "clipped"
    model.graph.node.append(helper.make_node("Cast", ["clipped"], ["images"], to=element_type))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info(name, element_type, shape))
    graph = write_graph(tmp_path / "graph.onnx", model, structs.replace(LATENT_CARD, output=name))
    message = rf"does not fit its card: its outputs are \{{'{name}': .*\}}, expected '{name}'.* shape \(n, 250, 768\)"
    with pytest.raises(InferenceError, match=message):
        ImageSession(graph)


def test_an_output_of_another_name_is_refused(tmp_path: Path) -> None:
    graph = write_graph(tmp_path / "graph.onnx", latent_model(), structs.replace(LATENT_CARD, output="pictures"))
    with pytest.raises(InferenceError, match=r"its outputs are \{'images': .*\}, expected 'pictures'"):
        ImageSession(graph)


def test_an_axis_whose_name_is_no_text_is_one_sentence(tmp_path: Path) -> None:
    model = latent_model()
    content = model.SerializeToString().replace(b"\x12\x01n", b"\x12\x01\xc5")
    graph = write_graph(tmp_path / "graph.onnx", model, LATENT_CARD)
    odd = replace(graph, content=content)
    with pytest.raises(InferenceError, match=r"names of its inputs or outputs are not valid UTF-8\.$"):
        ImageSession(odd, provider="cpu")
