"""The survey of model types: what it makes small, what it tries, what is a fault, and that crashes cost little."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from torch import nn

from clearhead.coverage.__main__ import main
from clearhead.coverage.building import KINDS, NotBuiltError, built, merged, said, stirred, types
from clearhead.coverage.filling import guesses
from clearhead.coverage.sizes import LAYERS, SMALL, VOCABULARY, WAYS, role, shrunk
from clearhead.coverage.survey import Books, Record, narrowed, scalar, surveyed
from clearhead.coverage.table import faults, markdown
from clearhead.coverage.workers import carried_out
from errands import errand

# ---- sizes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hidden_size", "width"),
        ("d_model", "width"),
        ("encoder_ffn_dim", "inner"),
        ("intermediate_size", "inner"),
        ("moe_intermediate_size", "inner"),
        ("num_key_value_heads", "keys"),
        ("decoder_attention_heads", "heads"),
        ("head_dim", "head"),
        ("num_hidden_layers", "layers"),
        ("n_layer", "layers"),
        ("vocab_size", "vocabulary"),
        ("num_experts_per_tok", "chosen"),
        ("n_routed_experts", "experts"),
        ("max_position_embeddings", "position"),
        ("image_size", "image"),
        ("layer_norm_eps", None),
        ("patch_size", None),
        ("num_channels", None),
        ("hidden_act", None),
    ],
)
def test_a_field_is_known_by_its_name(name, expected):
    assert role(name) == expected


def test_every_size_of_a_configuration_is_shrunk_and_parts_are_too():
    """Field by field, for one that holds two others."""
    fields = shrunk(transformers.CLIPConfig(), WAYS["smallest"])
    text = transformers.CLIPConfig(**fields).text_config
    assert (text.hidden_size, text.num_hidden_layers, text.vocab_size) == (SMALL["width"], LAYERS, VOCABULARY)
    assert text.eos_token_id < VOCABULARY


def test_special_ids_stay_different_from_each_other():
    config = transformers.BertConfig(pad_token_id=50_000, bos_token_id=50_001, eos_token_id=50_000, sep_token_id=3)
    fields = shrunk(config, WAYS["smallest"])
    assert fields["pad_token_id"] == fields["eos_token_id"] != fields["bos_token_id"]
    assert max(fields[name] for name in ("pad_token_id", "bos_token_id")) < VOCABULARY
    assert "sep_token_id" not in fields  # it fits as it is


def test_lists_by_stage_keep_their_length_and_their_proportions():
    fields = shrunk(transformers.SegformerConfig(), WAYS["smallest"])
    before = transformers.SegformerConfig()
    assert [8 * each for each in fields["hidden_sizes"]] == list(before.hidden_sizes)
    assert len(fields["depths"]) == len(before.depths)


def test_each_way_is_less_small_than_the_one_before():
    """Of a configuration whose sizes are all large: how many weights there are."""
    sizes = []
    for name in ("smallest", "divided", "narrow"):
        config = transformers.BertConfig(**shrunk(transformers.BertConfig(), WAYS[name]))
        with torch.device("meta"):
            sizes.append(sum(p.numel() for p in transformers.BertModel(config).parameters()))
    assert sizes == sorted(sizes)
    assert sizes[0] < 100_000


def test_hints_are_laid_over_what_was_found():
    assert merged({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"c": 4}, "e": 5}) == {"a": 1, "b": {"c": 4, "d": 3}, "e": 5}


# ---- models and what they are given --------------------------------------------------------------------------------


def test_plain_types_are_those_without_another_kind():
    plain = set(types("plain"))
    assert plain
    assert all(plain.isdisjoint(types(kind)) for kind in KINDS if kind != "plain")


@pytest.mark.parametrize(
    ("kind", "name", "given"),
    [
        ("sequence-classification", "bert", {"input_ids", "attention_mask"}),
        ("seq2seq-lm", "t5", {"input_ids", "decoder_input_ids", "attention_mask"}),
        ("image-classification", "vit", {"pixel_values"}),
        ("plain", "clip", {"input_ids", "attention_mask", "pixel_values"}),
    ],
)
def test_a_model_is_given_what_it_takes(kind, name, given):
    found = built(kind, name)
    assert set(found.inputs) == given
    assert found.way == "smallest"
    first = next(guesses(found.model))
    assert torch.equal(first[next(iter(given & set(first)))], found.inputs[next(iter(given & set(first)))])


def test_what_stands_in_the_way_is_told():
    with pytest.raises(NotBuiltError, match=r"natten"):
        built("image-classification", "dinat")


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("no model in '/home/me/.venv/lib/models.py'", "no model in 'models.py'"),
        (r"no C:\me\lib\models.py", "no models.py"),
        ("see https://example.org/docs/models, of 3/4 or a/b", "see https://example.org/docs/models, of 3/4 or a/b"),
    ],
)
def test_a_reason_names_no_folder_of_the_machine(message, told):
    assert said("built", OSError(message)) == f"not built: OSError: {told}"


def test_new_weights_are_stirred_so_that_all_of_them_matter():
    """Zeros would hide what a bias does, and small matrices what a layer does."""
    net = nn.Sequential(nn.Linear(32, 32), nn.LayerNorm(32))
    nn.init.normal_(net[0].weight, std=0.01)
    nn.init.zeros_(net[0].bias)
    stirred(net.requires_grad_(False))
    assert 0.1 < float(net[0].weight.std()) < 0.3
    assert float(net[0].bias.abs().min()) > 0
    assert not torch.equal(net[1].weight, torch.ones(32))


def test_single_precision_inside_a_double_model_is_noticed():
    class Careful(nn.Module):
        def forward(self, x):
            return x.to(SINGLE).softmax(-1).double()

    x = {"x": torch.randn(2, 3, dtype=torch.float64)}
    assert narrowed(Careful(), x) == ["_to_copy", "_softmax"]
    assert narrowed(nn.Identity(), {"input": x["x"]}) == []


SINGLE = torch.float32


def test_the_largest_score_of_the_last_position_is_explained():
    logits = torch.tensor([[[9.0, 0.0], [1.0, -3.0]]])
    assert scalar(transformers.modeling_outputs.CausalLMOutput(logits=logits), [logits]) == -3
    y = torch.tensor([[3.0, 4.0]])
    assert scalar({"loss": torch.tensor(7.0), "y": y}, [torch.tensor(7.0), y]) == 5


@pytest.mark.parametrize(
    "task", ["sequence-classification/roberta", "causal-lm/qwen3", "image-classification/convnext"]
)
def test_some_types_keep_all_that_is_promised(task):
    """A sample of the table, measured anew."""
    record = surveyed(*task.split("/"))
    assert faults(record) == []
    assert set(record.books) == {"float32", "float64"}
    assert all(each.value and each.seconds for found in record.books.values() for each in found.values())
    again = Record.from_dict(json.loads(json.dumps(record.as_dict())))
    assert (again.way, again.inputs, again.as_dict()) == (record.way, record.inputs, record.as_dict())


# ---- what is a fault -----------------------------------------------------------------------------------------------

GOOD = {"value": 1.0, "conservation_error": 1e-12, "residual": 1e-12, "difference": 0.0, "seconds": 0.1}


def record_of(way: str = "lrp", dtype: str = "float32", narrow: tuple[str, ...] = (), **changed) -> Record:
    books = {name: Books(**GOOD) for name in ("lrp", "attnlrp", "secant")}
    books[way] = Books(**{**GOOD, **changed})
    return Record(kind="plain", model_type="toy", narrow=list(narrow), books={dtype: books})


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, None),
        ({"residual": 2e-5}, "residual 2.0e-05"),
        ({"residual": float("nan")}, "residual nan"),
        ({"conservation_error": 2e-4, "causes": {"bias": 0.1}}, "conservation error 2.0e-04 (bias 1.0e-01)"),
        ({"unruled": {"lgamma": -2e-6}}, "without a rule: `lgamma` loses -2.0e-06"),
        ({"unruled": {"lgamma": 1e-7}}, None),
        ({"difference": 1e-3}, "the answer under the tape differs by 1.0e-03"),
        ({"error": "not explained: ModelError: no"}, "not explained: ModelError: no"),
        ({"dtype": "float64", "residual": 1e-8}, "residual 1.0e-08"),
        ({"dtype": "float64", "residual": 1e-8, "narrow": ("softmax",)}, None),
        ({"way": "attnlrp", "conservation_error": 0.5}, None),
        ({"way": "secant", "conservation_error": 0.5}, "conservation error 5.0e-01"),
    ],
)
def test_what_is_promised_is_held_against_each_record(changed, said):
    assert [fault.said for fault in faults(record_of(**changed))] == ([said] if said else [])


def test_the_table_counts_what_ran_and_what_fell_short():
    text = markdown(
        [record_of(), record_of(residual=1.0), Record(kind="plain", model_type="gone", reason="not | built")]
    )
    assert "3 model types of 1 kinds; 2 can be built" in text
    assert "* lrp: 1 of 2, 50.0 %" in text
    assert "### Fall short (1)" in text
    assert r"| gone | plain | not \| built |" in text


RESULTS = Path(__file__).parents[1] / "bench" / "results"


def test_the_published_table_is_that_of_its_records_and_keeps_the_promise():
    """At least 95 % of what runs, by the default rules and by the published ones."""
    records = [Record.from_dict(each) for each in json.loads((RESULTS / "coverage.json").read_text(encoding="utf-8"))]
    table = (RESULTS / "coverage.md").read_text(encoding="utf-8")
    if f"transformers {transformers.__version__}," in table:  # another release knows other types
        assert [each.model_type for each in records] == [name for kind in KINDS for name in types(kind)]
    ran = [each for each in records if each.books]
    assert len(ran) > 500
    for way in ("lrp", "attnlrp"):
        assert sum(all(fault.way != way for fault in faults(each)) for each in ran) >= 0.95 * len(ran)
    for line in markdown(records).splitlines():
        if line.startswith("* "):
            assert line in table
            assert line.partition(": ")[2] in (RESULTS.parents[1] / "README.md").read_text(encoding="utf-8")


# ---- workers and the command ---------------------------------------------------------------------------------------


def test_a_crash_or_a_hang_costs_one_task():
    tasks = [("a",), ("crash",), ("b",), ("raise",), ("hang",), ("c",)]
    found = {task[0]: (answer, reason) for task, answer, reason in carried_out(errand, tasks, 8)}
    assert [found[name][0] for name in "abc"] == ["A", "B", "C"]
    assert found["crash"] == (None, "the process ended with exit code 7")
    assert found["raise"] == (None, "ValueError: no")
    assert found["hang"] == (None, "took longer than 8 seconds")


def test_the_command_writes_its_tables_and_goes_on_where_it_was(tmp_path, capsys):
    arguments = ["--kind", "causal-lm", "--only", "gpt2", "--kept", str(tmp_path / "kept"), "--out", str(tmp_path)]
    assert main(arguments) == 0
    (line,) = (tmp_path / "kept").read_text(encoding="utf-8").splitlines()
    (data,) = json.loads((tmp_path / "coverage.json").read_text(encoding="utf-8"))
    assert data == json.loads(line)
    assert "gpt2 | causal-lm" in (tmp_path / "coverage.md").read_text(encoding="utf-8")
    planted = {**data, "books": {}, "reason": "planted"}
    (tmp_path / "kept").write_text(json.dumps(planted) + "\n", encoding="utf-8")
    assert main(arguments) == 0
    assert "| gpt2 | causal-lm | planted |" in capsys.readouterr().out


def test_a_pattern_that_matches_nothing_is_told(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--kind", "causal-lm", "--only", "gpt22"])
    assert stopped.value.code == 2
    assert "No type of causal-lm matches 'gpt22'. Did you mean 'gpt2'?" in capsys.readouterr().err
