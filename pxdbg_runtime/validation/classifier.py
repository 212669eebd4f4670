"""Classifier test: how well a classifier tells the images of two samples apart, and by what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from pxdbg_runtime.optional_imports import require
from pxdbg_runtime.sensors import N_SENSORS
from pxdbg_runtime.validation.features import FEATURES, standardise_by_sensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pxdbg_runtime.validation.features import ImageFeatures

__all__ = ["MIN_EVENTS_TO_CLASSIFY", "N_FOLDS", "Classification", "FeatureImportance", "RocArea", "classify_images"]

N_FOLDS: Final = 5
MIN_EVENTS_TO_CLASSIFY: Final = 10
"""Of each sample: two in each fold."""
_SEED: Final = 1
_SENSOR: Final = "sensor index"


@dataclass(frozen=True, kw_only=True)
class RocArea:
    """Area under the ROC curve (AUC) and its standard error."""

    auc: float
    error: float


@dataclass(frozen=True, kw_only=True)
class FeatureImportance:
    """What one feature does for a classification.

    Attributes
    ----------
    name : str
    auc_loss : float
        By how much the AUC falls if the values of the feature are exchanged between images; mean over the folds. Near
        0 for a feature that others can replace.
    auc_alone : float
        Area under the ROC curve of the feature alone, without a classifier, 0.5 to 1: the direction that is better is
        taken. The feature is relative to its sensor.
    """

    name: str
    auc_loss: float
    auc_alone: float


@dataclass(frozen=True, kw_only=True)
class Classification:
    """A classifier test of two samples.

    Attributes
    ----------
    roc : RocArea
        On images that the classifier was not trained on. 0.5: it cannot tell the samples apart; 1: it always can.
    importances : tuple of FeatureImportance
        By `auc_loss`, the largest first.
    """

    roc: RocArea
    importances: tuple[FeatureImportance, ...]

    @property
    def best_alone(self) -> FeatureImportance:
        """The feature that tells most without the others."""
        return max(self.importances, key=lambda each: each.auc_alone)


def classify_images(ours: ImageFeatures, theirs: ImageFeatures) -> Classification | None:
    """Train a classifier to tell the images of two samples apart, and test it on other events.

    The classifier is scikit-learn's gradient boosting on histograms with its default settings but early stopping, which
    is off. Its inputs are the features, each relative to its sensor (`standardise_by_sensor`), and the index of the
    sensor: so it is not helped by differences between sensors that both samples have, and it sees a sensor whose images
    are those of another one.

    In a cross-validation of five folds all images of an event are in the same fold, and so are events of the same
    number in both samples, which may have the same latents. The AUC is the mean over the folds. Its error is DeLong's,
    with the structural components summed over the images of an event, which are correlated (Obuchowski, Biometrics 53,
    567, 1997). As the training samples of the folds overlap, the variance of the mean is not a fifth of a fold's, but
    1/5 + 1/4 of it (Nadeau and Bengio, Machine Learning 52, 239, 2003).

    Parameters
    ----------
    ours, theirs : ImageFeatures

    Returns
    -------
    Classification or None
        None if a sample has fewer than ten different event numbers.

    Raises
    ------
    MissingPackageError
        If scikit-learn is not installed.
    """
    if min(len(np.unique(each.event_numbers)) for each in (ours, theirs)) < MIN_EVENTS_TO_CLASSIFY:
        return None
    require("sklearn", extra="validate", purpose="A classifier test")
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.inspection import permutation_importance
    from threadpoolctl import threadpool_limits

    images = np.concatenate([_flatten(each) for each in standardise_by_sensor(ours.values, theirs.values)])
    events = np.repeat(np.concatenate([ours.event_numbers, theirs.event_numbers]), N_SENSORS)
    is_ours = np.arange(len(images)) < N_SENSORS * len(ours.values)
    fold_of_image = np.repeat(_assign_folds(ours.event_numbers, theirs.event_numbers), N_SENSORS)
    areas, losses = [], []
    # The order of sums over threads is not fixed: with one thread a report can be reproduced.
    with threadpool_limits(1):
        for fold in range(N_FOLDS):
            training, test = fold_of_image != fold, fold_of_image == fold
            classifier = HistGradientBoostingClassifier(early_stopping=False, random_state=_SEED)
            # scikit-learn bins no feature that is unknown for all images, such as that of a sensor without clusters.
            known = np.where(np.isnan(images[training]).all(axis=0), 0.0, images[training])
            classifier.fit(known, is_ours[training])
            scores = classifier.decision_function(images[test])
            areas.append(measure_roc_area(scores, is_ours[test], events[test]))
            permuted = permutation_importance(
                classifier, images[test], is_ours[test], scoring="roc_auc", n_repeats=1, random_state=_SEED
            )
            losses.append(permuted.importances_mean)
    alone = [measure_roc_area(np.nan_to_num(column), is_ours, events).auc for column in images.T]
    importances = [
        FeatureImportance(name=name, auc_loss=float(loss), auc_alone=max(auc, 1 - auc))
        for name, loss, auc in zip((*FEATURES, _SENSOR), np.mean(losses, axis=0), alone, strict=True)
    ]
    return Classification(
        roc=RocArea(
            auc=float(np.mean([area.auc for area in areas])),
            error=float(np.sqrt(np.mean([area.error**2 for area in areas]) * (1 / N_FOLDS + 1 / (N_FOLDS - 1)))),
        ),
        importances=tuple(sorted(importances, key=lambda each: -each.auc_loss)),
    )


def measure_roc_area(scores: NDArray[np.float64], is_ours: NDArray[np.bool_], events: NDArray[np.int64]) -> RocArea:
    """Compute the area under the ROC curve, and its standard error if images of an event are correlated.

    The area is the probability that an image of our sample has a larger score than one of the other; equal scores count
    half. The component of an image is that probability with the image fixed. The variance is G / (G - 1) times the sum
    over the G events of squares: of the sum, over the images of an event, of their components' deviations from the
    area, each divided by the number of images of its sample.

    Parameters
    ----------
    scores : ndarray of float64, shape (images,)
    is_ours : ndarray of bool, shape (images,)
        Both values occur.
    events : ndarray of int64, shape (images,)
        Numbers of the events.

    Examples
    --------
    >>> import numpy as np
    >>> measure_roc_area(np.array([0.1, 0.4, 0.3, 0.8]), np.array([False, False, True, True]), np.arange(4)).auc
    0.75
    """
    n_ours, n_theirs = int(is_ours.sum()), int((~is_ours).sum())
    ranks = _rank(scores)
    # Ranks among all, less ranks within the own sample: the number of images of the other sample that are below.
    below = np.empty(len(scores))
    for chosen in (is_ours, ~is_ours):
        below[chosen] = ranks[chosen] - _rank(scores[chosen])
    components = np.where(is_ours, below / n_theirs, 1 - below / n_ours)
    auc = float(components[is_ours].mean())
    _numbers, event = np.unique(events, return_inverse=True)
    sums = np.bincount(event, weights=(components - auc) / np.where(is_ours, n_ours, n_theirs))
    return RocArea(auc=auc, error=float(np.sqrt(len(sums) / (len(sums) - 1) * (sums**2).sum())))


def _rank(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank values from 1 on; equal ones have the mean of their ranks."""
    _values, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[place])


def _assign_folds(ours: NDArray[np.int64], theirs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Assign a fold to each event of both samples, at random, the same to events of one number.

    Numbers that one sample has alone and those of both are dealt out one group after the other. So a sample with ten
    numbers has one in each fold: at least five of them are in one group.
    """
    numbers, place = np.unique(np.concatenate([ours, theirs]), return_inverse=True)
    group = np.isin(numbers, ours) + 2 * np.isin(numbers, theirs)
    order = np.lexsort((np.random.default_rng(_SEED).random(len(numbers)), group))
    folds = np.empty(len(numbers), dtype=np.int64)
    folds[order] = np.arange(len(numbers)) % N_FOLDS
    return np.asarray(folds[place])


def _flatten(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Make a row of each image, and append the index of its sensor."""
    n_events, n_sensors, _n_features = features.shape
    index = np.broadcast_to(np.arange(n_sensors, dtype=np.float32)[:, None], (n_events, n_sensors, 1))
    return np.concatenate([features, index], axis=2).reshape(n_events * n_sensors, -1)
