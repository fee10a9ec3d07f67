"""What samplers of class ids that do not look at the hidden layer have in common."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from widehead.errors import check_whole

Frequencies: TypeAlias = "Tensor | Sequence[float]"


class Sampler(nn.Module):
    """A fixed distribution q over the class ids 0 … D − 1, each of which has q > 0.

    Law: `sample` draws independently, with replacement, from exactly the q that `log_prob` tells, so that
    Σ f(j)/(n q_j) over n draws is an unbiased estimate of the sum of f over all classes. Draws come from torch's
    default generator of the device.

    Args:
        num_classes: D.
        device: where draws are made; moves with ``.to(device)``.
    """

    _place: Tensor

    def __init__(self, num_classes: int, *, device: torch.device | str | None = None) -> None:
        super().__init__()
        check_whole("num_classes", num_classes)
        self.num_classes = num_classes
        self.register_buffer("_place", torch.empty(0, device=device), persistent=False)

    @property
    def device(self) -> torch.device:
        return self._place.device

    @abstractmethod
    def sample(self, n: int) -> Tensor:
        """(n,) int64 class ids, drawn with replacement.

        Raises:
            ValueError: n is not a whole number of at least 0.
        """

    @abstractmethod
    def log_prob(self, class_ids: Tensor) -> Tensor:
        """log q of each of ``class_ids``, in their shape, float64. Ids should be in [0, D)."""

    def extra_repr(self) -> str:
        return f"num_classes={self.num_classes}"


def checked_draws(n: int) -> int:
    """``n`` itself, if it is a whole number of at least 0."""
    check_whole("n", n, least=0)
    return n


def checked_frequencies(frequencies: Frequencies, num_classes: int | None = None) -> Tensor:
    """(D,) a copy of the frequencies in float64; None: of any number of classes.

    Raises:
        TypeError: no numbers.
        ValueError: another shape, or one that is negative, NaN or infinite.
    """
    try:
        # Where they are, even if torch makes new tensors elsewhere, as on "meta".
        device = getattr(frequencies, "device", "cpu")
        given = torch.as_tensor(frequencies, dtype=torch.float64, device=device).detach().clone()
    except (TypeError, ValueError, RuntimeError) as error:
        found = type(frequencies).__name__
        raise TypeError(f"Parameter `frequencies` should be a tensor of numbers. Found {found}.") from error
    if given.ndim != 1 or given.numel() == 0 or given.numel() != (num_classes or given.numel()):
        size = "num_classes" if num_classes is None else f"num_classes = {num_classes}"
        raise ValueError(f"Parameter `frequencies` should have shape ({size},). Found {tuple(given.shape)}.")
    wrong = ~(torch.isfinite(given) & (given >= 0))
    if bool(wrong.any()):
        at = int(wrong.nonzero()[0])
        raise ValueError(
            f"Parameter `frequencies` should be finite and at least 0. Found frequencies[{at}] = {float(given[at])}."
        )
    return given
