"""What an explanation should depend on, changed: the weights, the input, and the input by next to nothing."""

from clearhead.sanity.others import near, other, settled, vocabulary
from clearhead.sanity.randomising import layers, randomised

__all__ = ["layers", "near", "other", "randomised", "settled", "vocabulary"]
