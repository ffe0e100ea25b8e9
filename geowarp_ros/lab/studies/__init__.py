"""Studies over several galleries and drives."""
