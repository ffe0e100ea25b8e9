"""The photographs' own poses, and the points that they see: what a camera's pose is measured against."""
