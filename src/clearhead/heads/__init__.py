"""Heads of attention: how much they matter, what they look at, which are alike, and the model without them."""
