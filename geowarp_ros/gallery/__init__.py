"""Galleries of geotagged photographs: storage and search."""
