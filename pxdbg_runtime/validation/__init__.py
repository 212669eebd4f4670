"""Background against a reference: marginals, clusters, seams and repetitions, on a page that stands by itself."""

from __future__ import annotations
