"""A head as a plain module that scores, for programs that know nothing of heads."""

from __future__ import annotations

from torch import Tensor, nn

from widehead.losses import Loss


class Scorer(nn.Module):
    """Hidden layers (…, d) to the scores (…, D) that a head ranks classes by: a layer, then what its loss makes of it.

    An ordinary module: torch.export and ONNX take it, it trains, and its state_dict is that of ``linear``.

    Args:
        linear: the outputs o.
        loss: whose `score` ranks classes; None for o itself.
    """

    def __init__(self, linear: nn.Linear, loss: Loss | None = None) -> None:
        super().__init__()
        self.linear = linear
        self.loss = loss

    def forward(self, hidden: Tensor) -> Tensor:
        """(…, D) scores of ``hidden`` (…, d): the best class is the largest."""
        outputs = self.linear(hidden)
        return outputs if self.loss is None else self.loss.score(outputs)

    def extra_repr(self) -> str:
        return "" if self.loss is None else f"loss={type(self.loss).__name__}"
