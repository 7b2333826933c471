"""FedProx's proximal term, for any torch training loop (Li et al., "Federated Optimization in Heterogeneous Networks", 2020).

A station's loss gets `mu / 2 * |w - w0|^2`, where w0 is what the round started from: local training stays near the common model,
whatever the local data pull towards. Its gradient is `mu * (w - w0)`, and that is what is added, after `backward`: the same
numbers without a graph over all weights. With mu = 0 nothing is kept and nothing is added.

Flower's apps are told mu as `proximal-mu` in the message's config; here it is a hyperparameter of the train, signed in the order.
"""

from collections.abc import Iterable

import torch
from torch import nn


class ProximalTerm:
    """The pull towards where a round's training started.

    Args:
        parameters: what is trained, holding the inbound weights now.
        mu: the term's weight, 0 or more.

    Raises:
        ValueError: mu is negative or not a number.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], mu: float) -> None:
        if not mu >= 0:
            raise ValueError("proximal-mu must be 0 or more")
        self._mu = mu
        trained = [each for each in parameters if each.requires_grad] if mu else []
        self._pairs = [(each, each.detach().clone()) for each in trained]

    @torch.no_grad()
    def add_gradient(self) -> None:
        """Add the term's gradient to each parameter's; call it between `backward` and the optimiser's step."""
        for parameter, start in self._pairs:
            pull = parameter.detach() - start
            if parameter.grad is None:
                parameter.grad = pull.mul_(self._mu)
            else:
                parameter.grad.add_(pull, alpha=self._mu)

    @torch.no_grad()
    def loss(self) -> float:
        """Return what the term adds to the loss now."""
        return self._mu / 2 * sum(float(torch.sum((each - start) ** 2)) for each, start in self._pairs)
