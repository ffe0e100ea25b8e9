"""What a run says in a sentence, held against shares and intervals worked by hand."""

from __future__ import annotations

from typing import Any

import pytest

from geowarp_ros.evaluation.judging import figures
from geowarp_ros.evaluation.words import ON_A_DRIVE as OWN
from geowarp_ros.evaluation.words import conclusion, interval, sentence
from test.evaluation import runs


def told(errors_m: list[float], lost: tuple[int, ...] = (), **kwargs: Any) -> str:
    """The conclusion of a drive whose answers are so far off; ``lost`` rows are no fixes."""
    return conclusion(figures(runs.run(errors_m, lost, **kwargs)))


def test_no_guess_was_wrong_and_a_calibration_would_answer_more() -> None:
    # Wilson, 0 of 42: 1.96² / (42 + 1.96²) = 8.38 %
    assert told([1.0] * 42, tuple(range(10))) == (
        "0 of 42 guesses were wrong by more than 25 m at any threshold (95 %: below 8.4 %);"
        " a calibration on a drive of this place would answer more"
    )
    assert told([1.0] * 42, tuple(range(10)), calibration=OWN).endswith(
        "; its calibration let 32 of them be answered"
    )
    assert told([1.0] * 42).endswith("(95 %: below 8.4 %); all were answered")


def test_few_images_are_called_few() -> None:
    # 1.96² / (5 + 1.96²) = 43.4 %
    assert (
        "0 of 5 guesses were wrong by more than 25 m at any threshold (95 %: below 43 %, for 5 are few)"
        in told([1.0] * 5)
    )
    assert "few" not in told([1.0] * 30)


def test_wrong_guesses_are_counted_among_the_answered() -> None:
    wrong = [60.0, 70.0] + [1.0] * 38
    # Wilson, 2 of 40: 1.4 to 16.5 %; 0 of 38: 9.2 %; 1 of 39: 0.45 to 13.2 %
    assert told(wrong, (0, 1)) == (
        "2 of 40 guesses were wrong by more than 25 m at any threshold (95 %: 1.4 to 17 %); of the 38 answered 0"
        " (95 %: below 9.2 %)"
    )
    half = told(wrong, (0,))
    assert half.endswith(
        "; of the 39 answered 1 (95 %: 0.45 to 13 %); a calibration on a drive of this place would tell them apart"
    )
    assert told(wrong, (0,), calibration=OWN).endswith("; of the 39 answered 1 (95 %: 0.45 to 13 %)")
    assert "1 of 40 guesses was wrong" in told([60.0] + [1.0] * 39)
    assert told([60.0] * 40, tuple(range(40))).endswith("at any threshold (95 %: above 91 %); of the 0 answered 0")


def test_nothing_to_judge_and_an_older_run() -> None:
    nothing = figures(runs.run([float("nan")] * 3, (0, 1, 2)))
    assert conclusion(nothing).startswith("no image had a guess that could be judged")
    older = figures(runs.run())
    del older["guesses"]
    assert conclusion(older) == "" and sentence("") == ""
    assert sentence("no fix") == "No fix."


def test_an_interval_is_never_a_bare_zero() -> None:
    share = {"value": 0.0, "low": 0.0, "high": 0.00045, "count": 0, "of": 8400}
    assert interval(share) == "95 %: below 0.045 %"
    assert interval({"value": 1.0, "low": 0.72, "high": 1.0, "count": 10, "of": 10}) == "95 %: above 72 %"
    assert interval({"value": 0.99, "low": 0.985, "high": 0.997, "count": 990, "of": 1000}) == "95 %: 98 to 100 %"


@pytest.mark.parametrize("lost", [(), (0, 1)])
def test_of_a_recorded_run_the_fixes_are_judged(lost: tuple[int, ...]) -> None:
    from dataclasses import replace

    import numpy as np

    run = runs.run([1.0] * 40, lost)
    bare = []
    for item in run.answered:
        fix = item.answer.fix and replace(item.answer.fix, confidence=np.nan)
        given = item.answer if fix is None else replace(item.answer, result=fix)
        if fix is None:
            given = replace(given, result=replace(given.result, confidence=np.nan))
        bare.append(replace(item, answer=given, position=fix))
    said = conclusion(figures(replace(run, answered=tuple(bare))))
    count = 40 - len(lost)
    assert said.startswith(f"0 of {count} fixes were wrong by more than 25 m (95 %: below ")
    assert "calibration" not in said and "threshold" not in said
