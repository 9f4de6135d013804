"""The contract: what a producer imports to submit strategies and to understand results."""

from __future__ import annotations

from tasks.client import StrategyClient
from tasks.document import DatasetRef
from tasks.models import (
    ErrorDetail,
    ExecutionLimits,
    ExecutionMetrics,
    ExecutionRequest,
    ExecutionResult,
    ExecutionStatus,
    Violation,
)
from tasks.settings import Settings
from tasks.submission import Submission, SubmissionState
from tasks.sweep import SweepPoint

__all__ = [
    "DatasetRef",
    "ErrorDetail",
    "ExecutionLimits",
    "ExecutionMetrics",
    "ExecutionRequest",
    "ExecutionResult",
    "ExecutionStatus",
    "Settings",
    "StrategyClient",
    "Submission",
    "SubmissionState",
    "SweepPoint",
    "Violation",
]
