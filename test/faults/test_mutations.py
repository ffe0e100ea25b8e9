"""A few hundred damaged inputs of every kind, the same ones each time: taken, or refused in one line."""

from __future__ import annotations

import pytest

from test.faults.mutations import Subject, examine, subjects

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # of damaged EXIF, and goes on

NAMES = (
    "JPEG and PNG images", "TIFF, WebP, BMP, PPM and JPEG 2000 images", "image messages",
    "compressed image messages",
    "CSVs of positions", "images with EXIF GPS", "bags, MCAP", "bags, SQLite", "bags, ROS 1",
    "camera calibrations", "gallery manifests",
    "gallery calibrations", "galleries' arrays, tables and images", "what a killed build left", "model headers",
    "files of torch.save",
)  # fmt: skip


@pytest.fixture(scope="module")
def by_name(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Subject]:
    return {subject.name: subject for subject in subjects(tmp_path_factory.mktemp("subjects"))}


def test_every_subject_is_examined(by_name: dict[str, Subject]) -> None:
    assert tuple(by_name) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_damage_is_taken_or_refused_in_one_line(name: str, by_name: dict[str, Subject]) -> None:
    outcomes = examine(by_name[name], 300)
    assert outcomes.total() >= 5
    if name not in ("images with EXIF GPS", "what a killed build left"):  # which make the best of it
        assert outcomes["refused"] > 0
