"""What the pages say of options and public names, taken from the code while they are built.

`option-table`: a table of the server's options; each is a target of the role `option`.
`public-api`: the documentation of the public names of a module, without those listed in `:but:`.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from mosec_cy.options import Options

_HEADINGS = ("Option", "Unit", "Default", "Values", "Meaning")
_WIDTHS = (24, 8, 16, 18, 44)


class OptionTable(SphinxDirective):
    """A row for each field of `Options`."""

    def run(self) -> list[nodes.Node]:
        group = nodes.tgroup(cols=len(_HEADINGS))
        group += [nodes.colspec(colwidth=width) for width in _WIDTHS]
        group += nodes.thead("", _row(nodes.entry("", nodes.paragraph(text=text)) for text in _HEADINGS))
        group += nodes.tbody("", *(_row(self._cells(field)) for field in dataclasses.fields(Options)))
        return [nodes.table("", group, classes=["options"])]

    def _cells(self, field: dataclasses.Field[Any]) -> Iterator[nodes.entry]:
        flag = "--" + field.name.replace("_", "-")
        target = nodes.make_id(f"option{flag}")
        domain = self.env.domains.standard_domain
        domain.add_program_option(None, flag, self.env.docname, target)
        self.state.document.note_explicit_target(nodes.target(ids=[target]))
        yield nodes.entry("", nodes.paragraph("", "", nodes.literal(text=flag), ids=[target]))
        yield _text(field.metadata["unit"])
        yield _text(_default(field), literal=True)
        yield _text(_values(field))
        yield _text(field.metadata["text"])


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
    kind = "class" if isinstance(getattr(module, name), type) else "function"
    return (
        f"```{{eval-rst}}\n.. auto{kind}:: {module.__name__}.{name}\n   :members:\n   :inherited-members: Worker\n```\n"
    )


def _row(entries: Iterator[nodes.entry]) -> nodes.row:
    return nodes.row("", *entries)


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
    return {"parallel_read_safe": True, "parallel_write_safe": True}
