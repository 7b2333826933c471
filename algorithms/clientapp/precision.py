"""Mixed precision for any torch training loop: what a GPU's tensor cores take, and plain float32 on a CPU.

bfloat16 has float32's range, so its gradients need no scaling. Older GPUs have float16 alone, in which small gradients vanish: the
loss is scaled up before `backward`, the gradients are scaled back before anything else touches them, and a step with an infinite
gradient is left out (Micikevicius et al., "Mixed Precision Training", 2018). To know of such a gradient, torch's scaler reads one number
back from the GPU in each step; with bfloat16 nothing is read.
"""

import torch


class MixedPrecision:
    """How one training runs; made anew for each, since the scale that float16 needs is found while training.

    Args:
        place: where it runs.
        dtype: of the matrix work; None chooses: bfloat16 or float16 on a GPU, float32 on a CPU.
    """

    def __init__(self, place: torch.device, dtype: torch.dtype | None = None) -> None:
        if dtype is None:
            dtype = _best(place)
        self.dtype = dtype
        self._place = place
        self._scaler = torch.amp.GradScaler(place.type, enabled=dtype is torch.float16)

    def autocast(self) -> torch.autocast:
        """Return the context in which the network and its loss are computed."""
        lower = self.dtype is not torch.float32
        return torch.autocast(self._place.type, dtype=self.dtype if lower else None, enabled=lower)

    def backward(self, loss: torch.Tensor, optimiser: torch.optim.Optimizer) -> None:
        """Compute gradients and leave them at their own size, so that a term may be added or a norm taken."""
        torch.autograd.backward(self._scaler.scale(loss))
        self._scaler.unscale_(optimiser)

    def step(self, optimiser: torch.optim.Optimizer) -> None:
        """Take the optimiser's step, unless a gradient overflowed."""
        self._scaler.step(optimiser)
        self._scaler.update()


def _best(place: torch.device) -> torch.dtype:
    if place.type != "cuda":
        return torch.float32
    # In hardware: torch says yes of older GPUs too, which take bfloat16 apart into slow steps.
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float16
