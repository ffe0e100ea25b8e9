"""The parameter tree: default, unit, range and meaning of every leaf, written once.

The node declares its ROS parameters from it, ``config/localizer.yaml`` and the README's table are held
equal to it by tests, and the command line takes its defaults from it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from geowarp_ros.errors import ConfigError, did_you_mean


class Section(BaseModel):
    """A group of parameters; unknown names are refused, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class RetrievalConfig(Section):
    """The nearest-neighbour search over the gallery."""

    candidates: int = Field(20, ge=1, le=1000, description="Gallery places retrieved per image.")


RerankMethod: TypeAlias = Literal[
    "none",
    "geowarp",
    "geowarp-unwarped",
    "one-way",
    "qe-dba",
    "diffusion",
    "dense-ransac",
    "sift",
    "orb",
    "loftr",
    "disk-lightglue",
]
"""The ways to compare a query with its candidates: :mod:`geowarp_ros.rerank`."""


class ExpansionConfig(Section):
    """Query expansion and database-side augmentation (qe-dba)."""

    neighbours: int = Field(3, ge=0, le=1000, description="qe-dba: candidates averaged with the query; 0: none.")
    augment_neighbours: int = Field(
        3, ge=0, le=1000, description="qe-dba: nearest places averaged with each gallery place; 0: none."
    )
    alpha: float = Field(
        3.0, ge=0.0, le=100.0, description="qe-dba: a neighbour weighs its cosine to this power; 0: all weigh 1."
    )


class DiffusionConfig(Section):
    """Diffusion on the gallery's neighbour graph."""

    neighbours: int = Field(10, ge=1, le=1000, description="diffusion: edges of a place; one-sided ones go.")
    query_neighbours: int = Field(3, ge=1, le=1000, description="diffusion: candidates from which it starts.")
    alpha: float = Field(0.9, ge=0.0, lt=1.0, description="diffusion: how far it spreads; 0: not at all.")
    gamma: float = Field(3.0, gt=0.0, le=100.0, description="diffusion: an edge weighs its cosine to this power.")


class VerificationConfig(Section):
    """Matching of points and a homography that as many as possible obey."""

    keypoints: int = Field(
        1000, ge=4, le=100_000, description="sift, orb, disk-lightglue: strongest keypoints kept per image."
    )
    ratio: float = Field(
        0.8, gt=0.0, le=1.0, description="sift, orb: a match is this much nearer than the second best (Lowe)."
    )
    threshold_px: float = Field(
        3.0,
        gt=0.0,
        le=1000.0,
        description="Points nearer than this to where the homography puts them are inliers.",
    )
    threshold_cells: float = Field(
        1.0, gt=0.0, le=15.0, description="dense-ransac: the same, in cells of the 15×15 local features."
    )


class RerankConfig(Section):
    """The comparison of the query with each of the first candidates."""

    method: RerankMethod = Field(
        "geowarp",
        description="none: retrieval order; geowarp: pairwise warp, then dense features; "
        "geowarp-unwarped: without the warp; one-way: only the candidate is warped; qe-dba: query expansion; "
        "diffusion: on the neighbour graph; dense-ransac, sift, orb, loftr, disk-lightglue: inliers.",
    )
    mode: Literal["exact", "fast", "gated"] = Field(
        "exact",
        description="geowarp: exact: as in the paper, 2 encoder passes a candidate; fast: none, the features' "
        "correlation alone decides; gated: fast, then exact for the candidates that it cannot tell apart.",
    )
    candidates: int = Field(
        5, ge=1, le=100, description="How many of the retrieved places are re-ranked; qe-dba and diffusion: all."
    )
    retrieval_weight: float = Field(
        -1.0,
        ge=-1.0,
        le=1000.0,
        description="geowarp, geowarp-unwarped, one-way: sort by score / 225 - weight x descriptor distance; "
        "0: by the score, as in the paper; -1: the weight that the model was measured with.",
    )
    weights: str = Field("", description="loftr, disk-lightglue: file of the matcher's weights.")
    keypoint_weights: str = Field("", description="disk-lightglue: file of DISK's weights.")
    expansion: ExpansionConfig = ExpansionConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    verification: VerificationConfig = VerificationConfig()


class PositionConfig(Section):
    """From ranked candidates to a position with covariance, or none."""

    estimate: Literal["best", "cluster"] = Field(
        "cluster",
        description="best: the first candidate's position; cluster: mean of the candidates that agree with it.",
    )
    cluster_radius_m: float = Field(
        10.0,
        gt=0.0,
        le=1000.0,
        description="Candidates within this distance of the best one agree with it, in m.",
    )
    verify: Literal["none", "orb", "sift"] = Field(
        "sift",
        description="Keypoints of query and candidate that must agree on a homography before a place is believed; "
        "none: not asked.",
    )
    verify_candidates: int = Field(10, ge=1, le=1000, description="How many of the first candidates are verified.")
    min_texture: float = Field(
        0.8,
        ge=0.0,
        le=255.0,
        description="Images with less contrast of their structure are NO_FIX before the network runs, in grey "
        "levels; 0: off.",
    )
    min_confidence: float = Field(
        -1.0,
        ge=-1.0,
        le=1.0,
        description="Below this confidence the answer is NO_FIX; 0 publishes every fix; "
        "-1: what the calibration of the gallery, or of the model, found; 0.5 without one.",
    )
    position_std_m: float = Field(
        5.0,
        gt=0.0,
        le=1000.0,
        description="Horizontal standard deviation added to the candidates' scatter, in m; "
        "a calibration has its own.",
    )
    vertical_std_m: float = Field(
        1000.0, gt=0.0, le=1e6, description="Vertical standard deviation where the gallery has no altitude, in m."
    )


class TrackingConfig(Section):
    """What earlier images say about the newest one's answer."""

    method: Literal["none", "hmm"] = Field(
        "none",
        description="none: every image stands for itself; hmm: jumps that motion cannot explain are held back.",
    )
    max_speed_mps: float = Field(3.0, gt=0.0, le=100.0, description="Greatest speed of the robot, in m/s.")
    kidnap_probability: float = Field(
        0.001, gt=0.0, lt=1.0, description="Probability per image of having been carried anywhere."
    )
    forget_after_s: float = Field(
        30.0, gt=0.0, le=3600.0, description="Time without an image that ends a track, in s."
    )


class LocalizerConfig(Section):
    """Everything the localizer needs besides the gallery."""

    model: str = Field("default", description="Model file, or default for the one that ships.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: CUDA where there is one.")
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32",
        description="Arithmetic of the encoder; bfloat16 on CUDA and on CPUs that have it; float16 on CUDA only.",
    )
    retrieval: RetrievalConfig = RetrievalConfig()
    rerank: RerankConfig = RerankConfig()
    position: PositionConfig = PositionConfig()
    tracking: TrackingConfig = TrackingConfig()


def _not_a_world_frame(frame_id: str) -> str:
    if frame_id.strip("/") in ("map", "odom", "earth"):
        raise ValueError("expected a frame of the robot, where the camera is (REP 105)")
    return frame_id


class PriorConfig(Section):
    """A position from elsewhere that limits the search to a circle."""

    source: Literal["none", "fix", "track"] = Field(
        "none",
        description="none: search the whole gallery; fix: around the messages on prior_fix; "
        "track: around the node's own last fixes.",
    )
    max_age_s: float = Field(
        5.0, gt=0.0, le=3600.0, description="Between image and prior; an older one is not used, in s."
    )
    min_radius_m: float = Field(
        50.0, gt=0.0, le=1e6, description="Of the circle, however sure the prior says to be, in m."
    )
    max_radius_m: float = Field(
        500.0,
        gt=0.0,
        le=1e6,
        description="Of the circle, and that of a prior without covariance; a wider one is not used, in m.",
    )

    @model_validator(mode="after")
    def _ordered(self) -> PriorConfig:
        if self.min_radius_m > self.max_radius_m:
            raise ValueError(
                f"expected min_radius_m ({self.min_radius_m:g}) to be at most max_radius_m ({self.max_radius_m:g})"
            )
        return self


class NodeConfig(LocalizerConfig):
    """The localizer's parameters and those of its ROS edge."""

    prior: PriorConfig = PriorConfig()
    gallery: str = Field(
        "", description="Folder of the gallery to localise in; required. ~/reload_gallery applies a change."
    )
    autostart: bool = Field(True, description="Configure and activate at start, without a lifecycle manager.")
    image_transport: Literal["raw", "compressed"] = Field(
        "raw", description="raw: subscribe image; compressed: subscribe image/compressed."
    )
    frame_id: Annotated[str, AfterValidator(_not_a_world_frame)] = Field(
        "", description="frame_id of fixes: the camera's or base link's; empty: the image's own."
    )
    map_frame: str = Field("map", description="frame_id of ~/pose, a local ENU frame about the datum.")
    map_to_odom: bool = Field(
        False,
        description="Publish the transform from map_frame to the odometry's frame on /tf. Needs tf2_msgs.",
    )
    datum_latitude: float = Field(
        0.0,
        ge=-90.0,
        le=90.0,
        description="Latitude of the map frame's origin; 0 with datum_longitude 0: the gallery's centre.",
    )
    datum_longitude: float = Field(0.0, ge=-180.0, le=180.0, description="Longitude of the map frame's origin.")
    altitude_nan: bool = Field(
        False,
        description="Publish NaN altitude where the gallery has none (navsat_transform drops such fixes).",
    )
    max_rate_hz: float = Field(
        0.0, ge=0.0, le=1000.0, description="Images more frequent than this are let go, in Hz; 0: none are."
    )
    latency_budget_ms: float = Field(
        0.0,
        ge=0.0,
        le=60_000.0,
        description="From an image's arrival to its answer, in ms: fewer candidates are re-ranked, at least one, "
        "where it would take longer; 0: no limit. Not for qe-dba and diffusion.",
    )
    input_timeout_s: float = Field(
        5.0,
        gt=0.0,
        le=3600.0,
        description="Without an image for this long /diagnostics warns, in s; ten times as long is an error.",
    )
    lost_after: int = Field(
        20,
        ge=1,
        le=100_000,
        description="So many answers of low confidence or disagreement in a row, and /diagnostics says that the "
        "camera is out of the gallery.",
    )


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
            else:
                problems.append(f"{name} = {item['input']!r}: {item['msg'][0].lower()}{item['msg'][1:]}")
        raise ConfigError("; ".join(problems)) from None


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
