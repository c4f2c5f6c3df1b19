"""The house rules: small functions and files, a light import, no model families in the code, contracts, documents."""

from __future__ import annotations

import ast
import importlib
import inspect
import io
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "clearhead"
FILES = sorted(PACKAGE.rglob("*.py"))
FUNCTION_LINES, FILE_LINES = 40, 400

# Where a longer one reads better: "file.py" or "file.py:function" -> why.
LONGER: dict[str, str] = {
    "cli/commands.py:explain": "one line per flag in the signature, and one in the mapping that names them",
}

HEAVY = {"torch", "transformers", "matplotlib", "rich", "jinja2", "numpy", "typer", "tokenizers", "safetensors"}
LIGHT_SECONDS = 0.100

# "clip" is an operation and "phi" a function of mathematics, so neither is listed.
FAMILIES = set(
    "albert bart beit bert bloom camembert codegen convnext deberta deepseek deit dinov distilbert dpr electra ernie "
    "falcon flaubert gemma gpt hubert llama longformer mamba marian mbart minilm mistral mixtral mobilebert modernbert "
    "mpnet mpt mt5 nllb olmo opus palm pegasus qwen roberta rwkv siglip smollm swin t5 timm vit wav2vec whisper xglm "
    "xlm xlnet".split()
)
# A model in the box names the package that carries its base.
FAMILIES_ALLOWED = {"zoo/assemble.py": {"minilm"}}


def name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


# ---- sizes ---------------------------------------------------------------------------------------------------------


def code_lines(source: str) -> set[int]:
    """The numbers of the lines that hold code: no blank lines, comments or docstrings."""
    empty = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in empty:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        text = docstring(node)
        if text is not None:
            lines -= set(range(text.lineno, text.end_lineno + 1))
    return lines


def docstring(node: ast.AST) -> ast.Constant | None:
    if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or not node.body:
        return None
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        return first.value
    return None


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + node.name, node
        inner = f"{prefix}{node.name}." if hasattr(node, "name") else prefix
        yield from functions(node, inner)


def function_sizes(source: str) -> dict[str, int]:
    lines = code_lines(source)
    return {found: len(lines & set(range(f.lineno, f.end_lineno + 1))) for found, f in functions(ast.parse(source))}


def too_long() -> dict[str, int]:
    found = {}
    for path in FILES:
        source = path.read_text(encoding="utf-8")
        if (length := len(source.splitlines())) > FILE_LINES:
            found[name(path)] = length
        long = {f"{name(path)}:{f}": size for f, size in function_sizes(source).items() if size > FUNCTION_LINES}
        found.update(long)
    return found


def test_functions_and_files_are_small():
    assert {what: size for what, size in too_long().items() if what not in LONGER} == {}


def test_every_exception_is_needed_and_has_a_reason():
    assert set(LONGER) <= set(too_long()), "these are short now: take them off the list"
    assert all(len(reason) > 20 for reason in LONGER.values())


def test_the_measure_counts_code_only_and_would_notice():
    body = "".join(f"    x{n} = {n}\n" for n in range(FUNCTION_LINES))
    source = f'class C:\n  def f(self):\n    """One.\n\n    Two."""\n    # a comment\n\n{body}'
    assert function_sizes(source) == {"C.f": FUNCTION_LINES + 1}


# ---- a light import ------------------------------------------------------------------------------------------------


def python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, **environment}
    )
    return done.stdout


def seconds(code: str) -> float:
    start = time.perf_counter()
    python(code)
    return time.perf_counter() - start


def loaded(code: str) -> set[str]:
    return set(json.loads(python(f"{code}; import json, sys; print(json.dumps(list(sys.modules)))")))


def test_importing_clearhead_is_fast():
    runs = [(seconds("pass"), seconds("import clearhead")) for _ in range(7)]
    bare, with_clearhead = (statistics.median(times) for times in zip(*runs, strict=True))
    assert with_clearhead - bare < LIGHT_SECONDS


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import clearhead", set()),
        (
            "import clearhead; dir(clearhead); clearhead.__version__; clearhead.Settings; clearhead.ClearheadError",
            set(),
        ),
        ("import clearhead; clearhead.RelevanceMap", {"numpy"}),
        ("import clearhead.cli", {"typer"}),
    ],
)
def test_nothing_heavy_is_loaded_before_it_is_used(code, allowed):
    # What an environment loads into every interpreter (a .pth file may) is not ours.
    assert HEAVY & (loaded(code) - loaded("pass")) <= allowed


def test_loading_would_be_noticed():
    assert "numpy" in loaded("import clearhead; clearhead.RelevanceMap")


# ---- the public names ----------------------------------------------------------------------------------------------


def test_public_names_exist_and_are_few():
    import clearhead

    assert len(clearhead.__all__) <= 15
    assert sorted(clearhead.__all__) == dir(clearhead)
    for each in clearhead.__all__:
        assert getattr(clearhead, each) is not None
    with pytest.raises(AttributeError, match="no attribute 'AttentionVisualiser'"):
        _ = clearhead.AttentionVisualiser


def test_the_version_is_the_projects():
    import clearhead

    assert f'version = "{clearhead.__version__}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert clearhead.__version__ in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def modules() -> list[str]:
    dotted = (path.relative_to(PACKAGE.parent).with_suffix("").as_posix().replace("/", ".") for path in FILES)
    return [each.removesuffix(".__init__") for each in dotted if not each.endswith("__main__")]


@pytest.mark.parametrize("module", modules())
def test_everything_public_has_a_docstring(module):
    found = importlib.import_module(module)
    own = {
        key: value
        for key, value in vars(found).items()
        if not key.startswith("_") and getattr(value, "__module__", None) == module
    }
    things = [(key, value) for key, value in own.items() if inspect.isclass(value) or inspect.isfunction(value)]
    things += [
        (f"{key}.{inner}", value.__dict__[inner])
        for key, value in things
        if inspect.isclass(value)
        for inner in vars(value)
        if not inner.startswith("_") and isinstance(value.__dict__[inner], (property, classmethod, type(modules)))
        if inner not in vars(inspect.getmro(value)[1])
    ]
    assert [key for key, value in things if not inspect.getdoc(value)] == []


# ---- no model family in the code -----------------------------------------------------------------------------------


def words(text: str) -> set[str]:
    """The words in an identifier or a string, lower case: snake_case and CamelCase apart, with and without digits."""
    parts = re.findall(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+\d*|[A-Z]+\d*", text)
    lower = {part.lower() for part in (*parts, *re.findall(r"[A-Za-z]+\d*", text))}
    return lower | {re.sub(r"\d+$", "", part) for part in lower}


def families(source: str) -> set[str]:
    """The model families named in names and strings; docstrings and comments are documentation."""
    quiet = {(text.lineno, text.col_offset) for node in ast.walk(ast.parse(source)) if (text := docstring(node))}
    spoken = [
        token.string
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type != tokenize.COMMENT and token.start not in quiet
    ]
    return FAMILIES & set().union(*(words(each) for each in spoken))


@pytest.mark.parametrize("path", FILES, ids=name)
def test_no_model_family_is_named(path):
    assert families(path.read_text(encoding="utf-8")) - FAMILIES_ALLOWED.get(name(path), set()) == set()


def test_every_family_that_is_allowed_is_named():
    for path, allowed in FAMILIES_ALLOWED.items():
        assert families((PACKAGE / path).read_text(encoding="utf-8")) >= allowed


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("if isinstance(m, BertLayer): pass", {"bert"}),
        ("x = model.gpt2_block", {"gpt"}),
        ("x = 'LlamaRMSNorm'", {"llama"}),
        ("T5Stack = 1", {"t5"}),
        ("x = 'models.vit.encoder'", {"vit"}),
        ("def f():\n    '''As in BERT.'''\n    # or GPT\n    return activity", set()),
        ("x = torch.clip(t, 5)", set()),
    ],
)
def test_a_model_family_would_be_noticed(source, found):
    assert families(source) == found


# ---- contracts -----------------------------------------------------------------------------------------------------


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    run = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", run, "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(folder / "src"), "COLUMNS": "200"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path):
    pytest.importorskip("importlinter", reason="needs the extra `check`")
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_import_contracts_hold(copy):
    done = lint_imports(copy)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("where", "line", "contract"),
    [
        ("relevance/planted.py", "from clearhead.render import scene", "Methods make maps"),
        ("checks/planted.py", "import clearhead.relevance", "Methods make maps"),
        ("checks/planted.py", "import clearhead.tape", "A check or a drawing"),
        ("render/planted.py", "import clearhead.tape", "A check or a drawing"),
        ("render/planted.py", "import torch", "Results, settings"),
        ("maps.py", "import transformers", "Results, settings"),
        ("config.py", "import clearhead.maps", "One direction"),
        ("tape/planted.py", "import clearhead.relevance", "One direction"),
        ("tape/planted.py", "import clearhead.config", "The tape records"),
        ("relevance/planted.py", "import clearhead.subjects", "One direction"),
        ("relevance/planted.py", "def f():\n    import clearhead.visualizer", "One direction"),
        ("visualizer.py", "import clearhead.cli", "Nothing imports the command line"),
        ("planted.py", "x = 1", "One direction"),
    ],
)
def test_a_planted_import_is_noticed(copy, where, line, contract):
    path = copy / "src" / "clearhead" / where
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    path.write_text(f"{old}\n{line}\n", encoding="utf-8")
    done = lint_imports(copy)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(rf"^{contract}.*BROKEN", done.stdout, flags=re.MULTILINE), done.stdout


# ---- documentation that cannot drift -------------------------------------------------------------------------------


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def commands() -> dict[str, set[str]]:
    from clearhead.cli import app

    group = typer.main.get_command(app)
    return {key: {flag for p in value.params for flag in p.opts} for key, value in group.commands.items()}


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_every_make_target_in_the_documents_exists(document):
    targets = set(re.findall(r"^([a-z]+):", read("Makefile"), flags=re.MULTILINE))
    named = set(re.findall(r"^(?:    |.*`)make ([a-z]+)", read(document), flags=re.MULTILINE))
    assert named
    assert named <= targets


def test_every_command_and_flag_in_the_readme_exists():
    known = commands()
    lines = re.findall(r"^    clearhead (\w+)(.*)$", read("README.md"), flags=re.MULTILINE)
    assert {command for command, _ in lines} == set(known)
    for command, rest in lines:
        unquoted = re.sub(r'"[^"]*"', "", rest)
        assert set(re.findall(r"(?<!\S)--[a-z-]+", unquoted)) <= known[command]


def test_every_flag_in_the_prose_of_the_readme_exists():
    known = set().union(*commands().values())
    assert set(re.findall(r"`(--[a-z-]+)", read("README.md"))) <= known


def test_the_python_in_the_readme_runs(tiny_classifier, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", read("README.md"), flags=re.DOTALL):
        exec(block.replace("path-or-hub-id", tiny_classifier), scope)
    assert (tmp_path / "report.html").stat().st_size > 1000
    assert capsys.readouterr().out


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:src|tests)/[\w/.]+)`", read("CONTRIBUTING.md")))))
def test_every_file_that_contributing_names_exists(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize(
    ("module", "word"),
    [("relevance/table.py", "ROWS"), ("config.py", "Method"), ("methods.py", "METHODS"), ("render", "SUFFIXES")],
)
def test_every_name_that_contributing_names_exists(module, word):
    path = PACKAGE / module
    assert f"`{word}`" in read("CONTRIBUTING.md")
    sources = path.rglob("*.py") if path.is_dir() else [path]
    assert any(re.search(rf"^{word}\b", each.read_text(encoding="utf-8"), flags=re.MULTILINE) for each in sources)
