"""Encoder passes: how they are split, and what happens when a GPU's memory ends.

There is no GPU here: a pass that is too large raises what CUDA raises.
"""

from __future__ import annotations

import logging
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from geowarp_ros.errors import ModelError
from geowarp_ros.model.describer import Describer, Warper
from geowarp_ros.model.passes import Passes
from test.model.conftest import picture
from test.model.weights import make_model


def outgrown(describer: Describer, images: int) -> list[int]:
    """Let the encoder run out of memory above so many images at once; returns the sizes that it took."""
    taken: list[int] = []
    encoder: Any = describer.network.encoder
    encode = encoder.forward

    def forward(batch: Tensor) -> Any:
        taken.append(len(batch))
        if len(batch) > images:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return encode(batch)

    encoder.forward = forward
    return taken


def test_equal_sizes_go_together_up_to_the_limit() -> None:
    shapes = [(4, 5), (6, 7), (4, 5), (4, 5), (6, 7), (4, 5)]
    seen: list[list[int]] = []
    Passes(pixels=60).run(shapes, seen.append)
    assert seen == [[0, 2, 3], [5], [1], [4]]
    seen.clear()
    Passes(pixels=60).run(shapes, seen.append, per_row=2)
    assert seen == [[0], [2], [3], [5], [1], [4]]


def test_halves_until_it_fits_and_stays_there(caplog: pytest.LogCaptureFixture) -> None:
    passes = Passes()
    seen: list[list[int]] = []

    def work(rows: list[int]) -> None:
        if len(rows) > 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        seen.append(rows)

    passes.run([(10, 10)] * 11, work)
    assert sorted(row for rows in seen for row in rows) == list(range(11))
    assert [len(rows) for rows in seen] == [3, 3, 3, 2]  # 11 -> 6 and 5 -> 3, 3 and 3, 2
    assert passes.shortages == 3 and passes.pixels == 300
    assert passes.caution == "out of CUDA memory 3 times, goes on with at most 300 px a pass"
    assert caplog.record_tuples[-1] == (
        "geowarp_ros.model.passes", logging.WARNING, "a pass of 10×10 px, 5 deep: " + passes.caution
    )  # fmt: skip
    seen.clear()
    passes.run([(10, 10)] * 7, work)
    assert [len(rows) for rows in seen] == [3, 3, 1] and passes.shortages == 3


def test_a_single_image_gets_what_the_cache_frees_and_then_is_refused() -> None:
    passes = Passes()
    tried: list[list[int]] = []

    def work(rows: list[int]) -> None:
        tried.append(rows)
        if len(tried) < 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    passes.run([(10, 20)], work)
    assert tried == [[0], [0]]

    def never(rows: list[int]) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(ModelError, match=r"^out of CUDA memory for a single image of 20×10 px: expected .*'cpu'"):
        passes.run([(10, 20)], never)


def test_other_errors_are_no_matter_of_memory() -> None:
    def broken(rows: list[int]) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    passes = Passes()
    with pytest.raises(RuntimeError, match="illegal"):
        passes.run([(4, 4)] * 4, broken)
    assert passes.shortages == 0


def test_no_tensor_of_a_failed_pass_is_held_while_the_halves_run() -> None:
    large: list[weakref.ref[Tensor]] = []
    done: list[list[int]] = []

    def work(rows: list[int]) -> None:
        tensor = torch.zeros(len(rows))
        if len(rows) > 1:
            large.append(weakref.ref(tensor))
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        assert large[0]() is None
        done.append(rows)

    Passes().run([(4, 4)] * 2, work)
    assert done == [[0], [1]]


def test_descriptors_and_scores_are_the_same_in_smaller_passes() -> None:
    images = [picture(48, 64, seed) for seed in range(5)]
    roomy = Describer(make_model(), "cpu")
    narrow = Describer(make_model(), "cpu")
    taken = outgrown(narrow, 2)
    expected, found = roomy.describe_batch(images), narrow.describe_batch(images)
    assert taken == [5, 3, 2, 1, 2]
    np.testing.assert_allclose(found[0], expected[0], atol=1e-5)
    np.testing.assert_allclose(found[1].astype(float), expected[1], atol=1e-3)
    query = roomy(images[0])
    wanted = Warper(roomy)(query, images, expected[1])
    np.testing.assert_allclose(Warper(narrow)(query, images, expected[1]).score, wanted.score, rtol=1e-4)
    assert "out of CUDA memory" in narrow.passes.caution and not roomy.passes.caution
