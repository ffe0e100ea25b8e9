"""Calibration files: round trip, where they are looked for, EXIF by hand values, and what is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import ExifTags, Image

from geowarp_ros.cameras import Camera
from geowarp_ros.errors import CameraError
from geowarp_ros.readers import read_source
from geowarp_ros.readers import source as source_module
from geowarp_ros.readers.camera_files import camera_of_file, exif_camera, frame_of_file, read_camera, write_camera

TAG = ExifTags.Base
FISHEYE = Camera(640, 480, 301.25, 300.5, 319.125, 1 / 3, "equidistant", (1e-5, -2e-7, 0.1, 0.0))

# as camera_calibration writes it
OST = """\
image_width: 640
image_height: 480
camera_name: narrow_stereo
camera_matrix:
  rows: 3
  cols: 3
  data: [ 438.78356,    0.     ,  305.59335,
            0.     ,  437.30233,  243.73855,
            0.     ,    0.     ,    1.     ]
distortion_model: plumb_bob
distortion_coefficients:
  rows: 1
  cols: 5
  data: [-0.361976, 1e-05, -0.001062, 0.000205, 0.000000]
rectification_matrix:
  rows: 3
  cols: 3
  data: [1, 0, 0, 0, 1, 0, 0, 0, 1]
projection_matrix:
  rows: 3
  cols: 4
  data: [393.653800, 0.000000, 322.797939, 0.000000, 0.000000, 393.653800, 241.090902, 0.000000,
         0.000000, 0.000000, 1.000000, 0.000000]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "camera.yaml"
    path.write_text(OST)
    return path


def save(
    path: Path, size: tuple[int, int] = (60, 40), exif: dict[int, Any] | None = None, turned: int = 1
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = Image.Exif()
    header[TAG.Orientation] = turned
    header.get_ifd(ExifTags.IFD.Exif).update(exif or {})
    Image.fromarray(np.full((size[1], size[0], 3), 77, np.uint8)).save(path, exif=header)
    return path


def table(folder: Path, *names: str) -> Path:
    rows = ["filename,latitude,longitude,split", *(f"{name},45.0,9.0{i},gallery" for i, name in enumerate(names))]
    (folder / "positions.csv").write_text("\n".join(rows) + "\n")
    return folder


# ---- files


def test_a_file_of_camera_calibration(file: Path) -> None:
    found = read_camera(file)
    lens = (-0.361976, 1e-05, -0.001062, 0.000205, 0.0)
    assert found == Camera(
        640, 480, 438.78356, 437.30233, 305.59335, 243.73855, "plumb_bob", lens, source=str(file)
    )
    rectified = read_camera(file, rectified=True)
    assert rectified == Camera(640, 480, 393.6538, 393.6538, 322.797939, 241.090902, source=str(file))


def test_the_documents_example_is_a_calibration(file: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "cameras.md").read_text()
    file.write_text(text.split("```yaml\n")[1].split("```")[0])
    assert (read_camera(file).fx, read_camera(file, rectified=True).fx) == (438.8, 393.7)


@pytest.mark.parametrize(
    "camera",
    [
        FISHEYE,
        Camera(320, 240, 208.5, 208.5, 159.5, 119.5),
        Camera(64, 48, 50, 51, 31, 23, "plumb_bob", (0.1, 0.2, 0.3, 0.4)),
        Camera(64, 48, 50, 51, 31, 23, "rational_polynomial", (0.1, 0, 0, 0, 0, 0, 0, 1e-300)),
        Camera(64, 48, 50, 51, 31, 23, "equidistant"),
    ],
)
def test_what_is_written_is_read(camera: Camera, tmp_path: Path) -> None:
    path = tmp_path / "camera.yaml"
    write_camera(path, camera, "front")
    found = read_camera(path)
    assert found == Camera(**{**{n: getattr(camera, n) for n in Camera.__slots__}, "source": str(path)})
    written = yaml.safe_load(path.read_text())
    assert written["camera_name"] == "front" and written["rectification_matrix"]["data"] == list(np.eye(3).flat)
    assert all(len(m["data"]) == m["rows"] * m["cols"] for m in written.values() if isinstance(m, dict))
    assert np.abs(read_camera(path, rectified=True).matrix - camera.matrix).max() == 0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("image_width", "image_widht", "no 'image_width' .did you mean 'image_widht'"),
        ("640", "0", "image_width = 0, expected a number of pixels"),
        ("480", "tall", "image_height = 'tall'"),
        ("camera_matrix", "matrix", "no 'camera_matrix'"),
        ("cols: 3\n  data", "cols: 3\n  date", "no 'data' in camera_matrix .did you mean 'date'"),
        ("438.78356", "0", "fx is 0 px, expected a focal length above 0"),
        ("438.78356", ".nan", "camera_matrix holds nan"),
        ("438.78356,", "", "camera_matrix has 8 numbers, expected 9"),
        ("305.59335", "1505", "principal point 1505.*another camera"),
        ("305.59335", "wide", "camera_matrix = .*wide.*expected a list of numbers"),
        ("plumb_bob", "plumbob", "distortion model 'plumbob' .did you mean 'plumb_bob'"),
        (
            "0.000205, 0.000000",
            "0.000205, 0.1, 0.2",
            "6 distortion coefficients for plumb_bob, expected 0 or 4 or 5",
        ),
        ("-0.361976, ", ".inf, ", "distortion_coefficients holds inf"),
        ("distortion_coefficients", "coefficients", "no 'distortion_coefficients'"),
        ("rows: 3", "rows: [", "is not YAML"),
    ],
)
def test_a_wrong_file_is_refused_by_name_and_key(file: Path, old: str, new: str, message: str) -> None:
    file.write_text(OST.replace(old, new, 1))
    with pytest.raises(CameraError, match=message) as refused:
        read_camera(file)
    assert str(refused.value).startswith(str(file)) and "\n" not in str(refused.value)


def test_fisheye_coefficients_are_four(file: Path) -> None:
    file.write_text(OST.replace("plumb_bob", "equidistant").replace("0.000205, 0.000000", "0.000205, 0.1"))
    with pytest.raises(CameraError, match="5 distortion coefficients for equidistant, expected 0 or 4"):
        read_camera(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("just a text", "is no ROS calibration file"),
        ("", "is no ROS calibration file"),
        ("%YAML:1.0\n---\nK: !!opencv-matrix\n   rows: 3\n", "is not YAML"),
        pytest.param("[" * 5000, "is not YAML", id="deep"),
        pytest.param("a: b\n" * 300_000, "is larger than 1,000,000 bytes", id="large"),
        ("/**:\n  ros__parameters: {image_width: 640}\n", "no 'image_width'"),
    ],
)
def test_other_files_are_no_calibration(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(CameraError, match=message) as refused:
        read_camera(file)
    assert str(refused.value).startswith(str(file)) and "\n" not in str(refused.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match=r"absent\.yaml: cannot be read"):
        read_camera(tmp_path / "absent.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CameraError, match=r"binary\.yaml: is not YAML"):
        read_camera(tmp_path / "binary.yaml")
    with pytest.raises(CameraError, match="cannot be written"):
        write_camera(tmp_path / "absent" / "camera.yaml", FISHEYE)


def test_without_a_lens_it_is_perfect_and_without_a_model_plumb_bob(file: Path) -> None:
    """camera_info_manager takes a file without distortion_model as plumb_bob."""
    file.write_text(OST.replace("distortion_model: plumb_bob\n", ""))
    assert read_camera(file).model == "plumb_bob" and read_camera(file).distortion[0] == -0.361976
    file.write_text("image_width: 64\nimage_height: 48\ncamera_matrix: {data: [50, 0, 31, 0, 50, 23, 0, 0, 1]}\n")
    assert read_camera(file) == Camera(64, 48, 50, 50, 31, 23, source=str(file))


# ---- where they are looked for


def focal(folder: Path, focal_px: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_camera(folder / "camera.yaml", Camera(60, 40, focal_px, focal_px, 29.5, 19.5))


def test_the_nearest_file_up_to_the_table_counts_before_exif(tmp_path: Path) -> None:
    root, names = tmp_path / "town", ("a/one.jpg", "a/deep/two.jpg", "b/three.jpg")
    for name in names:
        save(root / name, exif={TAG.FocalLengthIn35mmFilm: 36})
    source = read_source(table(root, *names))
    assert [image.camera for image in source.images] == [None] * 3  # nothing is opened
    by_exif = source.images[0].camera_at(60, 40)
    assert by_exif is not None and by_exif.source == "EXIF" and by_exif.fx == pytest.approx(60.0)  # 3:2, as film
    focal(tmp_path, 999)  # above the table: of something else
    focal(root, 50)
    focal(root / "a", 70)
    for images in (read_source(root).images, read_source(root / "positions.csv", split="gallery").images):
        cameras = [image.camera_at(120, 80) for image in images]
        assert [camera and camera.fx for camera in cameras] == [140, 140, 100]
        assert cameras[2] is not None and cameras[2].source == str(root / "camera.yaml")
    for name, expected in zip(names, (70, 70, 50), strict=True):
        found = camera_of_file(root / name)
        assert found is not None and found.fx == expected
    with pytest.raises(CameraError, match=r"camera\.yaml: is of images of 60×40 px, the image has 40×60"):
        source = read_source(root)
        source.images[0].camera_at(40, 60)


def test_a_folder_tree_up_to_its_root_and_a_file_up_to_the_top(tmp_path: Path) -> None:
    root = tmp_path / "set"
    save(root / "images" / "@500000@4982950@.jpg")
    focal(tmp_path, 999)
    (image,) = read_source(root, utm_zone="32N").images
    assert image.camera is None and image.camera_at(60, 40) is None
    assert image.path is not None
    above = camera_of_file(image.path)
    assert above is not None and above.fx == 999
    focal(root, 50)
    (image,) = read_source(root, utm_zone="32N").images
    assert image.camera is not None and image.camera.fx == 50


def test_images_outside_the_tables_folder_and_behind_links(tmp_path: Path) -> None:
    root, other = tmp_path / "set", tmp_path / "other"
    save(other / "x.jpg")
    save(other / "y.jpg")
    focal(root, 50)
    (root / "linked").symlink_to(other)
    outside, linked = read_source(table(root, "../other/x.jpg", "linked/y.jpg")).images
    assert outside.camera is None
    assert linked.camera is not None and linked.camera.fx == 50
    focal(other, 70)
    outside, linked = read_source(root).images
    assert outside.camera is not None and linked.camera is not None
    assert outside.camera.fx == linked.camera.fx == 70


def test_one_file_for_all_overrides_everything(tmp_path: Path, file: Path) -> None:
    root = tmp_path / "town"
    save(root / "a.jpg", (64, 48), {TAG.FocalLengthIn35mmFilm: 36})
    focal(root, 50)
    (image,) = read_source(table(root, "a.jpg"), camera=file).images
    found = image.camera_at(64, 48)
    assert found is not None and found.fx == pytest.approx(43.878356) and found.source == str(file)
    with pytest.raises(CameraError, match=r"absent\.yaml"):
        read_source(root, camera=tmp_path / "absent.yaml")


def test_a_broken_file_in_the_tree_is_refused_and_each_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{folder}/{i}.jpg" for folder in "ab" for i in range(20)]
    for name in names:
        save(tmp_path / name)
    focal(tmp_path, 50)
    reads: list[Path] = []
    from geowarp_ros.readers import camera_files

    def counting(path: Path) -> Camera:
        reads.append(path)
        return read_camera(path)

    monkeypatch.setattr(camera_files, "read_camera", counting)
    monkeypatch.setattr(source_module, "exif_camera", None)  # nobody opens an image
    assert len({image.camera for image in read_source(table(tmp_path, *names)).images}) == 1
    assert reads == [tmp_path / "camera.yaml"]
    (tmp_path / "b" / "camera.yaml").write_text("image_width: 60\n")
    with pytest.raises(CameraError, match=r"b/camera\.yaml: no 'image_height'"):
        read_source(tmp_path)


def test_a_frame_of_a_file_has_its_camera_at_its_size(tmp_path: Path, file: Path) -> None:
    path = save(tmp_path / "q" / "a.jpg", (32, 24))
    frame = frame_of_file(path)
    assert frame.camera is not None and (frame.camera.width_px, frame.camera.height_px) == (32, 24)
    assert frame.image.shape == (24, 32, 3) and frame.camera.fx == pytest.approx(438.78356 / 20)
    given = frame_of_file(path, Camera(64, 48, 10, 10, 31.5, 23.5)).camera
    assert given is not None and given.fx == 5
    with pytest.raises(CameraError, match="another aspect"):
        frame_of_file(save(tmp_path / "b.jpg", (32, 32)))
    file.unlink()
    assert frame_of_file(path).camera is None


# ---- EXIF


def test_equivalent_focal_length_is_by_the_diagonal(tmp_path: Path) -> None:
    """An image of 4:3 with 26 mm: 500 px of diagonal, 43.267 mm of film."""
    found = exif_camera(save(tmp_path / "a.jpg", (400, 300), {TAG.FocalLengthIn35mmFilm: 26}))
    assert found is not None
    assert found.fx == found.fy == pytest.approx(26 * 500 / 43.2666, rel=1e-5)
    assert (found.width_px, found.height_px, found.cx, found.cy) == (400, 300, 199.5, 149.5)
    assert (found.source, found.distortion) == ("EXIF", ())


def test_focal_length_and_the_sensors_resolution(tmp_path: Path) -> None:
    # 6000 px on 36 mm: 4233.33 px an inch, 1666.67 px a cm; 24 mm lens: 4000 px of 6000
    taken: dict[int, Any] = {TAG.FocalLength: 24.0, TAG.ExifImageWidth: 6000, TAG.ExifImageHeight: 4000}
    inch: dict[int, Any] = {TAG.FocalPlaneXResolution: 4233.333, TAG.FocalPlaneYResolution: 4233.333}
    cm = {name: value / 2.54 for name, value in inch.items()}
    unit = TAG.FocalPlaneResolutionUnit
    for number, tags in enumerate(({**inch, unit: 2}, inch, {**cm, unit: 3})):
        found = exif_camera(save(tmp_path / f"{number}.jpg", (60, 40), {**taken, **tags}))
        assert found is not None and found.fx == pytest.approx(40.0, rel=1e-4), tags  # resized to a hundredth
        assert found.fy == pytest.approx(40.0, rel=1e-4)
    unsized: dict[int, Any] = {
        TAG.FocalLength: 24.0,
        TAG.FocalPlaneXResolution: 42.33333,
        unit: 2,
    }  # no Y, no size: as it is
    found = exif_camera(save(tmp_path / "u.jpg", (60, 40), unsized))
    assert found is not None and found.fx == found.fy == pytest.approx(40.0, rel=1e-4)
    both = exif_camera(save(tmp_path / "b.jpg", (60, 40), {**taken, **inch, TAG.FocalLengthIn35mmFilm: 36}))
    assert both is not None and both.fx == pytest.approx(60.0)


@pytest.mark.parametrize("turned", range(1, 9))
def test_the_camera_is_of_the_upright_image(tmp_path: Path, turned: int) -> None:
    tags: dict[int, Any] = {TAG.FocalLength: 24.0}
    tags |= {TAG.FocalPlaneXResolution: 42.33333, TAG.FocalPlaneYResolution: 63.5}
    path = save(tmp_path / "a.jpg", (60, 40), tags, turned)
    frame = frame_of_file(path)
    assert frame.camera is not None and frame.image.shape[:2] == (frame.camera.height_px, frame.camera.width_px)
    expected = (60, 40) if turned > 4 else (40, 60)  # focal lengths along the upright image's x and y
    assert (frame.camera.fx, frame.camera.fy) == pytest.approx(expected, rel=1e-4)
    assert (frame.camera.cx, frame.camera.cy) == ((19.5, 29.5) if turned > 4 else (29.5, 19.5))


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {TAG.FocalLengthIn35mmFilm: 0},
        {TAG.FocalLength: 24.0},  # of which sensor?
        {TAG.FocalLength: 0.0, TAG.FocalPlaneXResolution: 42.3},
        {TAG.FocalLength: 24.0, TAG.FocalPlaneXResolution: 42.3, TAG.FocalPlaneResolutionUnit: 9},
        {TAG.FocalLengthIn35mmFilm: 3},  # 165° are no perspective image
        {TAG.FocalLengthIn35mmFilm: 60_000},
        {TAG.FocalLengthIn35mmFilm: 26, TAG.ExifImageWidth: 4000, TAG.ExifImageHeight: 2000},  # cropped since
    ],
)
def test_exif_that_does_not_tell(tmp_path: Path, tags: dict[int, Any]) -> None:
    assert exif_camera(save(tmp_path / "a.jpg", exif=tags)) is None


def test_files_without_a_header(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no image")
    (tmp_path / "b.jpg").write_bytes(
        save(tmp_path / "c.jpg", exif={TAG.FocalLengthIn35mmFilm: 26}).read_bytes()[:40]
    )
    assert [exif_camera(tmp_path / name) for name in ("a.jpg", "b.jpg", "absent.jpg")] == [None] * 3
