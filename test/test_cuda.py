"""What computes on CUDA, beside what the CPU makes of the same: pure torch and numpy, no ROS.

How far the two may be apart follows from the arithmetic. float32 sums in another order, and by Winograd's
transform: 1e-4 of the whole. TF32, which cuDNN's convolutions use unless told otherwise, and float16 keep 11 bits,
bfloat16 8; rounding every convolution's operands on a CPU gave 4e-4 (TF32, float16) and 3e-3 (bfloat16) of a
descriptor, 1e-3 and 8e-3 of local features. The tolerances are about four times that.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from geowarp_ros.cli import main
from geowarp_ros.errors import ModelError
from geowarp_ros.model.aggregation import AggregationName
from geowarp_ros.model.checkpoints import load_model
from geowarp_ros.model.describer import Describer, Warper, choose_device
from geowarp_ros.model.encoders import EncoderName
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from geowarp_ros.model.inference import Precision
from geowarp_ros.rerank import Reranker
from geowarp_ros.rerank.fast import FastReranker
from geowarp_ros.rerank.gated import GatedReranker
from geowarp_ros.rerank.geowarp import GeoWarpReranker
from test.model.conftest import picture
from test.model.weights import make_model
from test.rerank.conftest import MemoryGallery, candidates_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

CUDA = torch.device("cuda")


@pytest.fixture
def ieee(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions in float32 proper, without TF32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def apart(found: object, expected: object) -> float:
    """The length of the difference over that of what is expected."""
    a, b = (
        np.asarray(each.cpu() if isinstance(each, torch.Tensor) else each, float) for each in (found, expected)
    )
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def test_auto_is_cuda() -> None:
    assert choose_device("auto").type == choose_device("cuda").type == "cuda"
    assert choose_device("cpu").type == "cpu"


MODELS = [("resnet18", "gem"), ("resnet50", "netvlad"), ("vgg16", "gem"), ("alexnet", "netvlad")]


@pytest.mark.usefixtures("ieee")
@pytest.mark.parametrize(("encoder", "aggregation"), MODELS)
def test_descriptors_and_local_features_are_the_cpus(encoder: EncoderName, aggregation: AggregationName) -> None:
    on_cpu = Describer(make_model(encoder, aggregation), "cpu")
    on_cuda = Describer(make_model(encoder, aggregation), CUDA)
    assert on_cuda.fingerprint == on_cpu.fingerprint
    images = [picture(96, 128, 0), picture(80, 112, 1), picture(96, 128, 2)]
    for image in images:
        found, expected = on_cuda(image), on_cpu(image)
        assert found.local_features.is_cuda and found.descriptor.dtype == np.float32
        assert apart(found.image, expected.image) < 1e-6
        assert apart(found.descriptor, expected.descriptor) < 1e-4
        assert apart(found.local_features, expected.local_features) < 1e-4
    (descriptors, local_features), expected_of_all = on_cuda.describe_batch(images), on_cpu.describe_batch(images)
    assert apart(descriptors, expected_of_all[0]) < 1e-4
    # what lies at the edge of two halves may fall to either: 2^-11 of each value
    assert apart(local_features, expected_of_all[1]) < 5e-4


@pytest.mark.parametrize(
    ("precision", "descriptor", "local"),
    [("float32", 1.5e-3, 4e-3), ("float16", 1.5e-3, 4e-3), ("bfloat16", 1.2e-2, 3e-2)],
)
@pytest.mark.parametrize(("encoder", "aggregation"), MODELS)
def test_shorter_numbers_lose_what_they_must_and_no_more(
    encoder: EncoderName, aggregation: AggregationName, precision: Precision, descriptor: float, local: float
) -> None:
    """``float32`` here is what the product does: TF32 within convolutions."""
    image = picture(96, 128, 3)
    expected = Describer(make_model(encoder, aggregation), "cpu")(image)
    found = Describer(make_model(encoder, aggregation), CUDA, precision)(image)
    assert found.local_features.dtype == torch.float32
    assert apart(found.descriptor, expected.descriptor) < descriptor
    assert apart(found.local_features, expected.local_features) < local


@pytest.mark.parametrize(("tf32", "quad", "score"), [(False, 1e-4, 0.02), (True, 2e-3, 0.2)])
def test_scores_and_quads_are_the_cpus(
    tf32: bool, quad: float, score: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Quads in half image sides; scores of at most 225."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", tf32)
    images = [picture(96, 128, 4), picture(80, 112, 5), picture(96, 128, 6)]
    on_cpu = Describer(make_model(), "cpu")
    stored = on_cpu.describe_batch(images)[1]
    expected = Warper(on_cpu)(on_cpu(images[0]), images, stored)
    on_cuda = Describer(make_model(), CUDA)
    found = Warper(on_cuda)(on_cuda(images[0]), images, stored)
    np.testing.assert_allclose(found.quads_q, expected.quads_q, atol=quad)
    np.testing.assert_allclose(found.quads_p, expected.quads_p, atol=quad)
    np.testing.assert_allclose(found.score, expected.score, atol=score)
    np.testing.assert_allclose(found.score_unwarped, expected.score_unwarped, atol=score)


@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize("mode", ["exact", "gated", "fast"])
def test_every_mode_ranks_as_on_the_cpu(mode: str, tf32: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model that ships, on walls it never saw: scores lie 1.5 to 50 apart, and TF32 moves them by 0.04."""
    from test.lab.training.street import shot

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", tf32)
    images = [shot(place, number) for place, number in ((0, 0), (0, 1), (1, 0), (2, 0), (3, 0), (4, 0))]
    on_cpu = Describer(load_model("default"), "cpu")
    on_cuda = Describer(load_model("default"), CUDA)
    images = [on_cpu.prepare(image) for image in images]
    descriptors, local_features = on_cpu.describe_batch(images)
    gallery = MemoryGallery(descriptors, images, local_features)

    def ranked(describer: Describer, place: int) -> tuple[list[int], list[float]]:
        fast = FastReranker(gallery, 5)
        exact = GeoWarpReranker(gallery, Warper(describer), 5)
        # so much doubt that the exact mode is asked about the two of place 0, and thinks otherwise
        modes: dict[str, Reranker] = {"exact": exact, "fast": fast, "gated": GatedReranker(fast, exact, doubt=0.2)}
        found = modes[mode](describer(shot(place, 3)), candidates_of(range(6)))
        return [c.index for c in found], [np.nan if c.score is None else c.score for c in found]

    for place in (0, 2):
        (rows, scores), (expected_rows, expected_scores) = ranked(on_cuda, place), ranked(on_cpu, place)
        assert rows == expected_rows
        np.testing.assert_allclose(scores, expected_scores, atol=0.2)


def test_search_is_brute_force() -> None:
    pytest.importorskip("faiss")
    from geowarp_ros.gallery.index.search import ExactIndex

    rng = np.random.default_rng(7)
    gallery, query = (rng.normal(size=(count, 256)).astype(np.float32) for count in (3000, 20))
    gallery[100:150] = query[0] + 1e-4 * rng.normal(size=(50, 256))  # told apart by the last bits alone
    gallery[7] = gallery[8]
    without = np.array([3, 120, 2999])
    kept = np.setdiff1d(np.arange(3000), without)
    distances = ((query[:, None].astype(float) - gallery[kept]) ** 2).sum(axis=2)
    order = np.argsort(distances, axis=1, kind="stable")[:, :20]
    found, rows = ExactIndex(gallery, CUDA).search(query, 20, without)
    np.testing.assert_array_equal(rows, kept[order])
    np.testing.assert_allclose(found, np.take_along_axis(distances, order, axis=1), rtol=1e-6)


@contextmanager
def memory_left(size: int) -> Iterator[None]:
    """Leave so many bytes of the device's memory to what runs inside."""
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    whole = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + size) / whole)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


@pytest.mark.usefixtures("ieee")
def test_where_memory_ends_passes_are_halved_until_they_fit() -> None:
    """Sixteen images fill 300 MiB with the first convolution's output alone; 200 are there."""
    images = [picture(480, 640, seed) for seed in (0, 1)] * 8
    roomy = Describer(make_model(), CUDA)
    expected = roomy.describe_batch(images)
    assert roomy.passes.shortages == 0
    narrow = Describer(make_model(), CUDA)
    with memory_left(200 << 20):
        found = narrow.describe_batch(images)
        assert narrow.passes.shortages > 0
        assert 480 * 640 <= narrow.passes.pixels < 16 * 480 * 640
        shortages = narrow.passes.shortages
        again = narrow.describe_batch(images)  # which knows by now what fits
        assert narrow.passes.shortages == shortages
    for descriptors, local_features in (found, again):
        assert apart(descriptors, expected[0]) < 1e-4
        assert apart(local_features, expected[1]) < 5e-4
    assert "out of CUDA memory" in narrow.passes.caution


@pytest.mark.usefixtures("ieee")
def test_where_memory_ends_so_are_the_passes_of_a_warp() -> None:
    images = [picture(480, 640, seed) for seed in (0, 1)] * 4
    describer = Describer(make_model(), CUDA)
    query, stored = describer(images[0]), describer.describe_batch(images)[1]
    expected = Warper(describer)(query, images, stored)
    with memory_left(200 << 20):
        found = Warper(describer)(query, images, stored)
    assert describer.passes.shortages > 0
    np.testing.assert_allclose(found.score, expected.score, atol=0.02)
    np.testing.assert_allclose(found.quads_p, expected.quads_p, atol=1e-4)


def test_where_not_one_image_fits_the_model_says_so() -> None:
    describer = Describer(make_model(), CUDA)
    image = picture(480, 640, 0)
    expected = describer(image).descriptor
    with (
        memory_left(8 << 20),
        pytest.raises(ModelError, match="out of CUDA memory for a single image of 640×480"),
    ):
        describer(image)
    np.testing.assert_allclose(describer(image).descriptor, expected, rtol=1e-3)  # and goes on afterwards


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from test.lab.training.street import write_lane

    return write_lane(tmp_path_factory.mktemp("data"))


def scratch() -> GeoWarp:
    from geowarp_ros.lab.training.session import seeded

    with seeded(0):
        return GeoWarp(ModelConfig())


def parameters_of(folder: Path) -> torch.Tensor:
    """All that was trained, in one row, on the CPU."""
    model = scratch()
    model.load_state_dict(torch.load(folder / "last.pt", map_location="cpu", weights_only=True)["model"])
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach()


@pytest.mark.usefixtures("ieee")
def test_a_killed_distillation_goes_on_nearly_where_it_was(street: Path, tmp_path: Path) -> None:
    """Not bit for bit: CUDA's sums have no order, and Adam's first steps take a small gradient for a large one.

    On a CPU, noise of 3e-6 to 1e-3 of each gradient's mean put the ends 0.2 to 0.43 of the way apart that both
    had gone, and a resumption that forgets the optimiser's state 0.73.
    """
    pytest.importorskip("rosbags")
    pytest.importorskip("sklearn")
    from geowarp_ros.lab.training.distillation import Distillation, distill
    from geowarp_ros.lab.training.grounds import Ground
    from test.lab.training.street import killed_at

    config = Distillation(
        grounds=(Ground(path="street", split="train", val_split="val", surroundings_m=90.0),),
        height=64, width=96, batch_size=6, iterations=4, mine_every=2, save_every=1, same_photograph=0.5,
        score_weight=1.0, warp_weight=1.0, views=2, batch_generated=2, device="cuda", tensorboard=False,
    )  # fmt: skip
    distill(street, tmp_path / "whole", config, scratch(), None)
    with killed_at(save=3):
        distill(street, tmp_path / "parts", config, scratch(), None)
    distill(street, tmp_path / "parts", config, scratch(), None, resume=True)
    start = torch.nn.utils.parameters_to_vector(scratch().parameters()).detach()
    whole, parts = parameters_of(tmp_path / "whole"), parameters_of(tmp_path / "parts")
    assert whole.isfinite().all()
    assert (whole - start).norm() > 0
    assert (whole - parts).norm() < 0.5 * (whole - start).norm()
    best = tmp_path / "whole" / "best.safetensors"
    image = picture(96, 128, 0)
    on_cuda, on_cpu = Describer(load_model(best, CUDA), CUDA), Describer(load_model(best), "cpu")
    assert on_cuda.fingerprint == on_cpu.fingerprint
    assert apart(on_cuda(image).descriptor, on_cpu(image).descriptor) < 1e-4
    assert apart(on_cuda(image).local_features, on_cpu(image).local_features) < 1e-4


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_the_warp_is_trained_in_every_precision(precision: Precision, street: Path, tmp_path: Path) -> None:
    """Eight steps: with float16 the first ones may be left out, until the scale fits."""
    pytest.importorskip("rosbags")
    pytest.importorskip("sklearn")
    from geowarp_ros.lab.training.parameters import SessionConfig, WarpConfig
    from geowarp_ros.lab.training.warping import read_sets, train_warp

    config = WarpConfig(
        iterations=8, batch_generated=2, batch_pairs=2, height=64, width=96, validate_every=2, t_feat=1e9,
        optimizer="adamw", learning_rate=1e-3, pairs_within=True, views=3, colour=0.2, mirror=True,
    )  # fmt: skip
    session = partial(SessionConfig, device="cuda", precision=precision, tensorboard=False, save_every=2)
    photographs, held_out = read_sets([street / "street"], config)
    model = scratch()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    error = train_warp(model.to(CUDA), photographs, held_out, config, session(), tmp_path)
    assert 0 < error < 2
    after = {key: tensor.cpu() for key, tensor in model.state_dict().items()}
    assert all(tensor.isfinite().all() for tensor in after.values())
    assert all(torch.equal(before[key], after[key]) for key in before if not key.startswith("regression."))
    assert not torch.equal(before["regression.linear.weight"], after["regression.linear.weight"])
    # and on from the last checkpoint, with the optimiser's state as it was
    longer = config.model_copy(update={"iterations": 10})
    again = scratch().to(CUDA)
    assert 0 < train_warp(again, photographs, held_out, longer, session(), tmp_path, resume=True) < 2
    state = torch.load(tmp_path / "last.pt", map_location="cpu", weights_only=True)
    assert state["step"] == 10
    assert ("scale" in state["scaler"]) == (precision == "float16")
    assert all(bool(tensor.isfinite().all()) for tensor in state["model"].values())
    best = load_model(tmp_path / "best.safetensors")
    assert best.regression is not None and not next(best.parameters()).is_cuda


def test_the_clock_waits_for_the_device() -> None:
    """A kernel is only handed over when the call returns: some 30 ms of waiting are its own and nobody else's."""
    from geowarp_ros.lab.benchmark.timing import take_turns

    contestants: dict[str, Callable[[], object]] = {
        "busy": partial(torch.cuda._sleep, 50_000_000),
        "idle": lambda: None,
    }
    times = take_turns("x", contestants, "busy", 3, device=CUDA)
    assert min(times.ms["busy"]) > 5
    assert max(times.ms["idle"]) < min(times.ms["busy"]) / 2


def test_the_benchmark_runs_on_cuda(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for package in ("faiss", "rosbags", "kornia", "sklearn", "matplotlib"):
        pytest.importorskip(package)
    words = ["--encoders", "resnet18", "--sizes", "96x64", "--rounds", "1", "--images", "3", "--candidates", "2"]
    parts = ["--parts", "encoders", "rerank", "rerankers", "building", "training", "--precision", "float16"]
    assert main(["benchmark", "--output", str(tmp_path), *words, *parts]) == 0
    said = capsys.readouterr().out
    assert "float16, cuda" in said and "| the reference's way |" in said and "| fused, float16 |" in said
    assert main(["benchmark", "--output", str(tmp_path), *words, *parts, "--clock", "processor"]) == 1
    assert "clock = 'processor' with device = 'auto'" in capsys.readouterr().err


@pytest.mark.usefixtures("ieee")
def test_the_references_way_gives_the_exact_modes_scores(tmp_path: Path) -> None:
    for package in ("faiss", "rosbags", "kornia"):
        pytest.importorskip(package)
    from geowarp_ros.lab.benchmark.reference import ReferenceWay
    from geowarp_ros.lab.benchmark.scene import make_scene
    from geowarp_ros.lab.verbs.options import parse_size

    scene = make_scene(make_model(), parse_size("96x64"), 3, tmp_path, device=CUDA)
    paths = [scene.gallery.path / "segments" / "0001" / "images" / f"{row:06d}.jpg" for row in range(3)]
    images = [scene.gallery.image(row) for row in range(3)]
    exact = Warper(scene.describer)(scene.describer(scene.pixels), images, scene.gallery.local_features(range(3)))
    way = ReferenceWay(scene.describer.model)
    np.testing.assert_allclose(way(scene.pixels, paths), exact.score, rtol=1e-3)
