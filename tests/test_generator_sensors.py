"""Some sensors of an event: the same digits as in the whole event, for any selection and any batch size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pxdbg_runtime import N_SENSORS, SENSORS, Digits, Generator
from pxdbg_runtime.errors import ArgumentTypeError, ArgumentValueError
from pxdbg_runtime.model.builtin_models import DEFAULT_MODEL, read_manifest
from tests.test_generator import compute_images_of_card

if TYPE_CHECKING:
    from pxdbg_runtime.inference.latents import RandomStreamName
    from pxdbg_runtime.model.card import Precision
    from pxdbg_runtime.model.graph_file import GraphFile

SELECTIONS: Final = st.lists(st.integers(0, N_SENSORS - 1), min_size=1, unique=True)


def select_digits(digits: Digits, indices: list[int]) -> Digits:
    """Select the digits of sensors, in the order of the whole event."""
    return digits.select_rows(np.isin(digits.sensor_id, [SENSORS[index].vxd_id for index in indices]))


@pytest.fixture(scope="module", params=["latent", "event_wide"])
def graph(request: pytest.FixtureRequest) -> GraphFile:
    """Make a tiny graph: the one takes latents alone, the other also sensor indices and values of the whole event."""
    made: GraphFile = request.getfixturevalue(f"{request.param}_graph")
    return made


@pytest.mark.parametrize("stream", ["philox", "torch"])
@pytest.mark.slow
def test_some_sensors_have_the_digits_of_the_whole_event(graph: GraphFile, stream: RandomStreamName) -> None:
    whole = Generator(graph.path, seed=3, random_stream=stream, batch_size=N_SENSORS)
    events = {event: (whole.generate(event), whole.generate_images(event)) for event in (0, 2)}
    by_size: dict[int, Generator] = {}

    @settings(max_examples=30)
    @given(indices=SELECTIONS, batch_size=st.integers(1, N_SENSORS), event=st.sampled_from([0, 2]))
    @example(indices=[39], batch_size=1, event=2)
    @example(indices=[39, 0, 7, 16], batch_size=3, event=2)
    @example(indices=list(range(40)), batch_size=7, event=0)
    def check(indices: list[int], batch_size: int, event: int) -> None:
        if batch_size not in by_size:
            by_size[batch_size] = Generator(graph.path, seed=3, random_stream=stream, batch_size=batch_size)
        generator = by_size[batch_size]
        digits, images = events[event]
        chosen = [SENSORS[index] for index in indices]
        assert generator.generate(event, chosen) == select_digits(digits, indices)
        assert np.array_equal(generator.generate_images(event, chosen), images[sorted(indices)])

    check()
    assert len(events[0][0]) > 10_000


def test_a_stream_makes_the_same_sensors_of_each_event(graph: GraphFile) -> None:
    generator = Generator(graph.path, seed=3)
    names = iter(["2.1.1", "1.1.2"])  # can be read once
    found = list(generator.stream((4, 1, 2), sensors=names))
    assert found == [select_digits(generator.generate(event), [1, 16]) for event in (4, 1, 2)]


def test_only_the_images_of_the_sensors_are_computed(graph: GraphFile, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = Generator(graph.path, seed=3, batch_size=3)
    compute = generator._session.compute_images
    computed: list[list[int]] = []

    def compute_and_note(sensors: list[int], *rest: Any) -> object:  # noqa: ANN401
        computed.append(sensors)
        return compute(sensors, *rest)

    monkeypatch.setattr(generator._session, "compute_images", compute_and_note)
    generator.generate(0, ["2.1.1", "1.1.2", "1.1.1", "2.12.2"])
    generator.generate_images(0, ["2.12.2"])
    assert computed == [[0, 1, 16], [39], [39]]


def test_images_are_in_the_order_of_the_sensors(event_wide_graph: GraphFile) -> None:
    generator = Generator(event_wide_graph.path, seed=3)
    whole = generator.generate_images(1)
    assert whole.shape == (40, 250, 768)
    images = generator.generate_images(1, [SENSORS[39], "1.1.1", SENSORS[7].vxd_id])
    assert images.shape == (3, 250, 768)
    assert images.dtype == np.uint8
    assert np.array_equal(images, whole[[0, 7, 39]])
    expected = compute_images_of_card(event_wide_graph.card, 3, 1)
    assert len({each.tobytes() for each in expected}) == N_SENSORS, "the order is seen in the images"


def test_the_sensors_of_digits_are_sensors(graph: GraphFile) -> None:
    generator = Generator(graph.path, seed=3)
    digits = generator.generate(0)
    assert generator.generate(0, np.unique(digits.sensor_id)) == digits


@pytest.mark.parametrize(
    ("sensors", "error", "message"),
    [
        ([], ArgumentValueError, "sensors must hold at least one sensor"),
        (["1.1.1", 8480], ArgumentValueError, r"sensors must hold each sensor once, but has 1\.1\.1 more than once"),
        (["1.9.1"], ArgumentValueError, r"No PXD sensor has the name '1\.9\.1'"),
        ([0], ArgumentValueError, "No PXD sensor has the VxdID 0"),
        ("1.1.1", ArgumentTypeError, r"sensors must be a list of sensors, such as \['1\.1\.1', '2\.12\.2'\]"),
    ],
)
def test_wrong_sensors_are_refused(
    latent_graph: GraphFile,
    sensors: object,
    error: type[ArgumentTypeError | ArgumentValueError],
    message: str,
) -> None:
    generator = Generator(latent_graph.path, seed=1)
    for make in (generator.generate, generator.generate_images, lambda *given: next(generator.stream([0], given[1]))):
        with pytest.raises(error, match=message):
            make(0, sensors)  # type: ignore[arg-type]  # the point of the test


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "precision"),
    [*((name, "int8") for name in sorted({each.name for each in read_manifest()})), (DEFAULT_MODEL, "float32")],
)
def test_some_sensors_of_a_built_in_model(model: str, precision: Precision) -> None:
    """Compare with a few more sensors; with the whole event, which takes longer, the tiny graphs are compared."""
    indices = [1, 15, 16, 17, 38]
    more = [SENSORS[index] for index in (0, *indices, 39)]
    chosen = [SENSORS[index] for index in indices]
    expected = select_digits(Generator(model, seed=7, precision=precision, batch_size=7).generate(5, more), indices)
    assert len(expected) > 3_000
    for batch_size in (1, 3):
        generator = Generator(model, seed=7, precision=precision, batch_size=batch_size)
        assert generator.generate(5, chosen) == expected
