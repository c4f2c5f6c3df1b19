"""Measuring beside other libraries: what is asked and answered over the pipes, who takes turns, what ratios say."""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from bench import peers, peertables
from bench.peertables import BARS, GRADIENT, OURS, agreement, met, ranks, ratio, report, shown
from bench.shapes import build, fill, gradient
from bench.workers.environments import UnavailableError, pinned, ready
from bench.workers.pipes import GoneError, RefusedError, Worker
from bench.workers.serve import Session, serve

FAKE = """
import json, sys
n = 0
for line in sys.stdin:
    request = json.loads(line)
    n += 1
    if request["do"] == "end":
        print("out of patience", file=sys.stderr)
        sys.exit(3)
    if request["do"] == "sleep":
        import time
        time.sleep(60)
    print(json.dumps({"error": "ValueError: no"} if request["do"] == "fail" else {"ms": n, "request": request}))
    sys.stdout.flush()
"""


@pytest.fixture
def fake():
    with Worker([sys.executable, "-c", FAKE]) as worker:
        yield worker


# ---- pipes -----------------------------------------------------------------------------------------------------------


def test_a_worker_is_asked_and_lives_on_after_what_it_refuses(fake):
    assert fake.ask("run", row="a", length=3) == {"ms": 1, "request": {"do": "run", "row": "a", "length": 3}}
    with pytest.raises(RefusedError, match="ValueError: no"):
        fake.ask("fail")
    assert fake.ask("run")["ms"] == 3


def test_a_worker_that_ends_is_told_by_its_last_words(fake):
    with pytest.raises(GoneError, match="out of patience"):
        fake.ask("end")
    with pytest.raises(GoneError, match="out of patience"):
        fake.ask("run")


def test_a_worker_that_does_not_answer_is_given_up(fake):
    with pytest.raises(GoneError, match="no answer in 0 s"):
        fake.ask("sleep", limit=0.2)


def test_a_worker_answers_what_it_was_asked_and_survives_errors():
    class Two:
        def twice(self, x: int) -> dict[str, int]:
            return {"x": 2 * x}

    lines = [{"do": "twice", "x": 4}, {"do": "thrice", "x": 4}, {"do": "twice"}, {"do": "twice", "x": 5}]
    replies = io.StringIO()
    serve(Two(), io.StringIO("".join(json.dumps(each) + "\n" for each in lines)), replies)
    first, unknown, incomplete, last = map(json.loads, replies.getvalue().splitlines())
    assert (first, last) == ({"x": 8}, {"x": 10})
    assert unknown["error"].startswith("AttributeError")
    assert incomplete["error"].startswith("TypeError")


def test_a_session_measures_the_toy_model():
    session, threads = Session("clearhead"), torch.get_num_threads()
    built = session.build("toy", threads=threads)
    assert built["versions"]["torch"] == torch.__version__
    assert built["weights"] == pytest.approx(Session("plain").build("toy", threads=threads)["weights"])
    for row in (GRADIENT, "tape without rules", "attnlrp", "explain, default"):
        assert session.run(row, 8)["ms"] > 0
    alone = gradient(fill(build("toy")), 8)().flatten().double().tolist()
    assert session.relevance(GRADIENT, 8)["relevance"] == pytest.approx(alone)
    assert len(session.relevance("attnlrp", 8)["relevance"]) == 8


def test_weights_depend_on_names_alone():
    model, other = build("toy"), build("toy")
    with torch.no_grad():
        for x in other.parameters():
            x.zero_()
    fill(model), fill(other)
    pairs = list(zip(model.state_dict().values(), other.state_dict().values(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert sum(float(a.float().std()) > 0 for a, _ in pairs if a.numel() > 1) > len(pairs) / 2


# ---- environments ----------------------------------------------------------------------------------------------------


def test_our_own_pin_is_read():
    assert pinned("torch") == "torch==" + torch.__version__.split("+", maxsplit=1)[0]
    with pytest.raises(UnavailableError, match="no pin of nothing-at-all"):
        pinned("nothing-at-all")


def test_an_environment_that_is_there_is_not_made_again(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr("bench.workers.environments._called", calls.append)
    for _ in range(2):
        (tmp_path / "p" / "q").mkdir(parents=True, exist_ok=True)
        python = ready("q", arguments="--no-index", home=tmp_path / "p", recipes={"q": ("{torch} x==1", "--no-deps y")})
    assert python == tmp_path / "p" / "q" / "bin" / "python"
    made, first, second = calls
    assert made[1:] == ["-m", "venv", str(tmp_path / "p" / "q")]
    assert first[-3:] == ["--no-index", pinned("torch"), "x==1"]
    assert second[-3:] == ["--no-index", "--no-deps", "y"]


def test_an_environment_that_fails_says_why(tmp_path):
    home = tmp_path / "p"
    (home / "q" / "bin").mkdir(parents=True)
    python = home / "q" / "bin" / "python"
    python.write_text("#!/bin/sh\necho 'ERROR: No matching distribution' >&2\necho after >&2\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(UnavailableError, match=r"^ERROR: No matching distribution$"):
        ready("q", home=home, recipes={"q": ("y",)})


# ---- turns -----------------------------------------------------------------------------------------------------------


class Asked:
    """A pool that counts, and refuses one row after a while."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def ask(self, worker: str, do: str, *, row: str, length: int) -> float:
        self.seen.append((worker, row))
        if worker == "lxt" and len(self.seen) > 4:
            raise RefusedError("no more")
        return float(len(self.seen))


def test_rows_take_turns_and_dear_ones_only_in_the_first_rounds():
    pool, rows = Asked(), [("clearhead", GRADIENT), ("clearhead", "attnlrp"), ("lxt", "attnlrp")]
    taken = peers.timed(pool, 8, rows, 4, dear=2)
    assert len(taken[OURS]) == len(taken["clearhead: attnlrp"]) == 4
    assert [len(taken[f"{worker}: {row}"]) for worker, row in peers.DEAR] == [2, 2]
    assert taken["lxt: attnlrp"] == "no more"
    assert pool.seen.count(("lxt", "attnlrp")) == 2  # once not counted, and once refused
    assert len({pool.seen[4], pool.seen[8]}) == 2  # rounds begin at different rows


def test_what_is_kept_is_not_measured_again(tmp_path, monkeypatch):
    begun = []

    class Fast(peers.Pool):
        def __init__(self, shape: str, *args: object, **more: object) -> None:
            super().__init__(shape, *args, **more)
            begun.append(shape)

        def ask(self, worker: str, do: str, **request: object) -> object:
            return [1.0, 2.0, 3.0] if do == "relevance" else 2.0

    monkeypatch.setattr(peers, "Pool", Fast)
    given = argparse.Namespace(
        shapes=["BERT"], lengths=[128], parts=list(peers.PARTS), rounds=2, threads=1, longest_ig=512, minutes=1.0,
        fresh=False, pip_args="",
    )  # fmt: skip
    path = tmp_path / "kept.json"
    first = peers.Measuring(given, path)
    first.everything()
    assert begun == ["toy", "MLP", "CNN", "BERT", "BERT"]
    again = peers.Measuring(given, path)
    again.everything()
    assert len(begun) == 5
    assert again.cells == first.cells
    given.rounds = 3
    assert peers.Measuring(given, path).cells == {}
    given.minutes = 0
    late = peers.Measuring(given, path)
    late.everything()
    assert late.cells == {}
    text = report(first.cells, given.shapes, given.lengths, "today")
    assert "| `attnlrp`, the pass alone / forward + gradient | 1.05 | 1.00 | 1 of 1 |" in text
    assert "| clearhead default / captum, 20 steps | 0.125 | 1.00 | 0 of 1 |" in text


# ---- tables ----------------------------------------------------------------------------------------------------------


def test_a_ratio_is_taken_within_rounds():
    rows = {"a": [1.0, 20.0, 3.0, 8.0], "b": [1.0, 10.0, 2.0], "c": "ImportError: no", "d": 3.0, "e": 2.0, "f": []}
    assert ratio(rows, "a", "b") == (1.5, 1.0, 2.0)
    assert ratio(rows, "d", "e") == (1.5, 1.5, 1.5)
    assert ratio(rows, "a", "c") == "ImportError: no"
    assert ratio(rows, "a", "f") == ratio(rows, "a", "g") == "not measured"
    five = {"a": [1.0, 2.0, 3.0, 4.0, 50.0], "b": [1.0] * 5}
    assert ratio(five, "a", "b") == (3.0, *np.quantile(five["a"], [0.25, 0.75]))
    assert shown((1.5, 1.0, 2.0)) == "1.50 (1.00 to 2.00)"
    assert shown((0.05, 0.05, 0.05)) == "0.050"
    assert shown("why") == "-"


def test_a_bar_counts_the_cells_that_meet_it():
    bar = next(bar for bar in BARS if bar.limit == 1.05)
    assert met(bar, [(1.05, 1, 1), (1.0504, 1, 1), (1.051, 1, 1), "not measured"]) == "2 of 3"
    assert met(bar, ["not measured"]) == "-"


def test_ranks_and_agreement_are_those_of_scipy():
    draw = np.random.default_rng(0)
    a, b = draw.integers(-3, 4, 40).astype(float), draw.normal(size=40)
    rho, total, worst = agreement(a.tolist(), b.tolist())
    assert rho == pytest.approx(spearmanr(a, b)[0])
    assert total == pytest.approx(np.abs(a - b).sum() / np.abs(a).sum())
    assert worst == pytest.approx(np.abs(a - b).max() / np.abs(a).max())
    assert ranks([5.0, 1.0, 5.0]) == [1.5, 0.0, 1.5]


def test_what_is_missing_is_a_row_with_its_reason():
    rows = {"clearhead: attnlrp": [1.0, 1.0], OURS: [1.0, 1.0], "lxt: attnlrp": "ImportError: a | b\nc"}
    cell = {
        "rows": rows,
        "load": 1.0,
        "versions": {"clearhead": {"torch": "2"}},
        "weights": {"clearhead": 1.0, "lxt": 2.0},
    }
    text = report({"time BERT 128": cell}, ["BERT"], [128], "today")
    assert "| time BERT 128 | lxt: attnlrp | ImportError: a / b c |" in text
    assert "NOT the same" in text
    for line in text.splitlines():
        assert line.count("|") == 0 or line.startswith("| ")
    assert statistics.median(rows[OURS]) == 1.0


def test_the_rows_that_bars_name_are_measured():
    measured = {f"{worker}: {row}" for worker, row in (*peers.TIMED, *peers.DEAR)}
    assert {name for bar in BARS for name in (bar.row, bar.against)} <= measured
    assert set(peertables.TOY_ROWS) == {row for _, row in peers.SHORT} - {GRADIENT}
    assert Path(peers.HOME.name) == Path(".peers")
