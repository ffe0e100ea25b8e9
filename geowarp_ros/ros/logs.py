"""Log records of the core, passed to the ROS logger of the node that caused them."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import Any

current_node: ContextVar[Any] = ContextVar("current_node", default=None)
"""The node whose callback or worker is running in this thread; None outside of both."""


class RosLogHandler(logging.Handler):
    """Passes records of :mod:`logging` to ROS, because the core does not import it.

    A record goes to the logger of :data:`current_node`, which has the node's fully qualified name and publishes on
    /rosout, else to the logger of the process.

    Args:
        process_logger: rclpy's logger for records that belong to no node.
    """

    def __init__(self, process_logger: Any) -> None:
        super().__init__()
        self._process_logger = process_logger

    def emit(self, record: logging.LogRecord) -> None:
        """Log the record under the right name."""
        node, text = current_node.get(), self.format(record)
        logger = self._process_logger if node is None else node.get_logger()
        # one call site per severity: rclpy refuses a call site that changes it
        if record.levelno >= logging.ERROR:
            logger.error(text)
        elif record.levelno >= logging.WARNING:
            logger.warning(text)
        else:
            logger.info(text)
