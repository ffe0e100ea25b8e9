"""The procedural street world: demo, tests, training data.

``World(WorldConfig(seed=7))`` is a town, ``world.render(world.camera_at(street, along_m), conditions)`` a
photograph of it; ``geowarp world`` writes photographs, positions and drives to disk, by
:mod:`geowarp_ros.lab.world.dataset`.
"""
