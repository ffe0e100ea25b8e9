"""Search for the nearest descriptors: exact, or by a compressed index."""
