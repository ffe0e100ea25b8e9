"""Geotagged photographs: read, described, stored, searched."""
