"""What vectors of words start from: axes of the words near one another, joined with axes of those right beside others.

Letters: D words, d width, k axes of words near one another, c of words right beside others; M (D, D) information on
the former, T (2D, D) on the latter, its rows "right after" and "right before" each word; X (3D, D) = [M; T].
U, Λ: eigenvectors (D, k) and eigenvalues (k,) of M.
"""

from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from widehead.models.axes import principal_axes
from widehead.models.eigen import positive_eigenpairs
from widehead.models.sparse import product_of

_NEAR = 256  # k at most: with more of these axes, vectors are worse on people's judgements of how alike words are
_BASIS = 4  # dimensions of the space that these are found in, in k
_POWER = 0.25  # of the eigenvalues in the vectors: small powers are good for similarity
_BREADTH = 0.25  # power of how many others stand beside a word, its weight in T's axes, which rare words would take
_SHARE = 0.4  # squared norm of the vectors' part from T, in that of the part from M
_ROUNDING = 1e-6  # of a matrix of dot products in float32: what is smaller in it is not known


def word_inputs(matrix: Any, sided: Any, width: int, seed: int) -> Tensor:
    """(3D, d) float32 H for which the output layer with the least squared error, Xᵀ H (HᵀH)⁻¹, has good word vectors.

    The vectors Y (D, d) that it ends at are the d main axes of [UΛ^¼, sTᵀB]. B (2D, c) is J(JᵀJ)⁻¹ for J = TFZ, Z the
    main axes of TF, with F a weight of each word: TᵀB is the least-squares fit of words by J; s makes this part's norm
    a fixed share of the other's. Both parts are linear in X, as UΛ^¼ = MᵀUΛ^(−¾), and so Y = XᵀG; H = G(GᵀG)⁻¹. Where
    M is not quite symmetric, U and Λ are those of (M + Mᵀ)/2, and Y is near what is said here.

    Axes that do not exist, with fewer words than d, are columns of zeros.

    Args:
        matrix: M, scipy sparse, or its `SymmetricPart`. sided: T, scipy sparse.
        width: d.
        seed: of what is drawn to find axes.

    Raises:
        ValueError: M holds NaN or infinity.
    """
    near = min(width, _NEAR)
    values, vectors = positive_eigenpairs(matrix, near, basis=_BASIS * near, seed=seed)
    contexts, folding, fitted = _sided_axes(sided, max(2 * near, width), seed)
    joined = torch.cat([vectors * values.pow(_POWER), fitted], dim=1)
    scale = _scale(joined, near)
    joined[:, near:] *= scale
    axes = _main_axes(joined, width)
    upper = _power(values.double(), _POWER - 1.0)[:, None] * axes[:near]
    lower = scale * folding @ axes[near:]
    # GᵀG from what its factors are: UᵀU = I, and BᵀB = (JᵀJ)⁻¹.
    gram = upper.T @ upper + scale * axes[near:].T @ lower
    inverse = torch.linalg.pinv(gram, hermitian=True, rtol=_ROUNDING**2)
    return torch.cat([vectors @ (upper @ inverse).float(), contexts @ (lower @ inverse).float()])


def _sided_axes(sided: Any, axes: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """J (2D, c), (JᵀJ)⁻¹ (c, c) float64 and TᵀB (D, c)."""
    neighbours = np.bincount(sided.indices, minlength=sided.shape[1])
    weighted = (sided @ scipy.sparse.diags(neighbours.astype(np.float32) ** _BREADTH)).tocsr().astype(np.float32)
    found = torch.from_numpy(principal_axes(weighted, axes, seed))
    contexts = product_of(weighted)(found)
    inverse = torch.linalg.pinv((contexts.T @ contexts).double(), hermitian=True, rtol=_ROUNDING)
    return contexts, inverse, product_of(sided.T.tocsr())(contexts) @ inverse.float()


def _scale(joined: Tensor, near: int) -> float:
    """s, for columns (D, k + c) of which the last are without it; 1 where a part is nothing."""
    first, second = (float(torch.linalg.vector_norm(part)) for part in (joined[:, :near], joined[:, near:]))
    return _SHARE**0.5 * first / second if first > 0.0 and second > 0.0 else 1.0


def _main_axes(joined: Tensor, width: int) -> Tensor:
    """(k + c, d) float64 orthonormal directions in which the rows are longest; zeros where they have no length."""
    lengths, axes = (part.flip(-1)[..., :width] for part in torch.linalg.eigh((joined.T @ joined).double()))
    return torch.where(lengths > _ROUNDING * lengths[0].abs(), axes, 0.0)


def _power(values: Tensor, power: float) -> Tensor:
    """Of positive numbers; 0 stays 0."""
    return torch.where(values > 0.0, values, 1.0).pow(power) * (values > 0.0)
