"""Benchmarks: what the digitisation is compared with does the same work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
import torch

from benchmarks.kernels import compute_rates, digitise_with_numpy
from benchmarks.pytorch_peers import find_hits
from benchmarks.timing import Measurement
from export.charge import compute_charges, cut_thresholds, find_charge_thresholds
from pxdbg_runtime.digitisation.digitiser import Digitiser
from tests.graphs import EVENT_WIDE_CARD, LATENT_CARD

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pxdbg_runtime.model.card import ModelCard

SHAPE: Final = (3, 250, 768)


def lively_images(seed: int) -> NDArray[np.float32]:
    """Make images with hits in a few per cent of the pixels, thresholds and ends among them."""
    random = np.random.default_rng(seed)
    images = np.clip(random.normal(-1.0, 0.3, SHAPE), -1, 1).astype(np.float32)
    exact = random.choice(np.array([*LATENT_CARD.thresholds, -1.0, 1.0], dtype=np.float32), 500)
    images.flat[random.choice(images.size, 500, replace=False)] = exact
    return images


@pytest.mark.parametrize("card", [LATENT_CARD, EVENT_WIDE_CARD], ids=["no cut", "cut and a smallest charge"])
def test_numpy_makes_the_digits_of_the_digitiser(card: ModelCard) -> None:
    images = lively_images(1)
    expected = Digitiser(card).find_digits(images, event=5, sensors=range(30, 30 + len(images)))
    assert len(expected) > 1000
    assert digitise_with_numpy(images, card, event=5, first_sensor=30) == expected


def test_numpy_makes_no_digits_of_empty_images() -> None:
    assert len(digitise_with_numpy(np.full(SHAPE, -1, dtype=np.float32), LATENT_CARD)) == 0


@pytest.mark.parametrize(("cut", "first"), [(None, 1), (-0.26, 6)])
def test_pytorch_makes_the_hits_that_its_charges_say(cut: float | None, first: int) -> None:
    images = torch.from_numpy(lively_images(2))
    n_threads = torch.get_num_threads()
    sensor, u_cell, v_cell, charge = find_hits(images, cut)
    assert torch.get_num_threads() == n_threads
    charges = np.zeros(SHAPE, dtype=np.uint8)
    charges[sensor, u_cell, v_cell] = charge
    assert np.array_equal(charges, compute_charges(images, cut).numpy())
    assert len(charge) == np.count_nonzero(images.numpy() >= cut_thresholds(find_charge_thresholds(), cut)[0])
    assert charge.min() == first


def test_rates_are_bytes_of_forty_images_or_of_their_charges_a_second() -> None:
    seconds = (
        Measurement(labels=("resnet", "a"), unit="s", samples=(0.01, 0.02)),
        Measurement(labels=("resnet", "b"), unit="s", reason="not installed"),
        Measurement(labels=("resnet", "kernels.find_hits, of charges"), unit="s", samples=(0.001,)),
    )
    a, b, find_hits_rate = compute_rates(seconds)
    assert (a.labels, a.unit) == (("resnet", "a"), "GB/s")
    assert a.samples == pytest.approx((3.072, 1.536))
    assert (b.samples, b.reason) == ((), "not installed")
    assert find_hits_rate.samples == pytest.approx((7.68,))
