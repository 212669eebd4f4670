"""The known-answer test: whether ONNX Runtime computes the images of a graph correctly on this machine.

A release of ONNX Runtime may compute an operator wrongly on some machines without an error. So each new generator
computes one image of the card's known answers, and ``pxdbg check`` computes all of them. A passed test is recorded in
the user's cache folder, if there is one, for the graph, the release, the provider with its options, and the model of
the CPU or GPU.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import platformdirs

from pxdbg_runtime.errors import KnownAnswerError
from pxdbg_runtime.inference.batches import Batch, compute_batches
from pxdbg_runtime.inference.devices import name_device
from pxdbg_runtime.inference.latents import PhiloxStream
from pxdbg_runtime.inference.providers import CPU, find_wheel, import_onnxruntime
from pxdbg_runtime.model.builtin_models import find_artifacts_folder, read_manifest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pxdbg_runtime.digitisation.digitiser import Images
    from pxdbg_runtime.inference.session import ImageSession
    from pxdbg_runtime.model.card import Precision
    from pxdbg_runtime.model.known_answers import KnownAnswers, KnownImage

__all__ = ["KnownAnswerResult", "check_known_answers", "describe_failure", "require_known_answer"]

_FOLDER: Final = "known-answers"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class KnownAnswerResult:
    """Differences between the images of a session and the known answers of its graph.

    Attributes
    ----------
    images : int
        Number of images compared.
    largest_difference, mean_difference : float
        Over the pixels of the worst image: of tanh values, or of charges in ADU, see `KnownAnswers.compared`.
    seconds : float
        Time to compute and compare the images.
    passed : bool
    """

    images: int
    largest_difference: float
    mean_difference: float
    seconds: float
    passed: bool


def check_known_answers(
    session: ImageSession, answers: KnownAnswers, *, images: int | None = None
) -> KnownAnswerResult:
    """Compute known images and compare them with their reference outputs.

    Parameters
    ----------
    session : ImageSession
    answers : KnownAnswers
        Of the session's graph.
    images : int, optional
        Number of images; all if None.

    Raises
    ------
    InferenceError
        If ONNX Runtime fails.
    """
    values = PhiloxStream(answers.seed, session.card.draws).draw(answers.event)
    draws = {draw.name: drawn for draw, drawn in zip(session.card.draws, values, strict=True)}
    start = time.perf_counter()
    compared = answers.images[:images]
    single = (Batch(answers.event, (image.sensor,), draws) for image in compared)
    with closing(compute_batches(session, single, 1)) as batches:
        differences = [
            _measure_difference(session, answers, image, outputs)
            for image, (_, outputs) in zip(compared, batches, strict=True)
        ]
    largest, mean = (max(each) for each in zip(*differences, strict=True))
    return KnownAnswerResult(
        images=len(compared),
        largest_difference=largest,
        mean_difference=mean,
        seconds=time.perf_counter() - start,
        passed=largest <= answers.tolerance and mean <= answers.mean_tolerance,
    )


def require_known_answer(session: ImageSession) -> None:
    """Compare one image of a session with its known answer, unless the test passed on this machine before.

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
    record = _describe_test(session)
    if _has_passed(record):
        return
    verdict = check_known_answers(session, answers, images=1)
    if not verdict.passed:
        message = describe_failure(session, answers, verdict)
        raise KnownAnswerError(session.provider, _read_release(), verdict.largest_difference, message)
    _record_pass(record)


def describe_failure(session: ImageSession, answers: KnownAnswers, verdict: KnownAnswerResult) -> str:
    """Describe the differences, the machine, and what to do."""
    card = session.card
    unit = " ADU" if answers.compared == "charges" else ""
    others = " or ".join(_list_other_precisions(session))
    device = name_device(session.provider, session.provider_options)
    found = (
        f"differs by up to {verdict.largest_difference:.3g}{unit} ({answers.tolerance:.3g} allowed), on average by "
        f"{verdict.mean_difference:.3g}{unit} ({answers.mean_tolerance:.3g} allowed)"
        if math.isfinite(verdict.largest_difference)
        else "holds NaN or infinite values"
    )
    return (
        f"onnxruntime {_read_release()} computes the {card.precision} graph {session.path} wrongly on this machine "
        f"({session.provider}{f', {device}' if device else ''}): a known image {found}. Upgrade it (pip install "
        f"--upgrade {find_wheel()}){f' or use another precision ({others})' if others else ''}. "
        "Generator(..., verify=False) and pxdbg generate --no-verify run it all the same."
    )


def _list_other_precisions(session: ImageSession) -> list[Precision]:
    """List the other precisions of a built-in model that the provider runs; none for another graph."""
    listed = read_manifest() if session.path.parent == find_artifacts_folder() else ()
    models = {graph.name for graph in listed if graph.file == session.path.name}
    found = {graph.precision for graph in listed if graph.name in models} - {session.card.precision}
    return sorted(found & ({"float32", "int8"} if session.provider == CPU else {"float32", "float16"}))


def _measure_difference(
    session: ImageSession, answers: KnownAnswers, image: KnownImage, outputs: Images
) -> tuple[float, float]:
    found: NDArray[np.generic] = outputs.reshape(-1)[image.decode_pixels()]
    if answers.compared == "charges" and found.dtype == np.float32:
        found = np.searchsorted(session.card.compute_charge_table(), found, side="right").astype(np.uint8)
    difference = np.abs(found.astype(np.float64) - answers.decode_outputs(image))
    # Comparisons with NaN are false, so NaN counts as infinite.
    difference = np.nan_to_num(difference, nan=np.inf)
    return float(difference.max()), float(difference.mean())


def _describe_test(session: ImageSession) -> dict[str, object]:
    """Describe the conditions under which a passed test is valid."""
    return {
        "graph_sha256": session.sha256,
        "onnxruntime": _read_release(),
        "provider": session.provider,
        "provider_options": dict(sorted(session.provider_options.items())),
        "device": name_device(session.provider, session.provider_options),
    }


def _find_record_path(record: dict[str, object]) -> Path | None:
    """Find the path of a record; None if the user has no cache folder, or if the device is unknown."""
    try:
        folder = Path(platformdirs.user_cache_dir("pxdbg_runtime", appauthor=False))
    except RuntimeError:  # HOME and the user are unknown; older releases of platformdirs return a relative path
        return None
    if not folder.is_absolute() or not record["device"]:
        return None
    name = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
    return folder / _FOLDER / f"{name}.json"


def _has_passed(record: dict[str, object]) -> bool:
    path = _find_record_path(record)
    try:
        return path is not None and bool(json.loads(path.read_text(encoding="utf-8")) == record)
    except (OSError, ValueError, RecursionError):
        return False


def _record_pass(record: dict[str, object]) -> None:
    path = _find_record_path(record)
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # All processes write the same bytes, and a record that is cut short is no JSON, so it does not count.
        path.write_text(json.dumps(record), encoding="utf-8")
    except OSError as error:
        _log.debug("A passed known-answer test cannot be recorded: %s", error)


def _read_release() -> str:
    return str(import_onnxruntime().__version__)
