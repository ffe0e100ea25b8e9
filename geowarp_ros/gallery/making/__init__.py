"""Making galleries: images described and stored, so that a run that is killed goes on where it stopped."""
