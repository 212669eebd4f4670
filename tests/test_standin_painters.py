from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from artifacts.standins import convnet_painter, resnet_painter
from artifacts.standins.convnet_painter import GROUPS, IS_SINGLE, PLACES, Growth, painting_kernel
from artifacts.standins.resnet_painter import KIND_OF_DETECTOR, Curve
from export.families.convnet import ConvNet
from export.families.resnet import ResNet

CELL = (20, 30)


def painted(kernel: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> dict[tuple[int, int], float]:
    """What PyTorch's convolution makes of a cell of two by two, by u and v from its first pixel."""
    image = torch.zeros(1, 1, 12, 12)
    image[..., 5:7, 5:7] = 1.0
    result = torch.nn.functional.conv2d(image, torch.from_numpy(kernel).float()[None, None], padding=2)[0, 0]
    return {(u, v): result[5 + u, 5 + v].item() for u in range(-5, 7) for v in range(-5, 7)}


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(GROUPS), st.lists(st.floats(0.1, 3.0), min_size=4, max_size=4), st.integers(1, 4))
def test_a_kernel_paints_a_shape_and_nothing_else(
    group: tuple[tuple[int, int], ...], values: list[float], n_pixels: int
) -> None:
    shape = dict(list(zip(group, values, strict=False))[:n_pixels])
    found = painted(painting_kernel(shape))
    assert {place: found[place] for place in shape} == pytest.approx(shape, abs=1e-5)
    assert max(value for place, value in found.items() if place not in shape) < 1e-5


def test_a_shape_out_of_reach_is_refused() -> None:
    with pytest.raises(ValueError, match="reaches pixels -2 to 3 alone"):
        painting_kernel({(0, 0): 1.0, (9, 9): 1.0})


def test_detectors_of_single_pixels_are_every_other_one_everywhere() -> None:
    cell, pixel, subcell = np.arange(64) // 16, np.arange(64) % 16 // 4, np.arange(64) % 4
    rows = 4 * (cell // 2) + 2 * (subcell // 2) + pixel // 2
    columns = 4 * (cell % 2) + 2 * (subcell % 2) + pixel % 2
    for places in (rows, columns, pixel):
        assert np.bincount(places[IS_SINGLE]).tolist() == np.bincount(places[~IS_SINGLE]).tolist()


@pytest.fixture(scope="module")
def resnet() -> ResNet:
    """The late part of a ResNet; every threshold is 2."""
    model = ResNet().eval()
    resnet_painter.paint(model)
    resnet_painter.set_thresholds(model, np.full(61, 2.0))
    return model


@torch.no_grad()
@pytest.mark.parametrize("detector", range(61))
def test_a_feature_of_the_resnet_lights_its_shape_at_its_place(resnet: ResNet, detector: int) -> None:
    features = torch.zeros(1, 64, 64, 192)
    # The last two features are of the halves of lines, and light nothing by themselves.
    features[0, 62:] = torch.linspace(-5, 5, 192)
    features[0, 1 + detector, *CELL] = 2.5
    features[0, 62:, *CELL] = torch.tensor([-1.0, -0.1])
    image = resnet_painter.raw_images(resnet, features)[0].numpy()
    lit = {(int(u) - 4 * CELL[0], int(v) - 4 * CELL[1]) for u, v in np.argwhere(image > 1e-6)}
    kind = int(KIND_OF_DETECTOR[detector])
    pixel, subcell = divmod(detector - 16 * kind, 4)
    if kind < 3:
        place = (2 * (subcell // 2) + pixel // 2, 2 * (subcell % 2) + pixel % 2)
        assert place in lit
        assert image.max() == pytest.approx(0.3 + 0.3 * 0.2)
        assert len(lit) in ({1}, {2}, {3, 4})[kind]
    else:
        assert len(lit) in {6, 9}
        us, vs = (max(each) - min(each) + 1 for each in zip(*lit, strict=True))
        assert (us, vs) == ((1, 6), (6, 1), (6, 6), (6, 6))[pixel]
        # Halves and middle have charges of their own, shared by what the modulators take off the excess.
        start, end = 0.5 * (0.5 - 0.18 * np.array([1.0, 1.9]))
        middle, end = (start + end) / 2, 0.8 * end
        expected = [start, 0.8 * start, middle, 0.8 * middle, end, 0.8 * end]
        if pixel < 2:  # along an axis, less a fifth of the pixel before
            expected[2:5:2] = [middle - 0.2 * start, end - 0.2 * middle]
        found = np.unique(image[image > 1e-6])
        for value in expected:
            assert np.abs(found - value).min() < 1e-6
        assert found.max() == pytest.approx(start)


@torch.no_grad()
def test_the_curve_of_the_resnet_goes_through_its_values(resnet: ResNet) -> None:
    model = resnet
    knots = np.append(0.0, 0.1 * 1.2 ** np.arange(15))
    values = -1.1 + np.sqrt(knots)
    resnet_painter.set_curve(model, Curve(knots=knots, values=values, slope=0.25))
    excess = np.array([-1.0, 0.05, 0.1, 0.3, 0.9, 3.0, 9.0])
    features = torch.zeros(len(excess), 64, 64, 192)
    features[:, 1, *CELL] = torch.from_numpy(2.0 + excess).float()  # a single, at the first pixel
    found = torch.tanh(model.conv(torch.relu(model.norm(model.blocks[3:](features)))))[:, 0]
    image = np.where(excess > 0.3, 0.3 + 0.3 * (excess - 0.3), excess)
    expected = np.interp(image, knots, values) + 0.25 * np.maximum(image - knots[-1], 0.0)
    assert found[:, 4 * CELL[0], 4 * CELL[1]].numpy() == pytest.approx(np.tanh(expected), abs=1e-5)
    assert ((found - found[0, 0, 0]).abs() > 1e-5).sum().item() == len(excess) - 1


@pytest.fixture(scope="module")
def convnet() -> ConvNet:
    """The late part of a ConvNet; every threshold is 2, and the later pixels of a group come from 2.4 on."""
    model = ConvNet().eval()
    convnet_painter.paint(model)
    convnet_painter.set_empty(model, -1.1)
    convnet_painter.set_thresholds(model, np.full(64, 2.0))
    with torch.no_grad():
        model.get_buffer("features.13.running_mean").zero_()
        model.get_buffer("features.13.running_var").fill_(1 - 1e-5)
    knots = np.array([0.0, 0.1, 0.3, 0.4])
    for pixel, (place, group) in enumerate(zip(PLACES, GROUPS, strict=True)):
        single = [{place: value} for value in (0.9, 1.0, 1.2, 0.5)]
        convnet_painter.set_growth(
            model, pixel, Growth(knots=knots, shapes=single[:3], slopes=single[3]), is_single=True
        )
        pair = [dict.fromkeys(group[:2], value) for value in (0.9, 1.0)]
        whole = [dict.fromkeys(group, value) for value in (0.9, 0.5)]
        growth = Growth(knots=knots, shapes=[*pair, whole[0]], slopes=whole[1])
        convnet_painter.set_growth(model, pixel, growth, is_single=False)
    return model


@torch.no_grad()
@pytest.mark.parametrize("detector", range(0, 64, 3))
def test_a_feature_of_the_convnet_lights_its_shape_at_its_place(convnet: ConvNet, detector: int) -> None:
    excess = torch.tensor([0.2, 0.5])
    features = torch.zeros(2, 64, 64, 192)
    features[:, detector, *CELL] = 2.0 + excess
    images = torch.atanh(convnet_painter.images(convnet, features)).numpy() + 1.1
    pixel, subcell = detector % 16 // 4, detector % 4
    corner = np.array([4 * CELL[0] + 2 * (subcell // 2), 4 * CELL[1] + 2 * (subcell % 2)])
    lit = [{(int(u), int(v)) for u, v in np.argwhere(image > 0.1) - corner} for image in images]
    if IS_SINGLE[detector]:
        assert lit == [{PLACES[pixel]}] * 2
        assert images.max((1, 2)) == pytest.approx([0.95, 1.25], abs=1e-4)
    else:
        assert lit == [set(GROUPS[pixel][:2]), set(GROUPS[pixel])]
        assert images.max((1, 2)) == pytest.approx([0.95, 0.95], abs=1e-4)
