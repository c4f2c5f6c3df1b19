"""Feature attribution for the predictions of one model, by the methods of the field."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from clearhead.attribution import MEANINGS
from clearhead.errors import choice
from clearhead.removal import Removal
from clearhead.subjects import Score, Wanted
from clearhead.visualizer import AttentionVisualizer


class FeatureAttributor:
    """Attributes predictions to units by captum and shap: the same units, targets and baselines as `av.explain`.

    >>> import torch
    >>> from clearhead import AttentionVisualizer, FeatureAttributor
    >>> attributor = FeatureAttributor(AttentionVisualizer(torch.nn.Linear(3, 2)))
    >>> x = {"input": torch.tensor([[1.0, 2.0, 3.0]])}
    >>> r = attributor.attribute(x, "kernel-shap", baseline="zero", target=0)
    >>> r.conservation_error < 1e-4
    True
    """

    def __init__(self, av: AttentionVisualizer) -> None:
        self._av = av

    @property
    def methods(self) -> dict[str, str]:
        """The name of each method, and what it is in a line."""
        return dict(MEANINGS)

    def attribute(
        self,
        inputs: Any,
        method: str = "integrated-gradients",
        *,
        baseline: Any = None,
        target: Score | list[Score] = None,
        **asked: Any,
    ) -> Any:
        """How much each unit contributed: a `RelevanceMap`, or a `GenerationMap`; of a list of inputs a list.

        `baseline` is also how units are removed: `"mask"`, `"pad"`, `"zero"`, `"mean"`, for images `"blur"`, and for
        `kernel-shap`, `shapley-sampling`, `lime`, `occlusion` and `partition-shap` also `"attention-mask"` or
        `"delete"`. `asked` holds what else `av.explain` takes, among it `steps`, `samples` and `seed`. Raises
        UsageError for a method that is none of `methods`, and what `av.explain` raises.
        """
        if method not in MEANINGS:
            raise choice("method", method, MEANINGS)
        return self._av.explain(inputs, method=method, baseline=baseline, target=target, **asked)

    def removal(self, inputs: Any, baseline: Any = None, *, aim: int = 0, **wanted: Any) -> Removal:
        """What the model says to parts of one input: `removal.scores(keep)` for truths `keep` [n, units].

        `baseline` is one of those above, `wanted` a `target`, `contrast`, `position`, `generate` or `continuation`;
        of a text that was produced `aim` is the number of the token. Raises UsageError and ModelError.
        """
        settings = replace(self._av.settings, method="occlusion")
        question = self._av._subject.question(inputs, Wanted(baseline=baseline, **wanted), settings)
        return Removal(question, question.baselines[0], aim)
