"""What all tests share: plain logs, and a Hypothesis that finds the same things every time."""

from __future__ import annotations

import os

import structlog
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.support.services"]

structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.processors.format_exc_info,
        structlog.processors.KeyValueRenderer(key_order=["level", "event"]),
    ],
    logger_factory=structlog.PrintLoggerFactory(),
)

settings.register_profile("repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("searching", deadline=None, max_examples=2000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("AMENDS_TEST_HYPOTHESIS", "repeatable"))
