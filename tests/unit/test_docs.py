"""The documentation builds without a warning, and says what the code says."""

import ast
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import mosec_cy
from mosec_cy import errors
from mosec_cy._config.options import Options
from tests.docs_pages import DOCS, Block, blocks, quoted
from tests.service import ROOT
from tests.tools import environment

ELLIPSIS = "…"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built pages, by the command of `make docs`."""
    if find_spec("furo") is None:
        pytest.skip("needs the group 'docs'")
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going", "--builder", "html"]
    built = subprocess.run(
        [*command, "--doctree-dir", f"{target}.doctrees", str(DOCS), str(target)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (built.returncode, built.stderr) == (0, "")
    return target


def test_every_option_is_in_the_table(site: Path) -> None:
    page = (site / "options.html").read_text()
    for name, field in Options.__dataclass_fields__.items():
        row = re.search(rf'<tr[^>]*>(?:(?!<tr).)*id="option-{name.replace("_", "-")}".*?</tr>', page, re.DOTALL)
        assert row, name
        assert field.metadata["unit"] in row[0]


def test_every_public_name_is_documented(site: Path) -> None:
    page = (site / "api.html").read_text()
    for name in mosec_cy.__all__:
        home = "mosec_cy.errors" if hasattr(errors, name) else "mosec_cy"
        assert f'id="{home}.{name}"' in page


def test_pages_fetch_nothing_from_elsewhere(site: Path) -> None:
    fetched = re.compile(r'<(?:script|img|link|iframe)\b[^>]*(?:src|href)="((?:https?:)?//[^"]*)"')
    for page in site.rglob("*.html"):
        assert fetched.findall(page.read_text()) == [], page.name
    for sheet in site.rglob("*.css"):
        assert "url(http" not in sheet.read_text().replace('url("http', "url(http"), sheet.name


@pytest.mark.parametrize("block", [b for b in blocks() if b.language == "python"], ids=lambda block: block.place)
def test_python_compiles(block: Block) -> None:
    compile(block.text, block.place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.stem)
def test_options_that_are_named_exist(page: Path) -> None:
    known = {"--" + name.replace("_", "-") for name in Options.__dataclass_fields__}
    for named in re.findall(r"\{option\}`(.*?)`", page.read_text()):
        assert named in known


# ---- texts that are quoted ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def texts_of_the_code() -> str:
    """The texts in the package's Python modules, and all of the engine's sources."""
    found = []
    for path in sorted((ROOT / "mosec_cy").rglob("*.py")):
        constants = (node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant))
        found += [value for value in constants if isinstance(value, str)]
    found += [f"{error.msg}: " for error in vars(errors).values() if hasattr(error, "msg")]
    found += [path.read_text() for path in sorted((ROOT / "src_pyx").rglob("*.pyx"))]
    return "\n".join(found)


@pytest.mark.parametrize(
    "message", [*quoted("troubleshooting.md", 0), *quoted("http.md", 1)], ids=lambda message: message[:40]
)
def test_message_is_one_of_the_code(message: str, texts_of_the_code: str) -> None:
    for part in message.split(ELLIPSIS):
        assert part in texts_of_the_code


def logged() -> list[str]:
    """The warnings and errors that the package logs, as they stand in the code; not those of user code's exceptions."""
    texts = []
    for path in sorted((ROOT / "mosec_cy").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith((".warning", ".error", ".exception")):
                text = node.args[0]
                if isinstance(text, ast.Constant) and re.search(r"[a-z]", re.sub(r"%[a-z]", "", text.value)):
                    texts.append(text.value)
    return texts


@pytest.mark.parametrize("text", logged(), ids=lambda text: text[:40])
def test_logged_message_is_explained(text: str) -> None:
    page = (DOCS / "troubleshooting.md").read_text()
    for part in re.split(r"%[a-z]|\n", text):
        assert part.strip() in page
