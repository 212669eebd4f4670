"""The digitiser on images of real size, against a plain NumPy version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from pxdbg_runtime.digitisation.digitiser import Digitiser
from pxdbg_runtime.errors import ArgumentTypeError, ArgumentValueError, ImageError
from pxdbg_runtime.sensors import N_SENSORS, N_U_CELLS, N_V_CELLS, SENSORS
from tests.graphs import LATENT_CARD, THRESHOLDS, compute_plain_charges

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

CUT_CARD: Final = structs.replace(LATENT_CARD, cut=-0.26, min_charge=7)
SHAPE: Final = (N_U_CELLS, N_V_CELLS)
VXD_IDS: Final = np.array([sensor.vxd_id for sensor in SENSORS])


def draw_sparse_images(n_images: int, seed: int) -> NDArray[np.float32]:
    """Make images as empty as real ones, with values on thresholds among the hits."""
    rng = np.random.default_rng(seed)
    images = np.full((n_images, *SHAPE), -1, dtype=np.float32)
    hits = rng.random(images.shape, dtype=np.float32) < 0.01
    images[hits] = rng.choice(np.array(THRESHOLDS, dtype=np.float32), np.count_nonzero(hits))
    lowered = rng.random(images.shape, dtype=np.float32) < 0.5
    images[hits & lowered] = np.nextafter(images[hits & lowered], np.float32(-2))
    return images


def pack_pixels(*columns: NDArray[np.generic]) -> NDArray[np.int64]:
    """Pack (sensor, u, v) of each hit in one integer that orders as they do."""
    sensor, u_cell, v_cell = (column.astype(np.int64) for column in columns)
    return (sensor << 32) | (u_cell << 16) | v_cell


@settings(max_examples=25)
@given(
    sensors=st.lists(st.integers(0, N_SENSORS - 1), min_size=1, max_size=6, unique=True).map(sorted),
    min_charge=st.integers(1, 255),
    event=st.integers(0, 2**63 - 1),
    seed=st.integers(0, 2**32),
)
def test_digits_equal_the_plain_version(sensors: list[int], min_charge: int, event: int, seed: int) -> None:
    images = draw_sparse_images(len(sensors), seed)
    digits = Digitiser(LATENT_CARD, min_charge).find_digits(images, event=event, sensors=sensors)
    expected = compute_plain_charges(images, min_charge)
    image, u_cell, v_cell = np.nonzero(expected)
    assert np.array_equal(digits.sensor_id, VXD_IDS[np.array(sensors)[image]])
    assert np.array_equal(digits.u_cell, u_cell)
    assert np.array_equal(digits.v_cell, v_cell)
    assert np.array_equal(digits.charge, expected[image, u_cell, v_cell])
    assert np.all(digits.event == event)
    assert np.all(np.diff(pack_pixels(digits.sensor_id, digits.u_cell, digits.v_cell)) > 0)


@pytest.mark.parametrize("n_images", [*range(1, 8), 20, 39, 40])
def test_images_and_digits_are_two_views_of_the_same(n_images: int) -> None:
    images = draw_sparse_images(n_images, n_images)
    digitiser = Digitiser(LATENT_CARD)
    charges = digitiser.compute_charges(images)
    assert np.array_equal(charges, compute_plain_charges(images, 1))
    for first_sensor in {0, N_SENSORS - n_images}:
        sensors = range(first_sensor, first_sensor + n_images)
        made = digitiser.find_digits(images, sensors=sensors).to_images()
        assert np.array_equal(made[first_sensor : first_sensor + n_images], charges)
        assert np.count_nonzero(made) == np.count_nonzero(charges)


def test_a_batch_of_images_gives_what_each_gives_alone() -> None:
    images = draw_sparse_images(4, 11)
    digitiser = Digitiser(LATENT_CARD)
    alone = [digitiser.find_digits(images[k : k + 1], sensors=[k]) for k in range(4)]
    together = digitiser.find_digits(images)
    assert [together.of_sensor(SENSORS[k]) for k in range(4)] == alone


@pytest.mark.parametrize(("value", "n_digits"), [(-1.0, 0), (-1.0000005, 0), (1.0, 192_000), (1.0000005, 192_000)])
def test_empty_and_full_images(value: float, n_digits: int) -> None:
    images = np.full((1, *SHAPE), value, dtype=np.float32)
    digits = Digitiser(LATENT_CARD).find_digits(images)
    assert len(digits) == n_digits
    assert set(digits.charge.tolist()) == ({255} if n_digits else set())


@pytest.mark.parametrize("place", [(0, 0, 0), (0, 249, 767), (2, 0, 767), (2, 249, 0)])
def test_a_single_pixel(place: tuple[int, int, int]) -> None:
    images = np.full((3, *SHAPE), -1, dtype=np.float32)
    images[place] = THRESHOLDS[41]
    digits = Digitiser(LATENT_CARD).find_digits(images, event=8, sensors=range(16, 19))
    assert digits.to_structured().tolist() == [(8, SENSORS[16 + place[0]].vxd_id, place[1], place[2], 42)]


def test_no_images_give_no_digits() -> None:
    assert len(Digitiser(LATENT_CARD).find_digits(np.empty((0, *SHAPE), dtype=np.float32))) == 0


@settings(max_examples=25)
@given(
    place=st.tuples(st.integers(0, 1), st.integers(0, N_U_CELLS - 1), st.integers(0, N_V_CELLS - 1)),
    background=st.sampled_from([-1.0, 0.5]),
    min_charge=st.integers(1, 255),
)
def test_a_nan_is_refused_wherever_it_stands(place: tuple[int, int, int], background: float, min_charge: int) -> None:
    images = np.full((2, *SHAPE), background, dtype=np.float32)
    images[place] = np.nan
    digitiser = Digitiser(LATENT_CARD, min_charge)
    for make in (digitiser.find_digits, digitiser.compute_charges):
        with pytest.raises(ImageError, match=r"holds a NaN where a value in \[-1, 1\] was expected"):
            make(images)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (np.inf, "the value inf"),
        (-np.inf, "the value -inf"),
        (1e30, r"the value 1e\+30"),
        (-1e30, r"the value -1e\+30"),
        (1.000002, r"the value 1\.000002"),
        (-1.1, r"the value -1\.1"),
    ],
)
@pytest.mark.parametrize("everywhere", [True, False])
def test_a_value_that_no_tanh_gives_is_refused(value: float, found: str, everywhere: bool) -> None:
    images = np.full((2, *SHAPE), value if everywhere else -1, dtype=np.float32)
    images[1, 249, 767] = value
    digitiser = Digitiser(LATENT_CARD)
    for make in (digitiser.find_digits, digitiser.compute_charges):
        with pytest.raises(ImageError, match=rf"holds {found} where a value in \[-1, 1\] was expected: the graph or"):
            make(images)


def test_the_cut_empties_what_is_not_greater() -> None:
    cut = np.float32(-0.26)
    images = np.full((1, *SHAPE), -1, dtype=np.float32)
    images[0, 0, :4] = [np.nextafter(cut, np.float32(-1)), cut, np.nextafter(cut, np.float32(1)), THRESHOLDS[6]]
    whole = Digitiser(structs.replace(CUT_CARD, min_charge=1)).compute_charges(images)
    assert whole[0, 0, :4].tolist() == [0, 0, 6, 7]
    assert Digitiser(CUT_CARD).compute_charges(images)[0, 0, :4].tolist() == [0, 0, 0, 7]


@pytest.mark.parametrize("min_charge", [7, 8, 100, 255])
def test_the_cut_and_a_smallest_charge_together(min_charge: int) -> None:
    images = draw_sparse_images(2, 5)
    found = Digitiser(CUT_CARD, min_charge).compute_charges(images)
    assert np.array_equal(found, compute_plain_charges(images, min_charge, cut=-0.26))


@pytest.mark.parametrize("min_charge", range(1, 256, 2))
def test_a_smallest_charge_suppresses_all_below_and_nothing_else(min_charge: int) -> None:
    images = np.full((1, *SHAPE), -1, dtype=np.float32)
    images[0, 7, :255] = THRESHOLDS
    digits = Digitiser(LATENT_CARD, min_charge).find_digits(images)
    assert digits.charge.tolist() == list(range(min_charge, 256))


def test_the_smallest_charge_is_the_models_own_unless_given() -> None:
    assert Digitiser(CUT_CARD).min_charge == 7
    assert Digitiser(CUT_CARD, 9).min_charge == 9
    own = Digitiser(CUT_CARD, np.int64(9)).min_charge  # type: ignore[arg-type]  # NumPy's integers are welcome
    assert type(own) is int


@pytest.mark.parametrize("min_charge", [True, False, 7.0, "7", [7], np.float64(7)])
def test_a_smallest_charge_that_is_no_integer_is_refused(min_charge: object) -> None:
    with pytest.raises(ArgumentTypeError, match="min_charge must be an integer, but is") as caught:
        Digitiser(LATENT_CARD, min_charge)  # type: ignore[arg-type]  # the point of the test
    assert caught.value.argument == "min_charge"


@pytest.mark.parametrize("min_charge", [-1, 0, 6, 256, 2**70])
def test_a_smallest_charge_out_of_range_is_refused(min_charge: int) -> None:
    with pytest.raises(
        ArgumentValueError, match=rf"^min_charge must lie between 7 and 255 ADU, but is {min_charge}\."
    ) as caught:
        Digitiser(CUT_CARD, min_charge)
    assert caught.value.argument == "min_charge"


def test_images_need_not_be_contiguous() -> None:
    images = draw_sparse_images(4, 3)
    digitiser = Digitiser(LATENT_CARD)
    strided = np.repeat(images, 2, axis=2)[:, :, ::2]
    assert not strided.flags.c_contiguous
    assert digitiser.find_digits(strided) == digitiser.find_digits(images)
    assert np.array_equal(digitiser.compute_charges(np.asfortranarray(images)), digitiser.compute_charges(images))
    assert np.array_equal(digitiser.compute_charges(images[::-1]), digitiser.compute_charges(images)[::-1])


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((2, 250, 768), "float64"),
        ((2, 250, 768), "float16"),
        ((2, 250, 768), ">f4"),
        ((2, 250, 768), "uint8"),
        ((250, 768), "float32"),
        ((2, 1, 250, 768), "float32"),
        ((2, 768, 250), "float32"),
        ((2, 256, 768), "float32"),
        ((2, 250, 0), "float32"),
        ((), "float32"),
    ],
)
def test_images_of_another_shape_or_type_are_refused(shape: tuple[int, ...], dtype: str) -> None:
    images = np.zeros(shape, dtype=dtype)
    digitiser = Digitiser(LATENT_CARD)
    for make in (digitiser.find_digits, digitiser.compute_charges):
        with pytest.raises(ImageError, match=r"must be float32 of shape \(n, 250, 768\), but are"):
            make(images)


@pytest.mark.parametrize(
    ("n_images", "sensors"),
    [(41, None), (41, range(41)), (1, [40]), (1, [-1]), (2, [0]), (1, [0, 1]), (2, [3, 3]), (2, [3, 2]), (1, [])],
)
def test_images_that_do_not_fit_the_sensors_are_refused(n_images: int, sensors: Sequence[int] | None) -> None:
    images = np.full((n_images, *SHAPE), -1, dtype=np.float32)
    images[:, 0, 0] = 1
    with pytest.raises(ImageError, match=rf"^{n_images} images need the indices of as many sensors, ascending from 0"):
        Digitiser(LATENT_CARD).find_digits(images, sensors=sensors)


@pytest.mark.parametrize("min_charge", [None, 1, 7, 255])
def test_images_of_charges_are_digits_as_they_stand(min_charge: int | None) -> None:
    digitiser = Digitiser(structs.replace(LATENT_CARD, output_kind="charges"), min_charge)
    charges = np.random.default_rng(3).integers(0, 256, (3, *SHAPE), dtype=np.uint8)
    charges[np.random.default_rng(4).random(charges.shape) < 0.9] = 0
    expected = np.where(charges >= (min_charge or 1), charges, 0)
    assert np.array_equal(digitiser.compute_charges(charges), expected)
    digits = digitiser.find_digits(charges, sensors=range(2, 5))
    sensor, u_cell, v_cell = np.nonzero(expected)
    assert np.array_equal(digits.sensor_id, VXD_IDS[sensor + 2])
    assert np.array_equal(digits.u_cell, u_cell)
    assert np.array_equal(digits.v_cell, v_cell)
    assert np.array_equal(digits.charge, expected[expected > 0])


def test_values_where_charges_are_due_are_refused() -> None:
    digitiser = Digitiser(structs.replace(LATENT_CARD, output_kind="charges"))
    with pytest.raises(ImageError, match=r"must be uint8 of shape .* but are float32"):
        digitiser.find_digits(np.zeros((1, *SHAPE), dtype=np.float32))
