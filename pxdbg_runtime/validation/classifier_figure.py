"""The picture of a classifier test: the features that tell samples from a reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from pxdbg_runtime.validation.figure_style import create_figure, escape_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pxdbg_runtime.validation.classifier import Classification
    from pxdbg_runtime.validation.figure_style import Style

__all__ = ["ClassifiedSample", "draw_importances"]

_SHOWN_FEATURES: Final = 10
_BARS_HEIGHT: Final = 0.8


class ClassifiedSample(NamedTuple):
    """A sample with its classification against the reference."""

    name: str
    classification: Classification
    style: Style


def draw_importances(samples: list[ClassifiedSample]) -> Figure:
    """Draw the two numbers of each of the most important features, of one sample or more.

    Shown are the features with the largest values of any sample, half of them by the loss of AUC and the rest by
    their AUC alone, which orders them.
    """
    losses = [{each.name: each.auc_loss for each in sample.classification.importances} for sample in samples]
    alone = [{each.name: each.auc_alone for each in sample.classification.importances} for sample in samples]
    by_loss, by_alone = (
        sorted(values[0], key=lambda name: -max(each[name] for each in values)) for values in (losses, alone)
    )
    shown = by_loss[: _SHOWN_FEATURES // 2]
    shown += [name for name in by_alone if name not in shown][: _SHOWN_FEATURES - len(shown)]
    shown.sort(key=by_alone.index)
    places = -np.arange(len(shown), dtype=float)
    height = _BARS_HEIGHT / len(samples)

    figure = create_figure(1.4 + (0.26 + 0.06 * len(samples)) * len(shown))
    left, right = figure.subplots(1, 2, sharey=True)
    for number, sample in enumerate(samples):
        at = places + _BARS_HEIGHT / 2 - (number + 0.5) * height
        left.barh(at, [alone[number][name] - 0.5 for name in shown], height, left=0.5, color=sample.style.color)
        label = f"{escape_name(sample.name)}: AUC {sample.classification.roc.auc:.3f}"
        right.barh(at, [losses[number][name] for name in shown], height, color=sample.style.color, label=label)
    left.set_yticks(places, shown, fontsize="small")
    left.set(xlabel="AUC of the feature alone", xlim=(0.5, 1))
    right.set(xlabel="loss of AUC if the feature is exchanged")
    right.axvline(0, color="black", linewidth=0.5)
    figure.legend(*right.get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    return figure
