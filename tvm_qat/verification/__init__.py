"""Does compiled code compute what training meant? Stage by stage, layer by layer."""

from tvm_qat.verification.result import (
    Accuracy,
    Layer,
    Stage,
    Subject,
    Suggestion,
    Summary,
    Trial,
    Verification,
)
from tvm_qat.verification.run import verify

__all__ = [
    "Accuracy",
    "Layer",
    "Stage",
    "Subject",
    "Suggestion",
    "Summary",
    "Trial",
    "Verification",
    "verify",
]
