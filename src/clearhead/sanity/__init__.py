"""What an explanation should depend on, changed: the weights, the target, the input, and the input by next to nothing.

The model's side of the tests whose maps `checks.sanity` compares. Everything is put back, bit by bit.
"""

from clearhead.sanity.nearby import near
from clearhead.sanity.others import other
from clearhead.sanity.randomising import layers, randomised
from clearhead.sanity.settling import settled
from clearhead.sanity.targets import targets

__all__ = ["layers", "near", "other", "randomised", "settled", "targets"]
