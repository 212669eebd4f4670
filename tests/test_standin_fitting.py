from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import norm

from artifacts.standins.cells import Cells
from artifacts.standins.level_fit import fit_level, measure_response, rescaled
from artifacts.standins.simulation import occupancies_of_events
from artifacts.standins.spectrum import (
    EMPTY,
    FIRST_HIT,
    charge_values,
    value_of_charge,
    wanted_charges,
    wanted_cumulative,
)
from export.charge import compute_charges


def test_values_become_the_charges_they_stand_for() -> None:
    charges = np.arange(7.0, 255.0) + 0.5
    found = compute_charges(torch.tanh(torch.from_numpy(np.tile(value_of_charge(charges), 20)).float()))
    assert found[: len(charges)].tolist() == charges.astype(np.int64).tolist()
    around = torch.tanh(torch.tensor([EMPTY, FIRST_HIT - 1e-4, FIRST_HIT + 1e-4]).repeat(2000))
    assert compute_charges(around)[:3].tolist() == [0, 6, 7]


def test_charges_begin_where_the_thresholds_are() -> None:
    assert charge_values()[:-1] == pytest.approx(value_of_charge(np.arange(7.0, 255.0)), abs=2e-3)
    assert len(charge_values()) == 249


def test_the_wanted_spectrum_is_its_own_inverse() -> None:
    shares = wanted_cumulative()
    assert shares[0] == 0
    assert shares[-1] == 1
    assert wanted_charges(shares[1:240]) == pytest.approx(np.arange(8, 247), abs=1e-6)


@pytest.mark.parametrize("spread", [0.0, 0.05])
def test_a_fitted_level_gives_the_occupancies_of_the_sensors(spread: float) -> None:
    rng = np.random.default_rng(1)

    def occupancies_at(level: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.asarray(0.009 * np.exp(0.8 * level) * np.exp(spread * rng.standard_normal(4000) - spread**2 / 2))

    response = measure_response(occupancies_at)
    assert response.spreads == pytest.approx(spread, rel=0.1)
    level = fit_level(response)
    latents = norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    found = np.sort(0.009 * np.exp(0.8 * level(latents)) * np.exp(spread * rng.standard_normal(20_000)))
    wanted = np.sort(occupancies_of_events(500, np.random.default_rng(2)).ravel())
    assert np.abs(found - wanted).mean() < 0.0002  # 0.02 percentage points
    assert found.mean() == pytest.approx(wanted.mean(), rel=0.01)


def test_a_response_of_few_images_becomes_right_on_average() -> None:
    few = measure_response(lambda level: 0.012 * np.exp(0.8 * level) * np.array([0.9, 1.1]))
    levels = np.linspace(-1.0, 1.0, 50)
    made = rescaled(few, levels, 0.009 * np.exp(0.8 * levels))
    assert made.occupancies == pytest.approx(0.75 * few.occupancies, rel=1e-2)
    assert made.spreads is few.spreads


def test_thresholds_are_exceeded_at_the_rates_asked_for() -> None:
    features = torch.randn(6, 3, 64, 192, generator=torch.Generator().manual_seed(1))
    cells = Cells(first_latents=np.zeros(6), features=features)
    rates = np.array([0.001, 0.01, 0.1])
    thresholds = torch.from_numpy(cells.thresholds(rates)).float()
    assert (features >= thresholds[:, None, None]).float().mean((0, 2, 3)).numpy() == pytest.approx(rates, rel=0.01)
    levels = np.linspace(-1, 1, 5)
    batches = torch.cat(list(cells.batches(levels)))
    assert np.abs((batches - features[:5]).numpy() - 0.25 * levels[:, None, None, None]).max() < 1e-6
