"""The network: encoders, aggregation, matching, regression, checkpoints."""
