"""Feature attribution as the field has it: gradients, paths, Shapley values, local lines; through captum and shap."""

from clearhead.attribution.coalitions import kernel_shap, lime, occlusion, shapley_sampling
from clearhead.attribution.deeplift import deeplift
from clearhead.attribution.gradients import gradient_shap, input_x_gradient, integrated_gradients, saliency
from clearhead.attribution.partition import partition_shap

MEANINGS = {
    "integrated-gradients": "gradients along the straight line from a baseline; add up to the difference",
    "gradient-shap": "the same at random points, from one or several baselines; adds up on average",
    "input-x-gradient": "the input times its gradient; adds up to nothing",
    "saliency": "the size of the gradient, without sign",
    "deeplift": "DeepLIFT's rescale rule, for models that bend only in modules such as nn.ReLU; adds up",
    "kernel-shap": "Shapley values by a line fitted to subsets of units; adds up",
    "shapley-sampling": "Shapley values by random orders of units; adds up",
    "lime": "a line fitted to random subsets near the input",
    "occlusion": "what is lost without each unit alone (leave one out)",
    "partition-shap": "Owen values of tokens in words, or of patches in halves (needs the package shap); adds up",
}

__all__ = [
    "MEANINGS",
    "deeplift",
    "gradient_shap",
    "input_x_gradient",
    "integrated_gradients",
    "kernel_shap",
    "lime",
    "occlusion",
    "partition_shap",
    "saliency",
    "shapley_sampling",
]
