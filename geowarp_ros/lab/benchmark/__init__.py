"""Run-time benchmarks of the package's components."""
