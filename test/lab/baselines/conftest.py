"""The gallery in memory and the small network of the re-rankers' tests."""

from __future__ import annotations

from test.rerank.conftest import describer, gallery, model

__all__ = ["describer", "gallery", "model"]
