"""Source revision of the running code, recorded with models, trainings and evaluations."""

from __future__ import annotations

import subprocess
from pathlib import Path


def commit() -> str:
    """Return the Git commit of the checkout, with ``-dirty`` if it has local changes; ``unknown`` outside one."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"
