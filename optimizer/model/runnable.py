"""What can be measured: a model that is called like one of transformers, whatever runs it."""

from typing import Any, Protocol

import torch
from torch import Tensor


class Runnable(Protocol):
    """A model as `load` gives it for any format: a transformers model, or an engine's graph that passes for one.

    It is called with named tensors `[batch, …]` on its `device`, floating ones in its `dtype`, and answers with torch
    tensors under the names that transformers gives them: `logits`; `start_logits` and `end_logits`; `pooler_output` or
    `last_hidden_state`. What it does not take it ignores. `config` is transformers' of the model that it stands for,
    `main_input_name` says what it reads: input_ids, pixel_values or input_values. Only what torch runs need have
    `generate` and `generation_config`, for sequence to sequence, and `get_encoder`.
    """

    config: Any
    main_input_name: str

    @property
    def device(self) -> torch.device:
        """Where its inputs are to be."""

    @property
    def dtype(self) -> torch.dtype:
        """The precision of its floating inputs, images and sound."""

    def __call__(self, **inputs: Tensor) -> Any:
        """The answer to one batch."""
