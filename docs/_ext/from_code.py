"""What the pages say of options, public names and examples, taken from the code while they are built.

`option-table`: a table of the server's options; each is a target of the role `option`.
`default`, a role: the default of an option, with its unit.
`public-api`: the documentation of the public names of a module, without those listed in `:but:`.
`example-table`: what is in examples/, with the first sentence that each says of itself.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import importlib
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective, SphinxRole

from mosec_cy._config.options import Options

_EXAMPLES = Path(__file__).parents[2] / "examples"
_OPTIONS = {"--" + field.name.replace("_", "-"): field for field in dataclasses.fields(Options)}


class OptionTable(SphinxDirective):
    """A row for each field of `Options`."""

    def run(self) -> list[nodes.Node]:
        columns = {"Option": 24, "Unit": 8, "Default": 16, "Values": 18, "Meaning": 44}
        table = _table(columns, (self._cells(flag, field) for flag, field in _OPTIONS.items()))
        table["classes"].append("options")
        return [table]

    def _cells(self, flag: str, field: dataclasses.Field[Any]) -> Iterator[nodes.entry]:
        target = nodes.make_id(f"option{flag}")
        domain = self.env.domains.standard_domain
        domain.add_program_option(None, flag, self.env.docname, target)
        self.state.document.note_explicit_target(nodes.target(ids=[target]))
        yield nodes.entry("", nodes.paragraph("", "", nodes.literal(text=flag), ids=[target]))
        yield _text(field.metadata["unit"])
        yield _text(_default(field), literal=True)
        yield _text(_values(field))
        yield _text(field.metadata["text"])


class Default(SphinxRole):
    """The default of the option that is named; sizes in MiB where that is shorter."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        field = _OPTIONS.get(self.text)
        if field is None or not _default(field):
            message = self.inliner.reporter.error(f"no option with a fixed default: {self.text!r}", line=self.lineno)
            return [], [message]
        value, unit = _default(field), field.metadata["unit"]
        if unit == "bytes" and int(value) % (1 << 20) == 0:
            value, unit = str(int(value) >> 20), "MiB"
        return [nodes.inline(text=f"{value} {unit}".rstrip())], []


class ExampleTable(SphinxDirective):
    """A row for each program and each folder of examples/."""

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()  # its rows are files that the page does not name
        rows = {path.name: _about(path) for path in sorted(_EXAMPLES.iterdir()) if _is_example(path)}
        if silent := [name for name, about in rows.items() if not about]:
            raise self.error(f"no README.md and no docstring says what these examples are: {', '.join(silent)}")
        cells = ([_text(f"examples/{name}", literal=True), _text(about)] for name, about in rows.items())
        return [_table({"Where": 30, "What": 80}, cells)]


class PublicApi(SphinxDirective):
    """`autoclass` and the like for each name of a module's `__all__`; nothing if there is no such module."""

    required_arguments = 1
    option_spec: ClassVar[dict[str, Any]] = {"but": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        if find_spec(name) is None:
            return []
        module = importlib.import_module(name)
        left_out = self.options.get("but", "").split()
        shown = [public for public in module.__all__ if public not in left_out]
        return self.parse_text_to_nodes("\n".join(_documented(module, public) for public in shown))


def _documented(module: Any, name: str) -> str:
    public = getattr(module, name)
    kind = "class" if isinstance(public, type) else "function"
    shown = "undoc-members:" if isinstance(public, enum.EnumMeta) else "inherited-members: BaseWorker"
    directive = f".. auto{kind}:: {module.__name__}.{name}\n   :members:\n   :{shown}\n"
    return f"```{{eval-rst}}\n{directive}```\n"


def _is_example(path: Path) -> bool:
    return path.name[0] not in "._" and (path.suffix == ".py" or path.is_dir())


def _about(path: Path) -> str:
    """Title and first sentence of an example's README, or the first sentence of its docstring; "" if it has none."""
    program = path if path.is_file() else path / "server.py"
    if (path / "README.md").is_file():
        title, _, text = (path / "README.md").read_text().lstrip("# ").partition("\n\n")
        return f"{title}. {_first_sentence(text)}"
    if program.is_file():
        return _first_sentence(ast.get_docstring(ast.parse(program.read_text())) or "")
    return ""


def _first_sentence(text: str) -> str:
    """Without the marks of Markdown."""
    paragraph = " ".join(text.partition("\n\n")[0].split())
    plain = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", paragraph).replace("`", "").replace("**", "")
    return re.split(r"(?<=[.?!]) |:$", plain)[0]


def _table(columns: Mapping[str, int], rows: Iterable[Iterable[nodes.entry]]) -> nodes.table:
    """A table of headings with their relative widths, and cells."""
    group = nodes.tgroup("", *(nodes.colspec(colwidth=width) for width in columns.values()), cols=len(columns))
    group += nodes.thead("", nodes.row("", *map(_text, columns)))
    group += nodes.tbody("", *(nodes.row("", *cells) for cells in rows))
    return nodes.table("", group)


def _text(text: str, literal: bool = False) -> nodes.entry:
    kind = nodes.literal if literal else nodes.inline
    return nodes.entry("", nodes.paragraph("", "", kind(text=text))) if text else nodes.entry()


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is dataclasses.MISSING:
        return ""  # depends on the machine; the text says how
    if isinstance(field.default, bool):
        return "on" if field.default else "off"
    return str(field.default)


def _values(field: dataclasses.Field[Any]) -> str:
    least, most, choices = (field.metadata[key] for key in ("least", "most", "choices"))
    if field.type == "bool":
        return "switch"
    if choices:
        return ", ".join(choices)
    if field.type == "str":
        return "text"
    return f"{least} to {most}" if most is not None else f"{least} or more"


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("option-table", OptionTable)
    app.add_directive("public-api", PublicApi)
    app.add_directive("example-table", ExampleTable)
    app.add_role("default", Default())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
