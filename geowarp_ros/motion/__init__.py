"""What is known besides the newest image: the track, odometry, a prior, and the time there is."""
