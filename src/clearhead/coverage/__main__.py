"""`python -m clearhead.coverage`: build, explain and audit a tiny random model of every type."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import date
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path

from clearhead.coverage.building import KINDS, types
from clearhead.coverage.survey import Record, measured
from clearhead.coverage.table import faults, markdown
from clearhead.coverage.workers import carried_out
from clearhead.errors import suggest


def records(wanted: Sequence[tuple[str, str]], kept: Path | None, seconds: float) -> list[Record]:
    """One record for each type; those that are kept already are not measured again."""
    from tqdm import tqdm

    known = {(each.kind, each.model_type): each for each in _read(kept)}
    missing = [each for each in wanted if each not in known]
    with tqdm(total=len(wanted), initial=len(wanted) - len(missing), desc="model types") as bar:
        for task, data, reason in carried_out(measured, missing, seconds):
            kind, model_type = task
            found = Record.from_dict(data) if data else Record(kind=kind, model_type=model_type, reason=reason)
            known[kind, model_type] = found
            if kept is not None:
                with kept.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(found.as_dict()) + "\n")
            bar.set_postfix_str(f"{model_type}: {_word(found)}", refresh=False)
            bar.update()
    return [known[each] for each in wanted]


def _versions() -> str:
    named = ", ".join(f"{name} {version(name)}" for name in ("transformers", "torch"))
    return f"Printed by `python -m clearhead.coverage`: {named}, {date.today().isoformat()}."


def _word(found: Record) -> str:
    return "not run" if not found.books else "falls short" if faults(found) else "all kept"


def _read(path: Path | None) -> list[Record]:
    if path is None or not path.exists():
        return []
    return [Record.from_dict(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def main(argv: Sequence[str] | None = None) -> int:
    """Read the arguments, measure, and write the tables; 1 if a type that ran falls short."""
    parser = argparse.ArgumentParser(prog="python -m clearhead.coverage", description=__doc__)
    parser.add_argument("--kind", choices=[*KINDS], action="append", help="only models of this kind; may be repeated")
    parser.add_argument("--only", metavar="PATTERN", action="append", help="only types that match, such as '*lm*'")
    parser.add_argument("--kept", type=Path, metavar="FILE", help="finished types lie here, so that a run goes on")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write coverage.md and coverage.json there")
    parser.add_argument("--seconds", type=float, default=120, help="at most, for each type")
    given = parser.parse_args(argv)
    patterns = given.only or ["*"]
    wanted = [
        (kind, each)
        for kind in given.kind or KINDS
        for each in types(kind)
        if any(fnmatch(each, pattern) for pattern in patterns)
    ]
    if not wanted:
        kinds, every = given.kind or [*KINDS], sorted({each for kind in given.kind or KINDS for each in types(kind)})
        near = suggest(patterns[0], every)
        parser.error(f"No type of {', '.join(kinds)} matches {' or '.join(map(repr, patterns))}.{near}")
    found = records(wanted, given.kept, given.seconds)
    text = f"{_versions()}\n\n{markdown(found)}"
    print(text)
    if given.out:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "coverage.md").write_text(text, encoding="utf-8")
        lines = ",\n".join(json.dumps(each.as_dict(), separators=(",", ":")) for each in found)
        (given.out / "coverage.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    return int(any(faults(each) for each in found))


if __name__ == "__main__":
    sys.exit(main())
