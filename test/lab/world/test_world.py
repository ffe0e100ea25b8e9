from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from geowarp_ros.lab.world.buildings import Building
from geowarp_ros.lab.world.camera import Camera, Vector
from geowarp_ros.lab.world.config import WorldConfig
from geowarp_ros.lab.world.town import Street
from geowarp_ros.lab.world.weather import Conditions, random_conditions
from geowarp_ros.lab.world.world import World
from test.lab.world.conftest import project

PLAIN = Conditions(noise=0.0, vignette=0.0, occluders=0.0, fog_per_m=0.0)
"""Diffuse light, ideal camera, empty streets."""


def middle(world: World, street: Street, **pose: float) -> Camera:
    return world.camera_at(street, street.length_m / 2, **pose)


def test_the_same_seed_gives_the_same_picture_and_another_seed_another(world: World) -> None:
    conditions = Conditions("rain", traffic=3, frame=4)
    camera = middle(world, world.streets[0], heading_offset_deg=60)
    picture = world.render(camera, conditions)
    again = World(world.config)
    assert (again.render(middle(again, again.streets[0], heading_offset_deg=60), conditions) == picture).all()
    other = World(world.config.model_copy(update={"seed": 6}))
    different = other.render(middle(other, other.streets[0], heading_offset_deg=60), conditions)
    assert picture.shape == different.shape == (72, 96, 3)
    assert np.abs(picture.astype(int) - different).mean() > 10


def test_what_was_photographed_before_changes_no_picture(world: World) -> None:
    camera = middle(world, world.streets[0], heading_offset_deg=90)
    before = world.render(camera, PLAIN)
    world.render(middle(world, world.streets[-1]), PLAIN)
    world.render(middle(world, world.streets[-2]), PLAIN)
    assert (world.render(camera, PLAIN) == before).all()


def test_more_training_streets_leave_the_test_streets_as_they_are(world: World) -> None:
    larger = World(world.config.model_copy(update={"train_streets": 9}))
    assert len(larger.streets) == len(world.streets) + 8
    for mine, theirs in zip(world.streets[:3], larger.streets[:3], strict=True):
        assert mine.name == theirs.name
        assert mine.start == pytest.approx(theirs.start)
    assert larger.quarters[0].buildings[5].design == world.quarters[0].buildings[5].design


def test_splits_share_no_house_and_lie_apart(world: World) -> None:
    parts: dict[str, set[int]] = {}
    for quarter in world.quarters:
        parts.setdefault(quarter.part, set()).update(b.design.seed for b in quarter.buildings)
    assert set(parts) == {"test", "val", "train"}
    assert (
        not parts["test"] & parts["val"]
        and not parts["test"] & parts["train"]
        and not parts["val"] & parts["train"]
    )
    middles = np.array([quarter.centre for quarter in world.quarters])
    gaps = np.linalg.norm(middles[:, None] - middles[None], axis=2)[np.triu_indices(len(middles), 1)]
    assert gaps.min() > world.config.street_length_m + 50


@pytest.mark.parametrize("seed", range(4))
def test_rows_of_houses_stand_edge_to_edge_facing_their_street(seed: int) -> None:
    town = World(WorldConfig(seed=seed, streets=4))
    (quarter,) = town.quarters
    plots = len(quarter.buildings) + len(quarter.gaps)
    for house in quarter.buildings:
        # right is the viewer's who faces the house
        assert np.cross(house.right, [0, 0, 1]) == pytest.approx(house.out)
        across = [abs((house.corner[:2] - s.start) @ s.left) - s.width_m / 2 for s in quarter.streets]
        assert min(abs(a) for a in across) < 1e-9
    lines = sum(b.design.width_m for b in quarter.buildings) + sum(g.width_m for g in quarter.gaps)
    inner_and_outer = 2 * sum(s.length_m for s in quarter.streets)
    assert lines == pytest.approx(inner_and_outer, rel=0.02)
    assert plots > 40


def test_the_camera_stands_and_looks_where_it_is_told(world: World) -> None:
    street = world.streets[0]
    camera = world.camera_at(street, 20, 3, 2.2, heading_offset_deg=90)
    offset = camera.position[:2] - street.start
    assert (offset @ street.direction, offset @ street.left) == pytest.approx((20, 3))
    assert camera.camera_from_world[2][:2] == pytest.approx(-street.left)
    assert camera.up_m == 2.2


def test_no_camera_of_a_pass_stands_in_a_wall(world: World) -> None:
    from geowarp_ros.lab.world.passes import shots

    for shot in shots(world):
        offset = shot.camera.position[:2] - shot.street.start
        assert abs(offset @ shot.street.left) < shot.street.width_m / 2 - 1.5


def facing(world: World) -> Iterator[tuple[Camera, Camera, Building]]:
    """Yield pairs of views of one wall, from 2 to 5 m apart."""
    for street in world.streets:
        for along in np.arange(street.margin_m + 3, street.length_m - street.margin_m - 3, 6.0):
            query = world.camera_at(street, along, -1.0, 1.8, 90)
            place = world.camera_at(street, along - 2.5, 1.5, 1.5, 65, pitch_deg=2)
            building = ahead(world, query)
            if building and building.design.awning == "none" and not building.design.balconies:
                yield query, place, building


def ahead(world: World, camera: Camera) -> Building | None:
    """The house whose front the optical axis meets first."""
    met: dict[float, Building] = {}
    for building in (each for quarter in world.quarters for each in quarter.buildings):
        corner, right, down = building.front
        forward = camera.camera_from_world[2]
        distance = (corner - camera.position) @ building.out / (forward @ building.out)
        meeting = camera.position + distance * forward - corner
        inside = 0 <= meeting @ right <= right @ right and 0 <= meeting @ down <= down @ down
        if inside and distance > 0 > forward @ building.out:
            met[distance] = building
    return met[min(met)] if met else None


def pixels_from_wall(camera: Camera, building: Building) -> Vector:
    """The homography (3, 3) from (a, b) on the front, corner + a·right + b·down, to pixels."""
    corner, right, down = building.front
    columns = np.stack([right, down, corner - camera.position], axis=1)
    return camera.matrix @ camera.camera_from_world @ columns


def test_a_wall_seen_twice_is_related_by_its_homography(world: World) -> None:
    # 240 rows, no people, no weather: one view warped by the true homography lies on the other to a pixel or two
    sharp = World(world.config.model_copy(update={"width_px": 320, "height_px": 240}))
    improvement = []
    for query, place, building in facing(sharp):
        pixels = pixels_from_wall(place, building) @ np.linalg.inv(pixels_from_wall(query, building))
        seen, other = (sharp.render(camera, PLAIN).astype(np.float32) for camera in (query, place))
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        warped = cv2.warpPerspective(other, pixels, (320, 240), flags=flags)
        wall = wall_mask(query, building) & wall_mask(place, building, pixels, flags)
        if wall.sum() < 8000:
            continue
        errors = {
            (dx, dy): float(np.abs(np.roll(warped, (dy, dx), (0, 1)) - seen)[wall].mean())
            for dx in (-2, 0, 2)
            for dy in (-2, 0, 2)
        }
        assert min(errors, key=lambda moved: errors[moved]) == (0, 0)
        improvement.append(errors[0, 0] / float(np.abs(other - seen)[wall].mean()))
    # trees and lamps before the wall are not on its plane; without them almost nothing differs
    assert len(improvement) >= 2
    assert min(improvement) < 0.2


def wall_mask(camera: Camera, building: Building, warp: Vector | None = None, flags: int = 0) -> NDArray[np.bool_]:
    """The pixels of a view (or of a warped view) that show the wall itself, without its rim."""
    corner, right, down = building.front
    rim = [(0.05, 0.1), (0.95, 0.1), (0.95, 0.85), (0.05, 0.85)]
    outline = project(camera, [corner + a * right + b * down for a, b in rim])
    mask = np.zeros((camera.height_px, camera.width_px), np.uint8)
    cv2.fillConvexPoly(mask, np.round(outline).astype(np.int32), 1)
    if warp is None:
        return mask > 0
    return np.asarray(cv2.warpPerspective(mask, warp, (camera.width_px, camera.height_px), flags=flags)) > 0


def test_traffic_hides_but_does_not_move_the_houses(world: World) -> None:
    camera = middle(world, world.streets[1])
    empty = world.render(camera, PLAIN)
    busy = world.render(camera, replace(PLAIN, occluders=4, traffic=1))
    changed = (np.abs(empty.astype(int) - busy) > 25).any(-1)
    assert 0.005 < changed.mean() < 0.7


def test_weather_is_seen(world: World) -> None:
    camera = middle(world, world.streets[0])
    clear, overcast, fog = (
        world.render(camera, Conditions(w, noise=0, occluders=0)) for w in ("clear", "overcast", "fog")
    )
    assert np.abs(clear.astype(int) - overcast).mean() > 5
    misty = world.render(camera, Conditions("fog", noise=0, occluders=0, fog_per_m=0.05))
    assert misty.std() < fog.std()


def test_conditions_are_drawn_from_their_seed() -> None:
    first, second, third = (random_conditions(np.random.default_rng(s)) for s in (1, 1, 2))
    assert first == second != third
    assert random_conditions(np.random.default_rng(0), "fog").weather == "fog"
