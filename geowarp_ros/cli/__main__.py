"""``python -m geowarp_ros.cli``: the same command, for launchers that take a module (torchrun)."""

import sys

from geowarp_ros.cli import main

sys.exit(main())
