"""Attention: seen in any model, rolled out, flowed, weighed by gradients; GradCAM of hidden states."""
