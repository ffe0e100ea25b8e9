"""The re-rankers: candidates in, candidates out, best first."""
