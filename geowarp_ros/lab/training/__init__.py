"""Training of the network from geotagged images."""
