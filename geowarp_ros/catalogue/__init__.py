"""What others publish: which weights there are, under which licence, and how a file of them is fetched."""
