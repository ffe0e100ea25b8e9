"""Visual geolocalization for robots: camera image in, position with covariance out, or an honest "lost"."""

__version__ = "0.1.0"
