"""The small gallery of the gallery's own tests."""

from test.gallery.conftest import describer, gallery, make_source, source, views

__all__ = ["describer", "gallery", "make_source", "source", "views"]
