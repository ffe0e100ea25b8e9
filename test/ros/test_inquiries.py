from __future__ import annotations

from concurrent.futures import Future

import pytest

from geowarp_ros.ros.inquiries import Inquiries, telling
from geowarp_ros.types import Answer, NoFix


@pytest.fixture
def inquiries() -> Inquiries:
    return Inquiries(lambda: 100.0)


def test_an_image_answers_those_for_whom_it_is_young_enough(inquiries: Inquiries) -> None:
    assert not inquiries and inquiries.take(100.0) == []
    _, patient = inquiries.ask(5.0)
    earliest_s, strict = inquiries.ask(1.0)
    assert earliest_s == 99.0 and inquiries
    assert inquiries.take(94.9) == []
    assert inquiries.take(98.0) == [patient]
    assert inquiries.take(98.9) == []
    assert inquiries.take(99.0) == [strict]
    assert not inquiries


def test_who_gives_up_is_not_waited_for(inquiries: Inquiries) -> None:
    _, caller = inquiries.ask(1.0)
    assert caller.cancel()
    assert not inquiries and inquiries.take(100.0) == []
    _, caller = inquiries.ask(1.0)
    assert inquiries.take(100.0) == [caller]
    assert not caller.cancel()  # its image is in progress


def test_a_refusal_reaches_all(inquiries: Inquiries) -> None:
    callers = [inquiries.ask(age_s)[1] for age_s in (0.1, 10.0)]
    inquiries.refuse("not now")
    for caller in callers:
        assert caller.result(0).result == NoFix("no_image", "not now")


def test_what_is_raised_is_raised_to_those_who_wait() -> None:
    caller = Future[Answer]()
    with pytest.raises(ValueError, match="surprise"), telling([caller]):
        raise ValueError("surprise")
    with pytest.raises(ValueError, match="surprise"):
        caller.result(0)
