"""The known-answer test: whether this runtime, on this machine, computes a graph's images rightly.

A release of ONNX Runtime may compute an operator wrongly on some machines, without an error. So one image of the card's known
answers is computed when a generator is made, and all of them by ``pxdbg check``. A passed test is remembered in the user's cache
folder, where there is one, for the graph, the release, the provider with its options, and the model of the CPU or GPU.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import platformdirs

from pxdbg_runtime.errors import KnownAnswerError
from pxdbg_runtime.inference.batches import compute_batches
from pxdbg_runtime.inference.devices import name_device
from pxdbg_runtime.inference.latents import PhiloxStream
from pxdbg_runtime.inference.providers import CUDA, find_wheel, import_onnxruntime

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pxdbg_runtime.digitisation.kernels import Images
    from pxdbg_runtime.inference.session import ImageSession
    from pxdbg_runtime.model.known_answers import KnownAnswers, KnownImage

__all__ = ["Verdict", "check_known_answers", "describe_failure", "require_known_answer"]

_FOLDER: Final = "known-answers"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How far the images of a session are from the known answers of its graph.

    Attributes
    ----------
    images : int
        Number of images compared.
    largest_difference, mean_difference : float
        Over the pixels of the worst image: of tanh values, or of charges in ADU, see `KnownAnswers.compared`.
    seconds : float
        What computing and comparing took.
    passed : bool
    """

    images: int
    largest_difference: float
    mean_difference: float
    seconds: float
    passed: bool


def check_known_answers(session: ImageSession, answers: KnownAnswers, *, images: int | None = None) -> Verdict:
    """Compute known images and compare them with their reference.

    Parameters
    ----------
    session : ImageSession
    answers : KnownAnswers
        Of the session's graph.
    images : int, optional
        How many of the images; all if None.

    Raises
    ------
    InferenceError
        If ONNX Runtime fails.
    """
    made = session.card.draws
    drawn = PhiloxStream(answers.seed, made).draw(answers.event)
    draws = {draw.name: values for draw, values in zip(made, drawn, strict=True)}
    start = time.perf_counter()
    chosen = answers.images[:images]
    sensors = [range(image.sensor, image.sensor + 1) for image in chosen]
    with closing(compute_batches(session, sensors, draws)) as batches:
        differences = [
            _difference(session, answers, image, outputs) for image, (_, outputs) in zip(chosen, batches, strict=True)
        ]
    largest, mean = (max(each) for each in zip(*differences, strict=True))
    return Verdict(
        images=len(chosen),
        largest_difference=largest,
        mean_difference=mean,
        seconds=time.perf_counter() - start,
        passed=largest <= answers.tolerance and mean <= answers.mean_tolerance,
    )


def require_known_answer(session: ImageSession) -> None:
    """Compare one image of a session with its known answer, unless that passed on this machine before.

    Raises
    ------
    KnownAnswerError
        If it differs by more than the card allows.
    InferenceError
        If ONNX Runtime fails.
    """
    answers = session.card.known_answers
    if answers is None:
        _log.info("The graph %s has no known answers: its images are not checked on this machine.", session.path)
        return
    record = _record_of(session)
    if _has_passed(record):
        return
    verdict = check_known_answers(session, answers, images=1)
    if not verdict.passed:
        message = describe_failure(session, answers, verdict)
        raise KnownAnswerError(session.provider, _release(), verdict.largest_difference, message)
    _remember(record)


def describe_failure(session: ImageSession, answers: KnownAnswers, verdict: Verdict) -> str:
    """Say how far the images are off, on what, and what to do."""
    card = session.card
    unit = " ADU" if answers.compared == "charges" else ""
    known = ("float32", "float16") if session.provider == CUDA else ("float32", "int8")
    others = " or ".join(name for name in known if name != card.precision)
    return (
        f"onnxruntime {_release()} computes the {card.precision} graph {session.path} wrongly on this machine "
        f"({session.provider}, {name_device(session.provider, session.provider_options)}): a known image differs by up to "
        f"{verdict.largest_difference:.3g}{unit} ({answers.tolerance:.3g} allowed), on average by "
        f"{verdict.mean_difference:.3g}{unit} ({answers.mean_tolerance:.3g} allowed). Upgrade it (pip install --upgrade "
        f"{find_wheel()}) or use another precision ({others}); verify=False (--no-verify) runs it all the same."
    )


def _difference(
    session: ImageSession, answers: KnownAnswers, image: KnownImage, outputs: Images
) -> tuple[float, float]:
    found: NDArray[np.generic] = outputs.reshape(-1)[image.decode_pixels()]
    if answers.compared == "charges" and found.dtype == np.float32:
        found = np.searchsorted(session.card.compute_charge_table(), found, side="right").astype(np.uint8)
    difference = np.abs(found.astype(np.float64) - answers.decode_outputs(image))
    # A NaN must not pass for a small number.
    difference = np.nan_to_num(difference, nan=np.inf)
    return float(difference.max()), float(difference.mean())


def _record_of(session: ImageSession) -> dict[str, object]:
    """Describe what a passed test is good for."""
    return {
        "graph_sha256": session.sha256,
        "onnxruntime": _release(),
        "provider": session.provider,
        "provider_options": dict(sorted(session.provider_options.items())),
        "device": name_device(session.provider, session.provider_options),
    }


def _record_path(record: dict[str, object]) -> Path | None:
    """Find where a record would be; None where the user has no cache folder, or the device is not known."""
    try:
        folder = Path(platformdirs.user_cache_dir("pxdbg_runtime", appauthor=False))
    except RuntimeError:  # neither HOME nor the user is known; older releases answer with a relative path
        return None
    if not folder.is_absolute() or not record["device"]:
        return None
    name = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
    return folder / _FOLDER / f"{name}.json"


def _has_passed(record: dict[str, object]) -> bool:
    path = _record_path(record)
    if path is None:
        return False
    try:
        return bool(json.loads(path.read_text(encoding="utf-8")) == record)
    except (OSError, ValueError):
        return False


def _remember(record: dict[str, object]) -> None:
    path = _record_path(record)
    if path is None:
        return
    partial = path.with_name(f".{path.stem[:16]}.{secrets.token_hex(4)}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_text(json.dumps(record), encoding="utf-8")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        _log.debug("A passed known-answer test cannot be remembered: %s", error)


def _release() -> str:
    return str(import_onnxruntime().__version__)
