"""The paragraph, from image to answer, over a small gallery of drawn pictures; and the verb ``localize``."""

from __future__ import annotations

import gc
import json
import math
import re
import shutil
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from safetensors.torch import save_file

from geowarp_ros import localizer as localizer_module
from geowarp_ros.cameras import Camera
from geowarp_ros.cli import main
from geowarp_ros.config import LocalizerConfig, PoseConfig, SessionConfig, parse_config
from geowarp_ros.errors import CameraError, GalleryError, ImageError, ModelError
from geowarp_ros.evaluation.asking import Question, way
from geowarp_ros.evaluation.calibration import collect, collect_samples
from geowarp_ros.evaluation.plain import plain_pictures
from geowarp_ros.gallery.alignment.aligned import Alignment, Photograph
from geowarp_ros.gallery.making.build import build_gallery
from geowarp_ros.gallery.making.upgrade import upgrade_gallery
from geowarp_ros.gallery.manifest import CALIBRATION
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.integrity.calibration import fit_calibration, save_calibration, settings_of
from geowarp_ros.integrity.texture import texture
from geowarp_ros.keypoints.detector import Keypoints
from geowarp_ros.keypoints.matching import Matched
from geowarp_ros.localizer import Localizer
from geowarp_ros.model.checkpoints import save_model
from geowarp_ros.model.describer import Describer, open_describer
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from geowarp_ros.model.learned import keypoints_of
from geowarp_ros.motion.session import Session
from geowarp_ros.readers import Source, SourceImage
from geowarp_ros.readers.camera_files import write_camera
from geowarp_ros.types import Answer, Frame, Gravity, Header, Image, Near, NoFix, Place, Pose, PoseMethod
from test.untrained import state_of, store

PLACES = 12
SPACING_M = 40.0
TOWN = LocalFrame(45.0, 7.0)

ALIGNED = Alignment(
    (45.0, 7.0, 0.0), np.zeros(PLACES, bool), np.zeros((PLACES, 3)), np.full((PLACES, 3, 3), np.nan),
    np.ones(PLACES), np.full(PLACES, np.nan), np.full(PLACES, -1, np.int32), np.zeros((0, 3)),
    np.zeros(PLACES + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int32),
)  # fmt: skip
"""Of photographs of which none is tied to others."""


def picture(seed: int) -> Image:
    """Random blocks: unlike every other seed's."""
    blocks = np.random.default_rng(seed).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(blocks, (96, 72), interpolation=cv2.INTER_CUBIC), np.uint8)


def source_image(index: int, read: Callable[[], Image]) -> SourceImage:
    latitude, longitude, _ = TOWN.to_geodetic(np.array([[index * SPACING_M, 0.0, 0.0]]))
    return SourceImage(Place(f"{index:02}.png", float(latitude[0]), float(longitude[0])), read, None)


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_model(GeoWarp(ModelConfig(encoder="resnet18", aggregation="gem")), path)
    return path


@pytest.fixture(scope="module")
def gallery_path(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Path:
    from geowarp_ros.model.checkpoints import load_model

    source = Source(tuple(source_image(i, partial(picture, i)) for i in range(PLACES)), (), "drawn")
    output = tmp_path_factory.mktemp("galleries") / "gallery"
    build_gallery(source, Describer(load_model(model_path), "cpu"), output)
    return output


class Late:
    """A deadline with time for all but some rungs, and for so many candidates."""

    def __init__(self, *rungs: PoseMethod, candidates: int | None = None) -> None:
        self.rungs, self.candidates = rungs, candidates

    def __call__(self) -> int | None:
        return self.candidates

    def affords(self, rung: PoseMethod, /) -> bool:
        return rung not in self.rungs


def config(model_path: Path, **sections: object) -> LocalizerConfig:
    return parse_config(LocalizerConfig, {"model": str(model_path), "device": "cpu", **sections})


@pytest.fixture(scope="module")
def localizer(gallery_path: Path, model_path: Path) -> Localizer:
    return Localizer.open(gallery_path, config(model_path))


def test_a_gallery_picture_is_found_where_it_was_taken(localizer: Localizer) -> None:
    noisy = np.clip(picture(7).astype(int) + np.random.default_rng(1).integers(-6, 7, (72, 96, 3)), 0, 255)
    answer = localizer.localize(Frame(noisy.astype(np.uint8), stamp_ns=42, frame_id="camera"))
    fix = answer.fix
    assert fix is not None
    east, north, _ = TOWN.to_enu(np.array([fix.latitude_deg]), np.array([fix.longitude_deg]), np.zeros(1))[0]
    assert (east, north) == pytest.approx((7 * SPACING_M, 0.0), abs=0.01)
    assert (answer.header.stamp_ns, answer.header.frame_id) == (42, "camera")
    assert answer.candidates[0].place.name == "07.png"
    assert set(answer.header.timing_ms) == {
        "texture", "describe", "search", "keypoints", "rerank", "verify", "position",
    }  # fmt: skip


def test_a_gallery_without_keypoints_detects_them_until_it_is_upgraded(
    gallery_path: Path, model_path: Path, tmp_path: Path
) -> None:
    shutil.copytree(gallery_path, tmp_path / "old")
    manifest = json.loads((tmp_path / "old/gallery.json").read_text())
    (tmp_path / "old/gallery.json").write_text(json.dumps(manifest | {"keypoints": None}))
    old = Localizer.open(tmp_path / "old", config(model_path), calibrated=False)
    answer = old.localize(picture(7))
    assert answer.candidates[0].place.name == "07.png" and (answer.candidates[0].inliers or 0) > 50
    assert "keypoints" not in answer.header.timing_ms
    upgrade_gallery(tmp_path / "old")
    upgraded = Localizer.open(tmp_path / "old", config(model_path), calibrated=False)
    assert "keypoints" in upgraded.localize(picture(7)).header.timing_ms


def test_keypoints_are_not_detected_where_nobody_asks(localizer: Localizer, model_path: Path) -> None:
    unverified = localizer.reconfigured(config(model_path, position={"verify": "none"}))
    assert "keypoints" not in unverified.localize(picture(7)).header.timing_ms
    verified = unverified.reconfigured(config(model_path))
    assert "keypoints" in verified.localize(picture(7)).header.timing_ms


def test_other_weights_of_a_matcher_replace_those_loaded(localizer: Localizer, model_path: Path) -> None:
    same = localizer.reconfigured(localizer.config)
    assert (same.reranker, same.verifier) == (localizer.reranker, localizer.verifier)
    other = localizer.reconfigured(localizer.config.model_copy(update={"matcher_weights": "other.pt"}))
    assert other.reranker is not localizer.reranker and other.verifier is not localizer.verifier


@pytest.mark.parametrize(("mode", "unit"), [("exact", "mean cosine"), ("fast", "correlation")])
def test_reranking_orders_by_score_and_keeps_the_rest(
    mode: str, unit: str, localizer: Localizer, model_path: Path
) -> None:
    answer = localizer.reconfigured(config(model_path, rerank={"mode": mode})).localize(Frame(picture(3)))
    scores = [c.score for c in answer.candidates[:5]]
    assert all(score is not None for score in scores)
    assert scores == sorted(scores, key=lambda s: -(s or 0.0))
    assert all(c.score is None for c in answer.candidates[5:])
    assert len(answer.candidates) == PLACES
    tail = [c.distance for c in answer.candidates[5:]]
    assert tail == sorted(tail)
    assert answer.to_dict()["score_unit"] == unit and answer.header.reranked == 5
    assert all(-1.0 <= (score or 0.0) <= (1.0 if mode == "exact" else 1.1) for score in scores)
    if mode == "exact":  # an untrained regression leaves both images as they are
        assert answer.candidates[0].score == pytest.approx(answer.candidates[0].score_unwarped, rel=1e-3)


def test_in_an_aligned_gallery_the_pose_is_estimated_and_judged(
    gallery_path: Path, model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, Camera | None, int]] = []
    ups: list[Gravity | None] = []
    found = Pose(
        "points", np.array([30.0, 40.0, 1.5]), np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
        np.diag([0.03**2] * 3 + [1e-6] * 3), 60, 8.0, 3, 0.5, 0.6, 3.0, 40.0,
    )  # fmt: skip

    def estimate(
        query: Keypoints,
        camera: Camera | None,
        photographs: list[Photograph],
        config: PoseConfig,
        *,
        gravity: Gravity | None,
        affords: Callable[[PoseMethod], bool],
        compared: object,
    ) -> Pose | None:
        asked.append((len(query), camera, len(photographs)))
        ups.append(gravity)
        return found if camera and affords("points") and affords("anchors") else None

    monkeypatch.setattr(localizer_module, "estimate_pose", estimate)
    gallery = Gallery.open(gallery_path)
    gallery.__dict__["alignment"] = ALIGNED
    aligned = Localizer.of(open_describer(config(model_path)), gallery, config(model_path), calibrated=False)

    camera = Camera(192, 144, 200.0, 200.0, 95.5, 71.5, source="lab.yaml")
    answer = aligned.localize(Frame(picture(7), camera=camera))
    fix = answer.fix
    assert fix is not None and answer.pose is found
    assert TOWN.to_enu(fix.latitude_deg, fix.longitude_deg, fix.altitude_m) == pytest.approx(
        [30, 40, 1.5], abs=1e-3
    )
    assert fix.method == "points" and min(fix.heading_deg, 360 - fix.heading_deg) < 0.01
    assert answer.header.camera == "lab.yaml" and "pose" in answer.header.timing_ms
    # the camera is that of the image at working resolution; photographs without a camera are passed over
    (points, scaled, photographs) = asked[0]
    assert points > 0 and photographs == 0
    assert scaled is not None and (scaled.width_px, scaled.fx) == (96, 100.0)

    # what there is no time for is named, and has no duration
    assert answer.header.dropped == () and "anchors" in answer.header.timing_ms
    late = aligned.localize(Frame(picture(7), camera=camera), deadline=Late("anchors"))
    assert late.pose is None and late.to_dict()["dropped"] == ["anchors"]
    assert "pose" in late.header.timing_ms and "anchors" not in late.header.timing_ms
    later = aligned.localize(Frame(picture(7), camera=camera), deadline=Late("points", "anchors", candidates=1))
    assert later.header.dropped == ("points", "candidates") and later.candidates[0].inliers is not None

    up = Gravity(np.array([0.0, -1.0, 0.0]), 0.01)
    aligned.localize(Frame(picture(7), camera=camera, gravity=up))
    assert ups[-1] is up and set(map(type, ups[:-1])) == {type(None)}
    unknown = aligned.localize(Frame(picture(7)))
    assert unknown.fix is not None and (unknown.fix.method, unknown.header.camera) == ("cluster", "")
    assert unknown.candidates[0].place.name == "07.png" and asked[-1][1] is None


def test_a_picture_of_nowhere_is_no_fix(localizer: Localizer) -> None:
    strict = localizer.reconfigured(
        localizer.config.model_copy(
            update={"position": localizer.config.position.model_copy(update={"min_confidence": 0.9})}
        )
    )
    answer = strict.localize(Frame(picture(99)))
    assert isinstance(answer.result, NoFix)
    assert answer.result.reason in ("disagreement", "low_confidence")
    assert answer.candidates


def test_an_image_without_texture_is_refused_before_the_network_runs(localizer: Localizer) -> None:
    answer = localizer.localize(Frame(np.full((72, 96, 3), 127, np.uint8), stamp_ns=7))
    assert isinstance(answer.result, NoFix)
    assert (answer.result.reason, answer.header.stamp_ns, answer.candidates) == ("no_texture", 7, ())
    assert set(answer.header.timing_ms) == {"texture"}
    assert "0.8" in answer.result.detail


def test_another_models_gallery_is_refused(gallery_path: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    other = tmp_path / "other.safetensors"
    save_model(GeoWarp(ModelConfig(encoder="resnet18", aggregation="gem")), other)
    command = rf"was made by model .*\(geowarp gallery upgrade {gallery_path} --model {other}\)"
    with pytest.raises(GalleryError, match=command):
        Localizer.open(gallery_path, config(other))


def test_a_gallery_finds_the_model_that_made_it(
    model_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "here"
    (home / "runs").mkdir(parents=True)
    shutil.copy(model_path, home / "runs" / "m.safetensors")
    source = Source(tuple(source_image(i, partial(picture, i)) for i in range(4)), (), "drawn")
    own = LocalizerConfig(model=str(home / "runs" / "m.safetensors"), device="cpu")
    build_gallery(source, open_describer(own), home / "g")
    noted = json.loads((home / "g" / "gallery.json").read_text())["model"]["file"]
    assert noted == "../runs/m.safetensors"
    there = home.rename(tmp_path / "there")  # both are moved together
    opened = Localizer.open(there / "g", LocalizerConfig(device="cpu"))
    assert opened.describer.fingerprint == opened.gallery.model_fingerprint
    cv2.imwrite(str(tmp_path / "q.png"), picture(2)[..., ::-1])
    assert main(["localize", f"{tmp_path}/q.png", "--gallery", f"{there}/g", "--device", "cpu"]) == 0
    capsys.readouterr()

    fingerprint, file = opened.gallery.model_fingerprint, there / "runs" / "m.safetensors"
    upgrade = rf"geowarp gallery upgrade {there}/g --model default"
    with pytest.raises(GalleryError, match=rf"was made by model {fingerprint}.*, the model given is .*upgrade"):
        Localizer.open(there / "g", LocalizerConfig(model="default", device="cpu"))  # named, so not looked for
    torch.manual_seed(2)
    save_model(GeoWarp(ModelConfig(encoder="resnet18", aggregation="gem")), file)  # trained on
    with pytest.raises(
        GalleryError, match=rf"made by model {fingerprint}.*{file}, is model [0-9a-f]+ now.*{upgrade}"
    ):
        Localizer.open(there / "g", LocalizerConfig(device="cpu"))
    file.unlink()
    with pytest.raises(GalleryError, match=rf"made by model {fingerprint}.*{file}, is not there.*{upgrade}"):
        Localizer.open(there / "g", LocalizerConfig(device="cpu"))


def test_a_gallery_of_an_earlier_version_is_taken_for_one_of_the_model_that_ships(
    gallery_path: Path, tmp_path: Path
) -> None:
    shutil.copytree(gallery_path, tmp_path / "g")
    manifest = json.loads((tmp_path / "g" / "gallery.json").read_text())
    assert manifest["model"].pop("file")
    (tmp_path / "g" / "gallery.json").write_text(json.dumps(manifest))
    with pytest.raises(GalleryError, match="its file was not noted, and the model that ships is another one"):
        Localizer.open(tmp_path / "g", LocalizerConfig(device="cpu"))


def test_a_wrong_array_is_an_image_error(localizer: Localizer) -> None:
    with pytest.raises(ImageError):
        localizer.localize(Frame(np.zeros((72, 96), np.uint8)))


def test_to_dict_has_the_keys_that_programs_read(localizer: Localizer) -> None:
    fix = localizer.localize(picture(2)).to_dict("a.png")
    assert fix["status"] == "fix" and fix["reason"] is None and fix["image"] == "a.png"
    assert len(fix["covariance"]) == 9
    assert set(fix["candidates"][0]) == {"path", "latitude", "longitude", "altitude", "distance", "score"}
    lost = Answer(Header(), NoFix("empty_gallery")).to_dict()
    assert lost["status"] == "no_fix" and lost["reason"] == "empty_gallery" and lost["latitude"] is None
    json.dumps([fix, lost], allow_nan=False)


def test_calibration_is_used_where_it_applies_and_said_where_not(
    localizer: Localizer, gallery_path: Path, model_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    items = [source_image(i, partial(picture, i)) for i in range(PLACES)]
    collected = collect_samples(localizer, items, correct_within_m=5.0)
    # each image with its place, each without it, and the plain ones that have texture
    plain = [texture(image) >= 0.8 for _, image in plain_pictures(240, 320)]
    assert 5 <= sum(plain) < len(plain)
    assert (len(collected.samples), collected.textureless) == (2 * PLACES + sum(plain), len(plain) - sum(plain))
    errors = [sample.error_m for sample in collected.samples]
    assert max(errors[:PLACES]) < 0.01
    assert min(errors[PLACES : 2 * PLACES]) >= SPACING_M - 0.01
    assert all(math.isinf(error) for error in errors[2 * PLACES :])

    calibration, summary = fit_calibration(collected.samples)
    assert summary["auc"] > 0.9
    measured_with = settings_of(
        localizer.config, localizer.describer.fingerprint, localizer.gallery.keypoint_config
    )
    save_calibration(gallery_path / CALIBRATION, calibration.model_copy(update={"measured_with": measured_with}))
    try:
        calibrated = Localizer.open(gallery_path, localizer.config)
        assert calibrated.calibration is not None
        sure = calibrated.localize(Frame(picture(5)))
        elsewhere = calibrated.localize(Frame(picture(99)))
        assert sure.confidence > 0.5 > elsewhere.confidence
        assert isinstance(elsewhere.result, NoFix)
        with caplog.at_level("WARNING"):
            other = Localizer.open(gallery_path, config(model_path, rerank={"method": "none"}))
        assert other.calibration is None
        assert "rerank.method = 'geowarp' (now 'none')" in caplog.text
        shutil.copytree(gallery_path, tmp_path / "upgraded")
        save_model(GeoWarp(ModelConfig(encoder="mobilenet_v2")), tmp_path / "other.safetensors")
        new = config(tmp_path / "other.safetensors")
        upgrade_gallery(tmp_path / "upgraded", describer=open_describer(new))
        with caplog.at_level("WARNING"):
            assert Localizer.open(tmp_path / "upgraded", new).calibration is None
        assert f"is not used: it was measured with model = '{localizer.describer.fingerprint}'" in caplog.text
    finally:
        (gallery_path / CALIBRATION).unlink()


def test_an_unreadable_image_is_counted_by_the_calibration(localizer: Localizer) -> None:
    def broken() -> Image:
        raise ImageError("broken.png: is truncated")

    items = [source_image(0, lambda: picture(0)), source_image(1, broken)]
    (answers,) = collect(localizer, [Question.of(item) for item in items], (way(localizer),), 5.0)
    assert (len(answers.samples), answers.unreadable) == (1, ("01.png",))


def test_tracking_holds_a_jump_back(localizer: Localizer) -> None:
    session = Session(parse_config(SessionConfig, {"tracking": {"method": "hmm"}}))
    for second in range(3):
        assert session.localize(localizer, Frame(picture(0), second * 10**9)).fix
    jumped = session.localize(localizer, Frame(picture(9), 3 * 10**9))
    assert isinstance(jumped.result, NoFix) and jumped.result.reason == "jump"
    assert jumped.candidates and jumped.evidence is not None
    session.reset()
    assert session.localize(localizer, Frame(picture(9), 4 * 10**9)).fix


def circle(index: float, radius_m: float) -> Near:
    latitude, longitude, _ = TOWN.to_geodetic(np.array([index * SPACING_M, 0.0, 0.0]))
    return Near(float(latitude), float(longitude), radius_m)


def test_a_prior_limits_the_search_to_its_circle(localizer: Localizer) -> None:
    near = circle(7, 2.5 * SPACING_M)
    answer = localizer.localize(Frame(picture(7)), near)
    assert answer.fix
    assert answer.header.near == near
    assert {c.place.name for c in answer.candidates} == {"05.png", "06.png", "07.png", "08.png", "09.png"}
    assert answer.to_dict()["near"]["radius_m"] == 2.5 * SPACING_M


@pytest.mark.parametrize(
    "near",
    [
        pytest.param(circle(50, 30.0), id="without a place"),
        pytest.param(circle(1, 0.5 * SPACING_M), id="with one place, of which any image would be"),
    ],
)
def test_where_a_circle_convinces_nobody_the_whole_gallery_is_searched(localizer: Localizer, near: Near) -> None:
    answer = localizer.localize(Frame(picture(7)), near)
    assert answer.header.near is None
    assert [c.index for c in answer.candidates] == [
        c.index for c in localizer.localize(Frame(picture(7))).candidates
    ]
    assert answer.to_dict()["near"] is None


def test_late_images_have_fewer_candidates_re_ranked(localizer: Localizer) -> None:
    in_full = localizer.localize(picture(3))
    late = localizer.localize(picture(3), deadline=Late(candidates=1))
    assert sum(c.score is not None for c in in_full.candidates) == in_full.header.reranked == 5
    assert sum(c.score is not None for c in late.candidates) == late.header.reranked == 1
    assert {c.index for c in late.candidates} == {c.index for c in in_full.candidates}
    assert (in_full.header.dropped, late.header.dropped) == ((), ("candidates",))
    ample = localizer.localize(picture(3), deadline=Late(candidates=99)).header
    assert ample.reranked == 5 and not ample.dropped


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_localizer_that_nobody_holds_closes_its_files_at_once(gallery_path: Path, model_path: Path) -> None:
    gc.collect()
    gc.disable()  # or it might hide a cycle, as it did between two collections of a busy node
    try:
        before = open_files()
        localizer = Localizer.open(gallery_path, LocalizerConfig(model=str(model_path), device="cpu"))
        localizer.localize(picture(3))
        gallery = weakref.ref(localizer.gallery)
        assert open_files() > before
        del localizer
        assert gallery() is None and open_files() == before
    finally:
        gc.enable()


def test_what_a_change_leaves_alone_is_kept(localizer: Localizer) -> None:
    def changed(**sections: object) -> Localizer:
        return localizer.reconfigured(parse_config(LocalizerConfig, {**localizer.config.model_dump(), **sections}))

    position = localizer.config.position.model_dump()
    stricter = changed(position={**position, "min_confidence": 0.9})
    assert stricter.reranker is localizer.reranker and stricter.verifier is localizer.verifier
    fewer = changed(position={**position, "verify_candidates": 3})
    assert fewer.reranker is localizer.reranker and fewer.verifier is not localizer.verifier
    none = changed(rerank={"method": "none"})
    assert none.reranker is not localizer.reranker and none.verifier is localizer.verifier


def test_weights_in_use_may_be_removed_or_replaced(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change that asks for no other network keeps the one that there is, for the pose, too."""
    monkeypatch.setenv("GEOWARP_WEIGHTS", str(store(tmp_path, "xfeat", "xfeat-lighterglue")))
    source = Source(tuple(source_image(i, partial(picture, i)) for i in range(2)), (), "drawn")
    wanted = config(model_path, position={"verify": "xfeat-lighterglue"})
    describer = open_describer(wanted)
    build_gallery(source, describer, tmp_path / "gallery", keypoints=keypoints_of("xfeat"))
    gallery = Gallery.open(tmp_path / "gallery")
    gallery.__dict__["alignment"] = ALIGNED
    localizer = Localizer.of(describer, gallery, wanted, calibrated=False)
    stricter = wanted.model_copy(update={"position": wanted.position.model_copy(update={"min_confidence": 0.9})})
    save_file(state_of("xfeat-lighterglue", 1), tmp_path / "xfeat-lighterglue.safetensors")
    assert localizer.reconfigured(stricter)._pairing is localizer._pairing
    (tmp_path / "xfeat-lighterglue.safetensors").unlink()
    assert localizer.reconfigured(stricter)._pairing is localizer._pairing
    with pytest.raises(ModelError, match="matcher_weights = '': xfeat-lighterglue needs weights"):
        Localizer.of(describer, gallery, stricter)
    other = wanted.model_copy(update={"matcher_weights": str(tmp_path / "other.safetensors")})
    with pytest.raises(ModelError, match=r"other\.safetensors: does not exist"):
        localizer.reconfigured(other)


def test_who_keeps_an_answer_keeps_no_photograph(localizer: Localizer) -> None:
    query = localizer.describer(picture(7))
    place = np.zeros(1)  # stands for a photograph that a network matched
    query.matched(place, "network", lambda: Matched(np.zeros((0, 2), np.int64), np.zeros(0, np.int8)))
    ranked = localizer.rank(query)
    kept = localizer._pair(query, ranked)
    assert kept is not None and kept().matches >= 0
    gone = weakref.ref(place)
    del query, ranked, place
    gc.collect()
    assert gone() is None


def test_an_image_may_be_a_path_a_pil_image_or_an_array(localizer: Localizer, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), picture(4)[:, :, ::-1])
    expected = localizer.localize(Frame(picture(4))).to_dict()
    for image in (path, str(path), Pillow.open(path), picture(4)):
        assert {**localizer.localize(image).to_dict(), "timing_ms": 0} == {**expected, "timing_ms": 0}
    neither: Any = b"bytes"
    path.write_bytes(path.read_bytes()[:-400])
    for broken in (Pillow.open(path), Pillow.new("I", (0, 0)), "a\0b"):
        with pytest.raises(ImageError):
            localizer.localize(broken)
    with pytest.raises(ImageError, match="expected a path, a PIL image or an RGB array"):
        localizer.localize(neither)


def test_a_paths_camera_is_that_of_its_folder(localizer: Localizer, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), picture(4)[:, :, ::-1])
    height, width = picture(4).shape[:2]
    write_camera(tmp_path / "camera.yaml", Camera(2 * width, 2 * height, 80, 80, width, height))
    assert localizer.localize(path).candidates
    write_camera(tmp_path / "camera.yaml", Camera(width, 2 * height, 80, 80, width / 2, height))
    with pytest.raises(CameraError, match=r"camera\.yaml: is of images of .* another aspect ratio"):
        localizer.localize(str(path))
    assert localizer.localize(picture(4)).candidates


def test_an_answer_reads_as_one_line_and_shows_its_pair(localizer: Localizer) -> None:
    answer = localizer.localize(picture(4))
    assert re.fullmatch(r"Fix 45\.00000, 7\.0\d+ ± \d+(\.\d)? m, confidence [01]\.\d{3}, 04\.png", repr(answer))
    shown = answer._repr_html_()
    assert repr(answer).split(",")[0] in shown and 'src="data:image/jpeg;base64,' in shown
    refused = localizer.localize(np.full((72, 96, 3), 127, np.uint8))
    assert re.fullmatch(r"NoFix no_texture: texture 0.00 grey levels, at least 0.8 wanted", repr(refused))
    assert "<img" not in refused._repr_html_()


@pytest.mark.parametrize("verify", ["sift", "orb", "none"])
def test_the_pair_has_the_keypoints_that_were_counted(verify: str, gallery_path: Path, model_path: Path) -> None:
    localizer = Localizer.open(gallery_path, config(model_path, position={"verify": verify}), calibrated=False)
    answer = localizer.localize(picture(4))
    assert answer.pair is not None
    pair, best = answer.pair(), answer.candidates[0]
    assert pair.query.shape == pair.candidate.shape == (72, 96, 3)
    assert len(pair.points_q) == len(pair.points_p) == (best.inliers or 0) <= pair.matches
    assert pair.matches > 50 if verify == "sift" else (pair.matches > 0) == (verify == "orb")
    # the query is the photograph itself: what agrees lies at the same place in both
    np.testing.assert_allclose(pair.points_q, pair.points_p, atol=3 * 2 / 72)
    assert np.abs(pair.points_q).max(initial=0) <= 1


def test_ten_lines_are_the_whole_public_face(gallery_path: Path, model_path: Path, tmp_path: Path) -> None:
    import geowarp_ros as gw

    assert set(gw.__all__) <= set(dir(gw))
    answer = gw.Localizer.open(gallery_path, config(model_path)).localize(gw.Frame(picture(4)))
    assert isinstance(answer, gw.Answer) and isinstance(answer.result, gw.Fix)
    assert len(gw.Gallery.open(gallery_path)) == PLACES
    with pytest.raises(AttributeError, match="no attribute 'Localiser'"):
        _ = gw.Localiser


def test_localize_prints_one_json_object_a_line_and_goes_on_after_a_bad_image(
    gallery_path: Path, model_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    cv2.imwrite(str(good), picture(4)[:, :, ::-1])
    bad.write_bytes(b"")
    words = ["localize", str(bad), str(good), "--gallery", str(gallery_path), "--model", str(model_path), "--json"]
    assert main(words) == 1
    printed = capsys.readouterr()
    (line,) = printed.out.splitlines()
    answer = json.loads(line)
    assert answer["image"] == str(good)
    assert answer["candidates"][0]["path"] == "04.png"
    assert "bad.png" in printed.err and len(printed.err.splitlines()) == 1


def test_localize_refuses_what_is_no_gallery(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "a.png"
    cv2.imwrite(str(image), picture(0))
    assert main(["localize", str(image), "--gallery", str(tmp_path / "absent")]) == 1
    assert "absent" in capsys.readouterr().err
