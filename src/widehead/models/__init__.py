"""Networks: an encoder for each kind of input, and the wide output layer on top."""

from widehead.models.axes import principal_axes
from widehead.models.bag import BagEncoder
from widehead.models.eigen import SharedSymmetricPart, positive_eigenpairs
from widehead.models.network import WideNetwork
from widehead.models.optimizer import EncoderOptimizer
from widehead.models.row_split_bag import RowSplitBag
from widehead.models.sequences import SequenceEncoder
from widehead.models.shared_singular import SharedMatrix
from widehead.models.singular import SparseMatrix, leading_singular_vectors
from widehead.models.word_start import word_inputs
from widehead.models.words import ContextEncoder, WordEncoder

__all__ = [
    "BagEncoder",
    "ContextEncoder",
    "EncoderOptimizer",
    "RowSplitBag",
    "SequenceEncoder",
    "SharedMatrix",
    "SharedSymmetricPart",
    "SparseMatrix",
    "WideNetwork",
    "WordEncoder",
    "leading_singular_vectors",
    "positive_eigenpairs",
    "principal_axes",
    "word_inputs",
]
