"""Small float32 graphs with random weights, and their int8 graphs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from export.int8 import OutputRange, calibrate, quantize_graph

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from export.families import Feed
    from export.int8 import WeightBits

__all__ = [
    "N_LATENTS",
    "Int8Graph",
    "Sketch",
    "chain",
    "feeds_of",
    "finish",
    "images_of",
    "latents",
    "lower",
    "residual",
]

N_LATENTS: Final = 6
N_IMAGES: Final = 6


class Sketch:
    """Writes a small float32 graph with random weights, from latents to images."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, values: NDArray[np.generic]) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def node(self, operator: str, inputs: Sequence[str], **attributes: float | str | Sequence[int]) -> str:
        name = f"{operator}_{len(self.nodes)}"
        made = helper.make_node(operator, list(inputs), [name])
        made.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self.nodes.append(made)
        return name

    def linear(self, channels: int, height: int, width: int) -> str:
        """Write a linear layer reshaped to images; its weights are sixteenths, so its sums are exact in any order."""
        n_out = channels * height * width
        weight, bias = (self.random.integers(-16, 17, shape) / 16 for shape in ((n_out, N_LATENTS), (n_out,)))
        flat = self.node(
            "Gemm",
            ["latent", self.constant(weight.astype(np.float32)), self.constant(bias.astype(np.float32))],
            transB=1,
        )
        return self.node("Reshape", [flat, self.constant(np.array([-1, channels, height, width], np.int64))])

    def convolve(
        self, image: str, n_in: int, n_out: int, size: int, *, pad: int | None = None, **attributes: int | Sequence[int]
    ) -> str:
        """Write a convolution that keeps the size of its image, unless `pad` differs."""
        weight = self.random.standard_normal((n_out, n_in, size, size)) / (size * np.sqrt(n_in))
        bias = 0.3 * self.random.standard_normal(n_out)
        inputs = [image, self.constant(weight.astype(np.float32)), self.constant(bias.astype(np.float32))]
        pads = [size // 2 if pad is None else pad] * 4
        return self.node("Conv", inputs, kernel_shape=[size, size], pads=pads, **attributes)

    def relu(self, image: str) -> str:
        return self.node("Relu", [image])

    def upsample(self, image: str) -> str:
        scales = self.constant(np.array([1, 1, 2, 2], np.float32))
        modes = {"coordinate_transformation_mode": "asymmetric", "mode": "nearest", "nearest_mode": "floor"}
        return self.node("Resize", [image, "", scales], **modes)

    def model(self, output: str) -> onnx.ModelProto:
        """Build the graph with this output, with the shapes of all values."""
        graph = helper.make_graph(
            self.nodes,
            "sketch",
            [helper.make_tensor_value_info("latent", TensorProto.FLOAT, ["n", N_LATENTS])],
            [helper.make_empty_tensor_value_info(output)],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)


def chain(
    seed: int, channels: tuple[int, int, int], sizes: tuple[int, int, int], *, is_last_doubled: bool = False
) -> Sketch:
    """Linear layer, ReLU, convolution of the upsampled image, ReLU, convolution, ReLU, convolution to one channel."""
    sketch = Sketch(seed)
    first, second, third = channels
    image = sketch.upsample(sketch.relu(sketch.linear(first, 2, 4)))
    image = sketch.relu(sketch.convolve(image, first, second, sizes[0]))
    image = sketch.relu(sketch.convolve(image, second, third, sizes[1]))
    sketch.convolve(sketch.upsample(image) if is_last_doubled else image, third, 1, sizes[2])
    return sketch


def residual(seed: int, channels: tuple[int, int], size: int, *, n_blocks: int = 1) -> Sketch:
    """Linear layer, blocks whose shortcut is a pointwise convolution of the upsampled image, ReLU, convolution."""
    sketch = Sketch(seed)
    n_in, n_out = channels
    image = sketch.linear(n_in, 2, 4)
    for _ in range(n_blocks):
        main = sketch.convolve(sketch.upsample(sketch.relu(image)), n_in, n_out, size)
        main = sketch.convolve(sketch.relu(main), n_out, n_out, size)
        image = sketch.node("Add", [main, sketch.convolve(sketch.upsample(image), n_in, n_out, 1)])
        n_in = n_out
    sketch.convolve(sketch.relu(image), n_out, 1, 3)
    return sketch


def finish(sketch: Sketch) -> onnx.ModelProto:
    return sketch.model(sketch.nodes[-1].output[0])


def latents(seed: int = 0, n_images: int = N_IMAGES) -> NDArray[np.float32]:
    """Draw latents, multiples of a quarter."""
    return (np.random.default_rng(seed).integers(-8, 9, (n_images, N_LATENTS)) / 4).astype(np.float32)


def feeds_of(inputs: NDArray[np.float32]) -> list[Feed]:
    """Make the inputs of one image each."""
    return [{"latent": latent[np.newaxis]} for latent in inputs]


def images_of(model: onnx.ModelProto, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (images,) = session.run(None, {"latent": inputs})
    assert isinstance(images, np.ndarray)
    return images


@dataclass(frozen=True, kw_only=True)
class Int8Graph:
    """An int8 graph, its float32 graph, and latents whose values lie within its ranges."""

    exact: onnx.ModelProto
    integers: onnx.ModelProto
    output_range: OutputRange
    inputs: NDArray[np.float32]


def lower(model: onnx.ModelProto, bits: WeightBits = 7, seed: int = 0) -> Int8Graph:
    inputs = latents(seed)
    exact = images_of(model, inputs)
    output_range = OutputRange(low=float(exact.min()), high=float(exact.max()))
    integers = quantize_graph(model, calibrate(model, feeds_of(inputs)), output_range, bits)
    return Int8Graph(exact=model, integers=integers, output_range=output_range, inputs=inputs)
