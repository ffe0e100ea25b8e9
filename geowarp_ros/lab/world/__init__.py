"""Procedural street world for demo, tests and training data; written to disk by ``geowarp world``.

``World(WorldConfig(seed=7))`` is a town, ``world.render(world.camera_at(street, along_m), conditions)`` an image.
"""
