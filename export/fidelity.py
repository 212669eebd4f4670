"""How far a graph of another precision is from float32, as physics: charge spectrum, occupancy, share of equal digits."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import numpy as np

from export.charge import compute_hit_charges
from export.errors import FidelityError
from export.torch_graph import INPUT_NAME, OUTPUT_NAME
from pxdbg_runtime.inference.latents import make_stream
from pxdbg_runtime.inference.providers import CPU, import_onnxruntime
from pxdbg_runtime.limits.threads import count_job_cpus
from pxdbg_runtime.model.card import MAX_CHARGE_W1_ADU, MAX_OCCUPANCY_DIFFERENCE, Draw, Fidelity
from pxdbg_runtime.sensors import N_SENSORS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import onnx
    from numpy.typing import NDArray
    from onnxruntime import InferenceSession

__all__ = [
    "N_IMAGES",
    "compute_charge_w1",
    "compute_images",
    "draw_latents",
    "measure_fidelity",
    "require_fidelity",
    "seconds_an_image",
]

N_IMAGES: Final = 20 * N_SENSORS
"""Images that an export compares: twenty events."""
_BATCH_SIZE: Final = 2
_MAX_THREADS: Final = 8


def draw_latents(latent_size: int, n_images: int, seed: int) -> NDArray[np.float32]:
    """Draw latents of images, float32 (images, values), from the runtime's own stream."""
    stream = make_stream("philox", seed, (Draw(name=INPUT_NAME, shape=(N_SENSORS, latent_size)),))
    events = [stream.draw(event)[0] for event in range(-(-n_images // N_SENSORS))]
    return np.concatenate(events)[:n_images]


def compute_images(
    model: onnx.ModelProto, inputs: NDArray[np.float32], batch_size: int = _BATCH_SIZE
) -> Iterator[NDArray[np.float32]]:
    """Run a graph on the CPU over latents, a few images at a time."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = min(_MAX_THREADS, count_job_cpus().count)
    session: InferenceSession = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[CPU])
    for start in range(0, len(inputs), batch_size):
        (images,) = session.run([OUTPUT_NAME], {INPUT_NAME: inputs[start : start + batch_size]})
        yield images


def measure_fidelity(
    exact: onnx.ModelProto,
    other: onnx.ModelProto,
    thresholds: NDArray[np.float32],
    inputs: NDArray[np.float32],
    min_charge: int,
    other_thresholds: NDArray[np.float32] | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> Fidelity:
    """Compare the digits of two graphs on the same latents.

    Parameters
    ----------
    exact, other : onnx.ModelProto
        The float32 graph and the one to judge; both give tanh values.
    thresholds : ndarray of float32, shape (255,)
        Of the charges, see `export.charge`.
    inputs : ndarray of float32, shape (images, values)
        Latents.
    min_charge : int
        Smallest charge of a hit, ADU.
    other_thresholds : ndarray of float32, shape (255,), optional
        Of the other graph, if it has its own.
    log : callable, optional
        Called with a line at every tenth of the images.
    """
    n_equal = n_either = n_compared = 0
    n_charges = len(thresholds) + 1
    others = thresholds if other_thresholds is None else other_thresholds
    spectra = {key: np.zeros(n_charges, np.int64) for key in ("exact", "other")}
    for exact_images, other_images in zip(compute_images(exact, inputs), compute_images(other, inputs), strict=True):
        charges = {
            key: compute_hit_charges(images.ravel(), table, min_charge)
            for key, images, table in (("exact", exact_images, thresholds), ("other", other_images, others))
        }
        for key, found in charges.items():
            spectra[key] += np.bincount(found, minlength=n_charges)
        is_hit = (charges["exact"] > 0) | (charges["other"] > 0)
        n_either += int(is_hit.sum())
        n_equal += int((charges["exact"] == charges["other"])[is_hit].sum())
        tenths, n_compared = 10 * n_compared // len(inputs), n_compared + len(exact_images)
        if 10 * n_compared // len(inputs) > tenths:
            log(f"compared with float32: {n_compared} of {len(inputs)} images")
    hits, expected = (int(spectra[key][1:].sum()) for key in ("other", "exact"))
    return Fidelity(
        images=len(inputs),
        charge_w1_adu=compute_charge_w1(spectra["exact"], spectra["other"]),
        occupancy_ratio=hits / expected if expected else float(hits == 0),
        identical_digits=n_equal / n_either if n_either else 1.0,
    )


def seconds_an_image(model: onnx.ModelProto, inputs: NDArray[np.float32]) -> float:
    """Measure how long one image takes here, on the first of some latents, the second time that they run."""
    first = inputs[:_BATCH_SIZE]
    images = compute_images(model, np.concatenate([first, first]))
    next(images)
    start = time.perf_counter()
    next(images)
    return (time.perf_counter() - start) / len(first)


def compute_charge_w1(first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
    """Wasserstein distance of two charge spectra, counts of charge 0 to 255 ADU; hits alone count.

    An empty spectrum is as far from one that is not as could be.
    """
    totals = int(first[1:].sum()), int(second[1:].sum())
    if 0 in totals:
        return 0.0 if totals == (0, 0) else float(len(first))
    cumulative = np.cumsum(first[1:] / totals[0]) - np.cumsum(second[1:] / totals[1])
    return float(np.abs(cumulative).sum())


def require_fidelity(fidelity: Fidelity, precision: str) -> None:
    """Refuse a graph that is too far from float32.

    Raises
    ------
    FidelityError
        If the spectra or the occupancies differ beyond the bounds of `pxdbg_runtime.model.card`.
    """
    if fidelity.is_within_bounds:
        return
    message = (
        f"The digits of the {precision} graph are too far from float32's: W1 of the charge spectrum "
        f"{fidelity.charge_w1_adu:.3f} ADU (below {MAX_CHARGE_W1_ADU} is allowed), occupancy "
        f"{100 * (fidelity.occupancy_ratio - 1):+.2f} % (within {100 * MAX_OCCUPANCY_DIFFERENCE:g} %). Nothing was "
        "written; --accept-beyond-bounds writes it all the same."
    )
    raise FidelityError(fidelity, message)
