"""What operators write to that must run at every call, in their order. Imported when a trace comes by."""

from __future__ import annotations

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing

#: Every such call writes to it, so that no compiler drops, joins or reorders calls.
with unset_fake_temporarily(), disable_proxy_modes_tracing():  # a trace may be what imports this
    TICKET = torch.zeros(1, dtype=torch.int64, device="cpu")
