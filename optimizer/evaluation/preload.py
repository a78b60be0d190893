"""What a fork server imports once, so that every process forked from it has it at once; imports are all it does."""

import contextlib

import torch
import transformers.modeling_utils

import optimizer.evaluation.measure
from optimizer.evaluation import models

models.quiet()
if torch.version.cuda is None:
    # With CUDA this import talks to the device, and no child could use the device after that.
    with contextlib.suppress(ImportError):
        import bitsandbytes

__all__ = ["bitsandbytes", "optimizer", "transformers"]
