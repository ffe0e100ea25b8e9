"""Re-rankers and descriptors that GeoWarp is compared with; none of them runs in the node."""
