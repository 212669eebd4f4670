"""Comparison of the background with references: marginals, clusters, seams and repetitions."""

from __future__ import annotations
