"""The laboratory: the street world, training, benchmarks, baselines and studies. Nothing outside imports it."""
