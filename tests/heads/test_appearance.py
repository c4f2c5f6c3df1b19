"""The report as a whole: what is looked at, named and grouped belongs to the head it is said of."""

from __future__ import annotations

import numpy as np
import pytest

from clearhead import AttentionVisualizer
from clearhead.heads import appearance, clusters, patterns
from tasks.gallery import gallery

CASES = ["text-classification/bert", "causal-lm/llama-writer", "encoder-decoder/bart", "image-classification/swin"]


@pytest.mark.parametrize("name", CASES)
def test_names_and_groups_are_those_of_the_maps_in_the_order_of_the_heads(name):
    entry = gallery(name)
    av = AttentionVisualizer(entry.model, entry.processor, task=entry.task)
    inputs = list(entry.inputs[:3])
    report = av.heads(inputs)
    maps = [av.attention(each) for each in inputs]
    listed = [
        (stream.name, n, head) for stream in maps[0] for n, layer in enumerate(stream) for head in range(layer.heads)
    ]
    said = {key: each.name for key, each in zip(listed, patterns.of(maps), strict=True)}
    assert [each.name for each in report.patterns] == [said[h.stream, h.layer, h.head] for h in report.heads]
    for mine, theirs in zip(report.clusters, clusters.of(maps), strict=True):
        members = [listed[n] for n in theirs.members]
        assert [(report.heads[n].stream, report.heads[n].layer, report.heads[n].head) for n in mine.members] == members
        np.testing.assert_array_equal(mine.labels, theirs.labels)
        assert set(mine.medoids) <= set(mine.members)


def test_many_documents_are_sampled_and_said_to_be(monkeypatch):
    monkeypatch.setattr(appearance, "MOST", 2)
    entry = gallery("text-classification/bert")
    report = AttentionVisualizer(entry.model, entry.processor).heads(list(entry.inputs[:3]))
    assert "Patterns and clusters were read from 2 of 3 documents." in report.notes


def test_the_number_of_groups_can_be_given():
    entry = gallery("text-classification/bert")
    report = AttentionVisualizer(entry.model, entry.processor).heads(list(entry.inputs[:3]), clusters=3)
    assert [len(each.medoids) for each in report.clusters] == [3]
