"""The nearest descriptors: exactly, or by a compressed index."""
