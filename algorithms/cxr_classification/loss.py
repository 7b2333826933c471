"""The training loss: binary cross-entropy per finding, over what is known, with the rarer class weighted.

Weighting alone would bend the output: a network that minimises cross-entropy with positives counted w times answers
`logit p + log w`, and where each hospital weights by its own prevalence, each pulls towards another answer. So `log w` is added to
the logit inside the loss. The minimum is then at `logit p` whatever w is: hospitals agree on what they look for, and the output is
a probability without a correction afterwards (the same shift as in prior correction: King and Zeng, "Logistic Regression in Rare
Events Data", 2001; as an adjustment of logits in training: Menon et al., "Long-Tail Learning via Logit Adjustment", 2021).
"""

from typing import Final

import torch
from torch import nn

MOST: Final = 4.0
"""A hospital's own weights stay within a factor of this, so that one with few positives does not drown the others."""


def positive_weights(labels: torch.Tensor, given: float) -> torch.Tensor:
    """Return by how much positives count more than negatives, per finding. Shape (findings,).

    Args:
        labels: 0, 1 or not a number. Shape (N, findings).
        given: the same for all findings and hospitals; 0 takes negatives by positives among these labels.
    """
    if given > 0:
        return torch.full_like(labels[0], given)
    positives = torch.nansum(labels, dim=0)
    known = torch.sum(~torch.isnan(labels), dim=0)
    return torch.clamp((known - positives) / positives.clamp(min=1.0), 1 / MOST, MOST)


def finding_loss(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the mean over all known labels; 0 where none is known.

    Args:
        logits: shape (N, findings).
        labels: 0, 1 or not a number. Shape (N, findings).
        weights: of positives. Shape (findings,).
    """
    known = ~torch.isnan(labels)
    each = nn.functional.binary_cross_entropy_with_logits(
        logits.float() + torch.log(weights),
        torch.where(known, labels, 0.0),
        pos_weight=weights,
        reduction="none",
    )
    return torch.sum(torch.where(known, each, 0.0)) / known.sum().clamp(min=1)
