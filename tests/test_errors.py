"""Errors: their base classes, their attributes after pickling, and their messages on one line."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from export.errors import CheckpointError, ConditionsError, FidelityError, GraphError, ParityError, ServerError
from pxdbg_runtime import errors
from pxdbg_runtime.model.card import Fidelity

if TYPE_CHECKING:
    from pxdbg_runtime.errors import PxdbgError

PLACE = Path("place")
EACH = [
    errors.ArgumentTypeError("seed", "A sentence."),
    errors.ArgumentValueError("seed", "A sentence."),
    errors.BrokenPackageError("pyarrow", "parquet", "A sentence."),
    errors.CampaignError(PLACE, "A sentence."),
    errors.CardError("opset", "A sentence."),
    errors.DigitFileError(PLACE, "A sentence."),
    errors.GraphFileError(PLACE, "A sentence."),
    errors.ImageError("A sentence."),
    errors.InferenceError("A sentence."),
    errors.JsonFieldError("opset", "A sentence."),
    errors.KnownAnswerError("cpu", "1.21.0", 0.5, "A sentence."),
    errors.MachineMismatchError("A sentence."),
    errors.ManifestError(PLACE, "A sentence."),
    errors.MarginalsError(PLACE, "A sentence."),
    errors.MemoryLimitError(2**29, "A sentence."),
    errors.MissingPackageError("pyarrow", "parquet", "A sentence."),
    errors.MissingReleaseError("basf2", "A sentence."),
    errors.ModelNotFoundError("gan", ("resnet",), "A sentence."),
    errors.ModuleStateError("A sentence."),
    errors.OutputError(PLACE, "A sentence."),
    errors.ProviderError("cuda", "A sentence."),
    errors.SchedulerError("tcp://host:8786", "A sentence."),
    errors.ThreadLimitError(4, 1, "A sentence."),
    CheckpointError(PLACE, "A sentence."),
    GraphError("A sentence."),
    ParityError(0.5, "A sentence."),
    ConditionsError("A sentence."),
    ServerError("A sentence.", status=404),
    FidelityError(
        Fidelity(images=1, charge_w1_adu=0.5, occupancy_ratio=1.0, identical_digits=0.5),
        "A sentence.",
    ),
]


@pytest.mark.parametrize("error", EACH, ids=lambda error: type(error).__name__)
def test_an_error_can_be_pickled(error: PxdbgError) -> None:
    arrived = pickle.loads(pickle.dumps(error))
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert "A sentence." in str(error)
    assert arrived.__dict__ == error.__dict__


def test_every_error_of_the_runtime_is_here() -> None:
    assert {type(error).__name__ for error in EACH} >= set(errors.__all__) - {"PxdbgError", "one_line"}


@pytest.mark.parametrize("error", EACH, ids=lambda error: type(error).__name__)
def test_an_error_is_of_the_kind_that_a_caller_expects(error: PxdbgError) -> None:
    expected = (ValueError, TypeError, RuntimeError, OSError, ImportError, MemoryError)
    assert isinstance(error, expected)


@pytest.mark.parametrize(("error", "expected"), [(ValueError("two\n  lines"), "two lines"), (KeyError(), "KeyError")])
def test_a_message_on_one_line(error: Exception, expected: str) -> None:
    assert errors.one_line(error) == expected
