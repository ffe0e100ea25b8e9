"""The parameter tree: default, unit, range and meaning of every parameter, written once.

The node declares its ROS parameters from it, the command line takes its defaults from it, and tests hold
``config/localizer.yaml`` and ``docs/node.md`` equal to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from geowarp_ros.errors import ConfigError, did_you_mean


class Section(BaseModel):
    """A group of parameters; unknown names are refused, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class RetrievalConfig(Section):
    """Nearest-neighbour search in the gallery."""

    candidates: int = Field(20, ge=1, le=1000, description="Number of places retrieved per image.")


LearnedMatcher: TypeAlias = Literal["xfeat-lighterglue", "aliked-lightglue", "disk-lightglue", "loftr"]
"""Networks that match two images."""

MatchMethod: TypeAlias = Literal["sift", "orb", "xfeat", "aliked", "disk", LearnedMatcher]
"""Ways to match two images: :mod:`geowarp_ros.rerank.verification`."""

RerankMethod: TypeAlias = Literal["none", "geowarp", "geowarp-unwarped", MatchMethod]
"""Ways to re-rank the candidates: :mod:`geowarp_ros.rerank`."""

RerankMode: TypeAlias = Literal["exact", "fast", "gated"]
"""Modes of geowarp: :mod:`geowarp_ros.rerank.geowarp`, ``fast`` and ``gated``."""


class RerankConfig(Section):
    """Re-ranking of the first candidates."""

    method: RerankMethod = Field(
        "geowarp",
        description="none: retrieval order; geowarp: warp each pair to a common viewpoint, then compare dense "
        "features; geowarp-unwarped: the same without the warp; others: number of homography inliers of "
        "those matches, as position.verify.",
    )
    mode: RerankMode = Field(
        "gated",
        description="Mode of geowarp. exact: as in the paper, 2 encoder passes per candidate; fast: feature "
        "correlation alone, no encoder pass; gated: fast, then exact for the candidates it cannot tell apart, if "
        "the model has a warping regression.",
    )
    candidates: int = Field(5, ge=1, le=100, description="Number of retrieved candidates to re-rank.")
    retrieval_weight: float = Field(
        -1.0,
        ge=-1.0,
        le=1000.0,
        description="Weight of the descriptor distance in the order: sort by mean cosine - weight * distance "
        "(geowarp, geowarp-unwarped). 0: score only, as in the paper; -1: the model's own weight.",
    )


class VerificationConfig(Section):
    """Geometric verification: matches that obey one homography."""

    keypoints: int = Field(1000, ge=4, le=100_000, description="Maximum number of keypoints per image.")
    ratio: float = Field(
        0.8, gt=0.0, le=1.0, description="Ratio test: maximum distance ratio of best to second-best match (Lowe)."
    )
    threshold_px: float = Field(
        3.0, gt=0.0, le=1000.0, description="Maximum reprojection error of a homography inlier (px)."
    )


class PositionConfig(Section):
    """Everything that decides between fix and no fix, and the position of the fix."""

    estimate: Literal["pose", "cluster", "best"] = Field(
        "pose",
        description="pose: the camera's own, by matches with an aligned gallery; cluster where it is not trusted. "
        "cluster: weighted mean of the candidates around the first; best: position of the first candidate.",
    )
    cluster_radius_m: float = Field(
        10.0,
        gt=0.0,
        le=1000.0,
        description="Radius around the best candidate (m) within which other candidates support it.",
    )
    verify: Literal["auto", "none", MatchMethod] = Field(
        "auto",
        description="Matches used to verify candidates geometrically; those with more inliers than chance move to "
        "the front. auto: the keypoints that the gallery stores, or sift. sift, xfeat, aliked, disk: nearest "
        "neighbours of these keypoints; orb: detected in the gallery's images; xfeat-lighterglue, "
        "aliked-lightglue, disk-lightglue, loftr: matched by a network. none: no verification.",
    )
    verify_candidates: int = Field(10, ge=1, le=1000, description="Number of candidates to verify.")
    verification: VerificationConfig = VerificationConfig()
    min_texture: float = Field(
        0.8,
        ge=0.0,
        le=255.0,
        description="Minimum texture of an image (grey levels); below it the answer is no fix. 0: off.",
    )
    min_confidence: float = Field(
        -1.0,
        ge=-1.0,
        le=1.0,
        description="Minimum confidence of a fix. 0: publish every position; -1: the calibration's threshold, "
        "or 0.5 without a calibration.",
    )
    position_std_m: float = Field(
        5.0,
        gt=0.0,
        le=1000.0,
        description="Standard deviation (m) added to the scatter of the candidates; horizontally a calibration "
        "replaces it.",
    )
    vertical_std_m: float = Field(
        1000.0,
        gt=0.0,
        le=1e6,
        description="Vertical standard deviation (m) where the gallery has no altitude.",
    )


class PoseConfig(Section):
    """The camera's pose from matches with aligned photographs; not parameters of the node."""

    photographs: int = Field(
        10, ge=1, le=100, description="Maximum number of first candidates it is measured against."
    )
    ratio: float = Field(
        0.8, gt=0.0, le=1.0, description="Ratio test: maximum distance ratio of best to second-best match (Lowe)."
    )
    threshold_px: float = Field(
        4.0,
        gt=0.0,
        le=100.0,
        description="Maximum reprojection error of matches in the sample consensus (px at working resolution).",
    )


class LocalizerConfig(Section):
    """Settings of the localizer: what one image is answered with."""

    model: str = Field(
        "gallery",
        description="Model file, or a name that 'geowarp models get' stored. gallery: the model that made the "
        "gallery, which notes its file; default: the one that ships.",
    )
    keypoint_weights: str = Field(
        "",
        description="Weights of the learned keypoints that the gallery stores: a file, or a name that 'geowarp "
        "models get' stored. Empty: those stored under the keypoints' own name.",
    )
    matcher_weights: str = Field(
        "",
        description="Weights of the network that position.verify or rerank.method names: a file, or a name that "
        "'geowarp models get' stored. Empty: those stored under its own name.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: CUDA if available, else CPU.")
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32",
        description="Precision of the encoder. bfloat16: CUDA and CPUs with bfloat16 instructions; float16: CUDA.",
    )
    runtime: Literal["auto", "torch", "onnxruntime"] = Field(
        "auto",
        description="What encoder and regression compute with on a CPU. auto: the faster for each, ONNX Runtime "
        "where it is installed ('geowarp_ros[fast]'). onnxruntime: both, in float32.",
    )
    threads: int = Field(
        0,
        ge=0,
        le=1024,
        description="Threads of torch, OpenCV, FAISS and ONNX Runtime, for the whole process. 0: one for each "
        "physical core that affinity, control group and OMP_NUM_THREADS leave it.",
    )
    retrieval: RetrievalConfig = RetrievalConfig()
    rerank: RerankConfig = RerankConfig()
    position: PositionConfig = PositionConfig()


class TrackingConfig(Section):
    """Consistency of successive fixes."""

    method: Literal["none", "hmm"] = Field(
        "none", description="none: each image on its own; hmm: suppress jumps that the motion cannot explain."
    )
    max_speed_mps: float = Field(3.0, gt=0.0, le=100.0, description="Maximum speed of the robot (m/s).")
    kidnap_probability: float = Field(
        0.001, gt=0.0, lt=1.0, description="Probability per image that the robot was carried elsewhere."
    )
    forget_after_s: float = Field(
        30.0, gt=0.0, le=3600.0, description="Reset the track after this time without an image (s)."
    )


class PriorConfig(Section):
    """A position known from elsewhere that limits the search to a circle."""

    source: Literal["none", "fix", "track"] = Field(
        "none",
        description="none: search the whole gallery; fix: search around the latest message on prior_fix; "
        "track: search around the node's own latest fixes.",
    )
    max_age_s: float = Field(
        5.0, gt=0.0, le=3600.0, description="Maximum time between image and prior (s); older priors are ignored."
    )
    min_radius_m: float = Field(
        50.0, gt=0.0, le=1e6, description="Minimum search radius (m), however confident the prior is."
    )
    max_radius_m: float = Field(
        500.0,
        gt=0.0,
        le=1e6,
        description="Maximum search radius (m), also the radius of a prior without covariance; a wider prior is "
        "ignored.",
    )

    @model_validator(mode="after")
    def _ordered(self) -> PriorConfig:
        if self.min_radius_m > self.max_radius_m:
            raise ValueError(
                f"expected min_radius_m ({self.min_radius_m:g}) to be at most max_radius_m ({self.max_radius_m:g})"
            )
        return self


def _not_a_world_frame(frame_id: str) -> str:
    if frame_id.strip("/") in ("map", "odom", "earth"):
        raise ValueError("expected a frame of the robot, where the camera is (REP 105)")
    return frame_id


class CameraOffsetConfig(Section):
    """Where the camera sits on the robot: pose of its body frame (x forward, y left, z up) in ``base_frame``."""

    x_m: float = Field(0.0, ge=-1000.0, le=1000.0, description="Position of the camera forward of base_frame (m).")
    y_m: float = Field(0.0, ge=-1000.0, le=1000.0, description="Position of the camera left of base_frame (m).")
    z_m: float = Field(0.0, ge=-1000.0, le=1000.0, description="Position of the camera above base_frame (m).")
    roll_deg: float = Field(
        0.0,
        ge=-360.0,
        le=360.0,
        description="Rotation about the x axis of base_frame (deg), the first.",
    )
    pitch_deg: float = Field(
        0.0, ge=-360.0, le=360.0, description="Rotation about its y axis (deg): positive looks down (REP 103)."
    )
    yaw_deg: float = Field(
        0.0, ge=-360.0, le=360.0, description="Rotation about its z axis (deg): 90 looks left, -90 right."
    )
    from_tf: bool = Field(
        False,
        description="Look the offset up on /tf, from base_frame to the image's optical frame. Requires tf2_ros.",
    )


class SessionConfig(LocalizerConfig):
    """Settings of a session: the localizer's, and what is known besides the newest image."""

    tracking: TrackingConfig = TrackingConfig()
    prior: PriorConfig = PriorConfig()
    latency_budget_ms: float = Field(
        0.0,
        ge=0.0,
        le=60_000.0,
        description="Time budget from an image's arrival to its answer (ms). When time is short, first the pose's "
        "later rungs are dropped, then the pose, then candidates to re-rank but for one. 0: no limit.",
    )
    gravity: Literal["none", "imu"] = Field(
        "none",
        description="imu: roll and pitch of poses are held by the latest message on imu, whose axes are those of "
        "base_frame, or by tf with camera_offset.from_tf; not while it is stale or shaken.",
    )
    gravity_std_deg: float = Field(
        1.0,
        gt=0.0,
        le=45.0,
        description="Standard deviation of the direction of gravity, mounting included (deg), that the message's "
        "own adds to.",
    )
    base_frame: Annotated[str, AfterValidator(_not_a_world_frame)] = Field(
        "",
        description="Frame of the robot whose position and orientation are published, camera_offset away from the "
        "camera; empty: the camera's own.",
    )
    camera_offset: CameraOffsetConfig = CameraOffsetConfig()

    @model_validator(mode="after")
    def _one_offset(self) -> SessionConfig:
        given = self.camera_offset.model_dump(exclude_defaults=True)
        if given and not self.base_frame:
            raise ValueError(f"camera_offset.{next(iter(given))}: expected a base_frame that it is an offset from")
        if self.camera_offset.from_tf and len(given) > 1:
            raise ValueError("camera_offset.from_tf = true: expected no other camera_offset beside it")
        if self.gravity == "imu" and not self.base_frame:
            raise ValueError("gravity = 'imu': expected a base_frame, on which camera and IMU are mounted")
        return self


class NodeConfig(SessionConfig):
    """Every parameter of the node: the session's and those of its ROS edge."""

    gallery: str = Field(
        "", description="Folder of the gallery; required. A change takes effect with ~/reload_gallery."
    )
    autostart: bool = Field(True, description="Configure and activate at start, without a lifecycle manager.")
    image_transport: Literal["raw", "compressed"] = Field(
        "raw", description="raw: subscribe to image; compressed: subscribe to image/compressed."
    )
    camera_info_url: str = Field(
        "",
        description="Calibration file (ROS YAML) of the images, which replaces camera_info: a path, file:// or "
        "package://. Empty: camera_info.",
    )
    frame_id: Annotated[str, AfterValidator(_not_a_world_frame)] = Field(
        "", description="frame_id of published fixes (camera or base link); empty: the frame_id of the image."
    )
    map_frame: str = Field("map", description="frame_id of ~/pose: the local frame at the datum.")
    map_to_odom: bool = Field(
        False, description="Publish the transform map_frame -> odometry frame on /tf. Requires tf2_msgs."
    )
    transform_time_offset: float = Field(
        0.2,
        ge=0.0,
        le=10.0,
        description="Time added to the newest odometry's stamp in that transform (s): it is there when others ask "
        "for it, until the next one comes.",
    )
    map_to_odom_max_speed_mps: float = Field(
        0.0,
        ge=0.0,
        le=100.0,
        description="Maximum speed (m/s) at which a correction of that transform moves the robot in the map, and "
        "what is within 5 m of it. 0: it jumps.",
    )
    initial_pose: Literal["none", "once", "lost"] = Field(
        "none",
        description="Publish the pose of base_frame on initialpose, for AMCL, slam_toolbox or RTAB-Map. once: by "
        "the first fix with an orientation; lost: again when it is found after it was lost or carried off.",
    )
    datum_latitude: float = Field(
        0.0,
        ge=-90.0,
        le=90.0,
        description="Latitude of the map frame's origin (deg); with both datum values 0: the gallery's datum.",
    )
    datum_longitude: float = Field(
        0.0, ge=-180.0, le=180.0, description="Longitude of the map frame's origin (deg)."
    )
    datum_yaw_deg: float = Field(
        0.0,
        ge=-360.0,
        le=360.0,
        description="Direction of the map frame's x axis (deg), counter-clockwise from east: for maps that were "
        "made without a compass.",
    )
    altitude_nan: bool = Field(
        False,
        description="Publish NaN altitude where the gallery has none (navsat_transform drops such fixes).",
    )
    mode: Literal["continuous", "on_demand", "until_fix"] = Field(
        "continuous",
        description="continuous: localise images as they come; on_demand: by ~/localize alone; until_fix: until "
        "the first fix (with initial_pose: until that is published), and again after ~/reset.",
    )
    max_rate_hz: float = Field(
        0.0, ge=0.0, le=1000.0, description="Drop images above this rate (Hz). 0: no limit."
    )
    input_timeout_s: float = Field(
        5.0,
        gt=0.0,
        le=3600.0,
        description="Time without an image after which /diagnostics warns (s); an error after ten times as long.",
    )
    localize_max_age_s: float = Field(
        1.0,
        gt=0.0,
        le=3600.0,
        description="Maximum age of the image that ~/localize answers from (s), by its arrival; without one it "
        "waits for the next, at most input_timeout_s.",
    )
    lost_after: int = Field(
        20,
        ge=1,
        le=100_000,
        description="Number of consecutive answers without a fix after which /diagnostics reports that the camera "
        "is outside the gallery.",
    )

    @model_validator(mode="after")
    def _one_frame(self) -> NodeConfig:
        if self.base_frame and self.frame_id:
            raise ValueError(
                f"frame_id = {self.frame_id!r}: expected none beside base_frame = {self.base_frame!r}, whose fixes"
                " are published"
            )
        if self.initial_pose != "none" and not self.base_frame:
            raise ValueError(f"initial_pose = {self.initial_pose!r}: expected a base_frame, whose pose it is")
        return self


ConfigT = TypeVar("ConfigT", bound=Section)


def parse_config(kind: type[ConfigT], values: dict[str, Any], *, strict: bool = False) -> ConfigT:
    """Validate ``values`` (nested dictionaries) as ``kind``.

    Args:
        kind: The section to build.
        values: Nested dictionaries; what is absent keeps its default.
        strict: Refuse "5" for 5 and 1 for true, as ROS parameters do; 30 for 30.0 passes.

    Raises:
        ConfigError: One line naming each wrong parameter by its dotted name, its value and what was expected;
            an unknown name comes with the nearest known one.
    """
    try:
        return kind.model_validate(values, strict=strict)
    except ValidationError as error:
        known = [name for name, _ in leaves(kind)]
        problems = []
        for item in error.errors():
            name = ".".join(str(part) for part in item["loc"])
            if item["type"] == "extra_forbidden":
                problems.append(f"unknown parameter {name!r}{did_you_mean(name, known)}")
            elif not name:  # parameters that do not fit one another; the message names them
                problems.append(item["msg"].removeprefix("Value error, "))
            else:
                problems.append(f"{name} = {item['input']!r}: {item['msg'][0].lower()}{item['msg'][1:]}")
        raise ConfigError("; ".join(problems)) from None


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Turn dotted names into nested dictionaries: {"a.b": 1} -> {"a": {"b": 1}}; nested ones stay."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *sections, leaf = name.split(".")
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
        place[leaf] = {**place.get(leaf, {}), **nest(value)} if isinstance(value, Mapping) else value
    return nested


def flatten(config: Section) -> dict[str, Any]:
    """Turn a configuration into dotted names and values; the inverse of :func:`nest`."""
    flat: dict[str, Any] = {}
    for name, _ in leaves(type(config)):
        value: Any = config
        for part in name.split("."):
            value = getattr(value, part)
        flat[name] = value
    return flat


def first_problem(error: ValidationError) -> str:
    """Return the first thing wrong with a file's values as one line: where, and what was expected."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message[0].lower()}{message[1:]}" if where else message


def leaves(kind: type[Section], prefix: str = "") -> list[tuple[str, Any]]:
    """Return (dotted name, pydantic FieldInfo) of every parameter of ``kind``, in the order written."""
    found: list[tuple[str, Any]] = []
    for name, info in kind.model_fields.items():
        annotation = info.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            found += leaves(annotation, f"{prefix}{name}.")
        else:
            found.append((prefix + name, info))
    return found
