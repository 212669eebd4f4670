"""The generator: the same digits for a seed and an event, however they are asked for."""

from __future__ import annotations

import hashlib
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
import pytest
from msgspec import structs

from pxdbg_runtime import Digits, Generator
from pxdbg_runtime.checks import MAX_SEED, MIN_SEED
from pxdbg_runtime.errors import ArgumentTypeError, ArgumentValueError, ImageError, MemoryLimitError
from pxdbg_runtime.inference.latents import create_stream
from tests.graphs import (
    EVENT_WIDE_CARD,
    LATENT_CARD,
    compute_plain_charges,
    event_wide_images,
    event_wide_model,
    latent_images,
    latent_model,
    write_graph,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pxdbg_runtime.inference.latents import RandomStreamName
    from pxdbg_runtime.model.card import ModelCard, Nature
    from pxdbg_runtime.model.graph_file import GraphFile


@pytest.fixture(params=["latent", "event_wide"])
def graph(request: pytest.FixtureRequest) -> GraphFile:
    made: GraphFile = request.getfixturevalue(f"{request.param}_graph")
    return made


def compute_images_of_card(
    card: ModelCard, seed: int, event: int, stream: RandomStreamName = "philox"
) -> NDArray[np.float32]:
    """Compute an event's forty images without a session."""
    draws = create_stream(stream, seed, card.draws).draw(event)
    return latent_images(draws[0]) if card == LATENT_CARD else event_wide_images(*draws)


@pytest.mark.parametrize("stream", ["philox", "torch"])
@pytest.mark.parametrize(("seed", "event"), [(0, 0), (-5, 3), (MIN_SEED, 1)])
def test_images_are_those_of_the_stream_the_graph_and_the_thresholds(
    graph: GraphFile, stream: RandomStreamName, seed: int, event: int
) -> None:
    generator = Generator(graph.path, seed=seed, random_stream=stream)
    expected = compute_plain_charges(
        compute_images_of_card(graph.card, seed, event, stream), graph.card.min_charge, graph.card.cut
    )
    assert np.count_nonzero(expected) > 10_000
    assert np.array_equal(generator.generate_images(event), expected)


def test_digits_are_the_images_in_order(graph: GraphFile) -> None:
    generator = Generator(graph.path, seed=1)
    images = generator.generate_images(4)
    digits = generator.generate(4)
    assert np.array_equal(digits.to_images(), images)
    sensor, u_cell, v_cell = np.nonzero(images)
    assert np.array_equal(digits.sensor_id, np.array(graph.card.sensors)[sensor])
    assert np.array_equal(digits.u_cell, u_cell)
    assert np.array_equal(digits.v_cell, v_cell)
    assert np.all(digits.event == 4)


def test_an_event_is_the_same_alone_in_a_stream_and_in_any_order(graph: GraphFile) -> None:
    alone = Generator(graph.path, seed=7).generate(5)
    generator = Generator(graph.path, seed=7)
    in_order = dict(enumerate(generator.stream(range(7))))
    assert in_order[5] == alone
    backwards = list(generator.stream(range(6, -1, -1)))
    assert backwards == [in_order[event] for event in range(6, -1, -1)]
    assert generator.generate(5) == alone
    assert in_order[4].to_images().tobytes() != alone.to_images().tobytes()


@pytest.fixture(scope="module")
def digests_of_another_process(latent_graph: GraphFile, event_wide_graph: GraphFile) -> dict[tuple[str, str], str]:
    """Generate an event with each graph and each stream in one other process; digests by path and stream."""
    script = (
        "import hashlib, sys\nfrom pxdbg_runtime import Generator\n"
        "for case in sys.argv[1:]:\n"
        "    path, stream = case.rsplit(':', 1)\n"
        "    generator = Generator(path, seed=7, random_stream=stream, batch_size=5)\n"
        "    print(hashlib.sha256(generator.generate(5).to_structured().tobytes()).hexdigest())"
    )
    cases = [(str(each.path), stream) for each in (latent_graph, event_wide_graph) for stream in ("philox", "torch")]
    command = [sys.executable, "-c", script, *(":".join(case) for case in cases)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(zip(cases, done.stdout.split(), strict=True))


@pytest.mark.parametrize("stream", ["philox", "torch"])
def test_another_process_generates_the_same(
    graph: GraphFile, stream: RandomStreamName, digests_of_another_process: dict[tuple[str, str], str]
) -> None:
    here = Generator(graph.path, seed=7, random_stream=stream).generate(5)
    expected = hashlib.sha256(here.to_structured().tobytes()).hexdigest()
    assert digests_of_another_process[str(graph.path), stream] == expected


def test_the_batch_size_does_not_change_digits_and_images(graph: GraphFile) -> None:
    assert Generator(graph.path, seed=3).batch_size == 1
    expected = Generator(graph.path, seed=3, batch_size=40).generate(2)
    images = expected.to_images()
    for batch_size in (1, 2, 3, 7, 13, 20, 21, 39, 40):  # with and without a rest
        generator = Generator(graph.path, seed=3, batch_size=batch_size)
        assert generator.batch_size == batch_size
        assert generator.generate(2) == expected
        assert np.array_equal(generator.generate_images(2), images)


def test_a_stream_generates_each_event_when_it_is_asked_for(latent_graph: GraphFile) -> None:
    asked: list[int] = []

    def events() -> Iterator[int]:
        for event in (0, -1):
            asked.append(event)
            yield event

    stream = Generator(latent_graph.path, seed=1).stream(events())
    assert asked == []
    assert len(next(stream)) > 0
    assert asked == [0]
    with pytest.raises(ArgumentValueError, match="event must lie in"):
        next(stream)


@pytest.mark.parametrize("min_charge", [7, 8, 100, 255])
def test_the_smallest_charge_suppresses_all_below(graph: GraphFile, min_charge: int) -> None:
    generator = Generator(graph.path, seed=2, min_charge=min_charge)
    assert generator.min_charge == min_charge
    expected = compute_plain_charges(compute_images_of_card(graph.card, 2, 0), min_charge, graph.card.cut)
    assert np.array_equal(generator.generate(0).to_images(), expected)
    assert np.array_equal(generator.generate_images(0), expected)


def test_attributes_say_what_generates(event_wide_graph: GraphFile) -> None:
    generator = Generator(str(event_wide_graph.path), precision="float32", provider="cpu", seed=-8, nintra=2, ninter=2)
    assert generator.card == EVENT_WIDE_CARD
    assert generator.graph_sha256 == event_wide_graph.sha256
    assert generator.provider == "CPUExecutionProvider"
    assert (generator.seed, generator.random_stream) == (-8, "philox")
    assert generator.min_charge == 7


def test_without_a_seed_one_is_drawn_and_reported(latent_graph: GraphFile, caplog: pytest.LogCaptureFixture) -> None:
    first, second = (Generator(latent_graph.path, provider="cpu") for _ in range(2))
    assert first.seed != second.seed
    assert all(MIN_SEED <= generator.seed <= MAX_SEED for generator in (first, second))
    drawn = [text for text in caplog.messages if "known answers" not in text]
    assert drawn == [f"seed=None drew the seed {generator.seed}" for generator in (first, second)]
    assert Generator(latent_graph.path, seed=first.seed).generate(1) == first.generate(1)


@pytest.mark.parametrize("nature", ["demonstration", "stand-in", "checkpoint"])
def test_weights_without_physics_are_warned_of_once_and_others_are_not(
    nature: Nature, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    card = structs.replace(LATENT_CARD, nature=nature, provenance="Its weights are random.")
    graph = write_graph(tmp_path / "tiny.onnx", latent_model(), card)
    generator = Generator(graph.path, seed=1, provider="cpu")
    generator.generate(0)
    generator.generate_images(1)
    warned = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert warned == [f"The model tiny is a {nature}: Its weights are random."] * (nature != "checkpoint")


def test_a_graph_that_makes_no_numbers_is_an_error(tmp_path: Path) -> None:
    model = event_wide_model()
    # Infinite moods of either sign: where a sensor's own is negative, the sum with the best is not a number.
    (scale,) = (each for each in model.graph.initializer if each.name == "per_mood")
    scale.raw_data = np.float32(np.inf).tobytes()
    graph = write_graph(tmp_path / "graph.onnx", model, EVENT_WIDE_CARD)
    generator = Generator(graph.path, seed=1)
    for make in (generator.generate, generator.generate_images):
        with pytest.raises(ImageError, match="An image holds a NaN"):
            make(0)


@pytest.mark.parametrize(("factor", "found"), [(np.inf, "inf"), (1e30, "e+"), (-1e30, "e+"), (4, "")])
def test_a_graph_whose_values_no_tanh_gives_is_an_error(factor: float, found: str, tmp_path: Path) -> None:
    model = latent_model()
    (clip,) = (node for node in model.graph.node if node.op_type == "Clip")
    clip.CopyFrom(onnx.helper.make_node("Mul", ["sloping", "factor"], ["images"]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(np.float32(factor)), "factor"))
    generator = Generator(write_graph(tmp_path / "graph.onnx", model, LATENT_CARD).path, seed=1)
    for make in (generator.generate, generator.generate_images):
        with pytest.raises(
            ImageError, match=rf"An image holds the value .*{re.escape(found)}.* where a value in \[-1, 1\]"
        ):
            make(0)


WRONG_ARGUMENTS: Final[list[tuple[str, object, type[ArgumentTypeError | ArgumentValueError], str]]] = [
    ("model", 3, ArgumentTypeError, "model must be"),
    ("provider", 3, ArgumentTypeError, "provider must be the name of an execution provider, but is 3"),
    ("provider_options", 3, ArgumentTypeError, "provider_options must be"),
    ("seed", True, ArgumentTypeError, r"seed must be an integer, but is True \(bool\)"),
    ("batch_size", 2.0, ArgumentTypeError, r"batch_size must be an integer, but is 2\.0"),
    ("min_charge", "7", ArgumentTypeError, "min_charge must be an integer, but is '7'"),
    ("nintra", 1.5, ArgumentTypeError, r"nintra must be an integer, but is 1\.5"),
    ("ninter", None, ArgumentTypeError, "ninter must be an integer, but is None"),
    ("precision", "half", ArgumentValueError, "precision must be one of auto, float32, float16, int8, but is 'half'"),
    ("precision", 3, ArgumentValueError, "precision must be one of .*, but is 3"),
    ("precision", "int8", ArgumentValueError, r"tiny.* is float32, not int8"),
    ("random_stream", "x", ArgumentValueError, "random_stream must be one of philox, torch, but is 'x'"),
    ("seed", MIN_SEED - 1, ArgumentValueError, r"seed must lie in \[-2\^63, 2\^63 - 1\], but is -9223372036854775809"),
    ("batch_size", 0, ArgumentValueError, "batch_size must lie between 1 and 40 images, but is 0"),
    ("batch_size", 41, ArgumentValueError, "batch_size must lie between 1 and 40 images, but is 41"),
    ("min_charge", 0, ArgumentValueError, "min_charge must lie between 1 and 255 ADU, but is 0"),
    ("min_charge", 256, ArgumentValueError, "min_charge must lie between 1 and 255 ADU, but is 256"),
    ("nintra", 0, ArgumentValueError, "nintra must lie between 1 and 4096 threads, but is 0"),
    ("ninter", -4, ArgumentValueError, "ninter must lie between 1 and 4096 threads, but is -4"),
]


@pytest.mark.parametrize(("argument", "value", "error", "message"), WRONG_ARGUMENTS)
def test_wrong_arguments_are_refused(
    argument: str,
    value: object,
    error: type[ArgumentTypeError | ArgumentValueError],
    message: str,
    latent_graph: GraphFile,
) -> None:
    with pytest.raises(error, match=message) as caught:
        Generator(**{"model": latent_graph.path, argument: value})  # type: ignore[arg-type]  # the point of the test
    assert caught.value.argument == argument


@pytest.mark.parametrize(
    ("event", "error", "message"),
    [
        (True, ArgumentTypeError, "event must be an integer, but is"),
        (-1, ArgumentValueError, r"event must lie in \[0, 2\^63 - 1\], but is -1"),
        (2**63, ArgumentValueError, rf"event must lie in \[0, 2\^63 - 1\], but is {2**63}"),
    ],
)
def test_wrong_events_are_refused(
    event: int, error: type[ArgumentTypeError | ArgumentValueError], message: str, latent_graph: GraphFile
) -> None:
    generator = Generator(latent_graph.path, seed=1)
    for make in (generator.generate, generator.generate_images):
        with pytest.raises(error, match=message) as caught:
            make(event)
        assert caught.value.argument == "event"


def test_the_last_event_of_all_is_an_event(latent_graph: GraphFile) -> None:
    digits = Generator(latent_graph.path, seed=1).generate(2**63 - 1)
    assert isinstance(digits, Digits)
    assert np.all(digits.event == 2**63 - 1)


def test_integers_of_numpy_are_as_good_as_pythons(latent_graph: GraphFile) -> None:
    generator = Generator(
        latent_graph.path,
        seed=np.int64(5),  # type: ignore[arg-type]  # stubs know int alone
        batch_size=np.int32(3),  # type: ignore[arg-type]
        min_charge=np.uint8(9),  # type: ignore[arg-type]
    )
    plain = Generator(latent_graph.path, seed=5, batch_size=3, min_charge=9)
    assert generator.generate(np.int64(1)) == plain.generate(1)  # type: ignore[arg-type]
    assert {type(each) for each in (generator.seed, generator.batch_size, generator.min_charge)} == {int}


@pytest.mark.parametrize(
    "name",
    ["card", "graph_path", "graph_sha256", "provider", "seed", "random_stream", "batch_size", "min_charge", "nintra"],
)
def test_attributes_are_fixed(name: str, latent_graph: GraphFile) -> None:
    """The digits would not follow, but a file would name the new value as their origin."""
    generator = Generator(latent_graph.path, seed=1)
    before = vars(generator).copy()
    with pytest.raises(AttributeError, match=rf"^A generator stays as it was created: .* another {name}\.$"):
        setattr(generator, name, 8)
    assert vars(generator) == before


def test_the_path_of_the_graph_is_that_of_its_creation(
    latent_graph: GraphFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(latent_graph.path.parent)
    generator = Generator(latent_graph.path.name, seed=1)
    monkeypatch.chdir("/")
    assert generator.graph_path == latent_graph.path


def test_memory_that_ends_outside_the_graph_is_an_error_of_ours(
    latent_graph: GraphFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    generator = Generator(latent_graph.path, seed=1)
    for name in ("find_digits", "compute_charges"):
        monkeypatch.setattr(generator._digitiser, name, fail)
    for make in (generator.generate, generator.generate_images, lambda event: next(generator.stream([event]))):
        with pytest.raises(
            MemoryLimitError, match=r"^There is not enough memory to generate .*more memory, or a smaller batch"
        ):
            make(0)


NO_ADDRESS_SPACE: Final = """
import resource, signal, sys
from pathlib import Path
from pxdbg_runtime import Generator
from pxdbg_runtime.errors import MemoryLimitError
generator = Generator(sys.argv[1], seed=1)
expected = generator.generate(0)
soft, hard = resource.getrlimit(resource.RLIMIT_AS)
in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
signal.alarm(60)
resource.setrlimit(resource.RLIMIT_AS, (in_use, hard))
try:
    generator.generate(0)
except MemoryLimitError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
assert generator.generate(0) == expected
"""


def test_memory_that_does_not_suffice_for_a_thread_is_an_error(latent_graph: GraphFile) -> None:
    """A thread that could not allocate its first frame ended, and nobody was told: the caller waited for ever."""
    pytest.importorskip("resource", reason="this platform has no such limits")
    if not Path("/proc/self/statm").exists():
        pytest.skip("this platform does not say how much address space is in use")
    done = subprocess.run(
        [sys.executable, "-c", NO_ADDRESS_SPACE, str(latent_graph.path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.match("Another thread needs about 1 MB of address space more than the .* in use", done.stdout)
