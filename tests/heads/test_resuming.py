"""An interrupted report goes on where it stopped, the same to the last bit, and takes nothing from another recipe."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from clearhead import AttentionVisualizer, cli
from clearhead.heads import importance
from clearhead.question import Question
from tasks.gallery import gallery

NAME = "text-classification/bert"
TEXTS = ["a gripping , beautiful film !", "this was not a good one", "a film", "a good film .", "it is a bad film"]
LABELS = [1, 0, 1, 1, 0]
PARTS = ("importance", "weights", "relevance")


class Asked:
    """Notes which documents each part is asked about, and stops where it is told to."""

    def __init__(self) -> None:
        self.documents: dict[str, list[str]] = {part: [] for part in PARTS}
        self.stop: tuple[str, int] | None = None

    def note(self, part: str, question: Question) -> None:
        if self.stop is not None and self.stop[0] == part and len(self.documents[part]) >= self.stop[1]:
            raise KeyboardInterrupt
        self.documents[part] += [item.texts["input"] for item in question.items]

    def all(self, part: str) -> list[str]:
        return sorted(self.documents[part])


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    found = Asked()

    def watched(part: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def called(catalogue: Any, question: Question, *args: Any) -> Any:
            found.note(part, question)
            return real(catalogue, question, *args)

        return called

    for part, name in zip(PARTS, ("slopes", "weighted", "relevance"), strict=True):
        monkeypatch.setattr(importance, name, watched(part, getattr(importance, name)))
    return found


def opened(name: str = NAME, **settings: Any) -> AttentionVisualizer:
    entry = gallery(name)
    return AttentionVisualizer(copy.deepcopy(entry.model), entry.processor, task=entry.task, **settings)


@pytest.mark.parametrize("stop", [("importance", 0), ("importance", 2), ("weights", 3), ("relevance", 4)])
def test_a_report_goes_on_where_it_was_stopped(asked, tmp_path, stop):
    whole = opened(batch_size=2).heads(TEXTS)
    asked.__init__()
    asked.stop = stop
    with pytest.raises(KeyboardInterrupt):
        opened(batch_size=2).heads(TEXTS, resume=tmp_path)
    assert len(asked.documents[stop[0]]) >= stop[1]
    asked.stop = None
    found = opened(batch_size=2).heads(TEXTS, resume=tmp_path)
    assert found.to_dict() == whole.to_dict()
    assert {part: asked.all(part) for part in PARTS} == dict.fromkeys(PARTS, sorted(TEXTS))
    assert opened(batch_size=2).heads(TEXTS, resume=tmp_path).to_dict() == whole.to_dict()
    assert asked.all("relevance") == sorted(TEXTS)


def test_groups_are_kept_too(tmp_path):
    texts = ["Two young people are", "A man in a blue shirt"]
    first, again = (opened("causal-lm/llama-writer").heads(texts, of="loss", resume=tmp_path) for _ in range(2))
    assert len(first.groups) == 4
    assert [each.importance for each in again.groups] == [each.importance for each in first.groups]
    assert len(list(tmp_path.iterdir())) == 1


def pruned(av: AttentionVisualizer) -> AttentionVisualizer:
    return AttentionVisualizer(av.pruned("encoder 1.3"), gallery(NAME).processor)


def quieter(av: AttentionVisualizer) -> AttentionVisualizer:
    """One weight of all is another one."""
    with torch.no_grad():
        av.model.bert.encoder.layer[1].output.dense.weight[5, 7] += 0.5
    return av


def otherwise(av: AttentionVisualizer) -> AttentionVisualizer:
    """The same weights, read with other numbers from the configuration."""
    model = copy.deepcopy(av.model)
    model.config.layer_norm_eps = 1e-3
    return AttentionVisualizer(model, gallery(NAME).processor)


@pytest.mark.parametrize(
    ("change", "data", "labels", "options"),
    [
        (pruned, TEXTS, LABELS, {}),
        (quieter, TEXTS, LABELS, {}),
        (otherwise, TEXTS, LABELS, {}),
        (None, [*TEXTS[:4], "it is a good film"], LABELS, {}),
        (None, TEXTS[::-1], LABELS[::-1], {}),
        (None, TEXTS, [1, 0, 1, 1, 1], {}),
        (None, TEXTS, LABELS, {"of": "target"}),
        (None, TEXTS, LABELS, {"absolute": "token"}),
        (None, TEXTS, LABELS, {"epsilon": 0.5}),
    ],
)
def test_nothing_is_taken_from_another_recipe(asked, tmp_path, change, data, labels, options):
    opened().heads(TEXTS, LABELS, of="loss", resume=tmp_path)
    av = opened() if change is None else change(opened())
    asked.__init__()
    found = av.heads(data, labels, resume=tmp_path, **{"of": "loss", **options})
    assert {part: asked.all(part) for part in PARTS} == dict.fromkeys(PARTS, sorted(data))
    assert found.to_dict() == av.heads(data, labels, **{"of": "loss", **options}).to_dict()


def test_nothing_is_taken_from_the_model_with_other_heads(asked, tmp_path):
    av = opened()
    whole = av.heads(TEXTS, resume=tmp_path)
    with av.without("encoder 0.1"):
        asked.__init__()
        less = av.heads(TEXTS, resume=tmp_path)
        assert asked.all("importance") == sorted(TEXTS)
        assert less.importance[1] == 0 < whole.importance[1]
        assert av.heads(TEXTS, resume=tmp_path).to_dict() == less.to_dict()
        assert asked.all("importance") == sorted(TEXTS)
    assert av.heads(TEXTS, resume=tmp_path).to_dict() == whole.to_dict()
    assert asked.all("importance") == sorted(TEXTS)


def test_what_does_not_change_the_numbers_of_a_document_is_free_to_change(asked, tmp_path):
    opened().heads(TEXTS, resume=tmp_path)
    asked.__init__()
    found = opened().heads(TEXTS, resume=tmp_path, normalise=True, clusters=2)
    assert asked.documents == {part: [] for part in PARTS}
    np.testing.assert_array_equal(found.importance, opened().heads(TEXTS, normalise=True).importance)


# ---- on the command line -------------------------------------------------------------------------------------------


@pytest.fixture
def files(tiny_classifier, tmp_path):
    (tmp_path / "texts.tsv").write_text("".join(f"{t}\t{n}\n" for t, n in zip(TEXTS, LABELS, strict=True)))
    return ("heads", "--model", tiny_classifier, "--data", str(tmp_path / "texts.tsv"))


def test_the_command_says_that_work_is_kept_and_goes_on(asked, files, tmp_path):
    kept = ("--resume", str(tmp_path / "kept"), "--json")
    asked.stop = ("relevance", 2)
    done = CliRunner().invoke(cli.app, [*files, *kept])
    assert done.exit_code == 130
    assert f"finished work is kept in {tmp_path / 'kept'}. Give the same command again to go on." in done.stderr
    asked.stop = None
    again = CliRunner().invoke(cli.app, [*files, *kept])
    assert again.exit_code == 0, again.output
    assert {part: asked.all(part) for part in PARTS} == dict.fromkeys(PARTS, sorted(TEXTS))
    assert CliRunner().invoke(cli.app, [*files, "--json"]).stdout == again.stdout


def test_without_a_folder_the_command_promises_nothing(asked, files):
    asked.stop = ("importance", 0)
    done = CliRunner().invoke(cli.app, [*files, "--json"])
    assert done.exit_code == 130
    assert "kept" not in done.stderr


def test_a_folder_that_is_a_file_is_refused_by_the_command(files):
    done = CliRunner().invoke(cli.app, [*files, "--resume", files[-1]])
    assert done.exit_code == 2
    assert "--resume" in done.stderr
