"""What all self-contained HTML pages share: templates with one frame and style, and pictures and videos as text."""

from __future__ import annotations

import base64

import jinja2


def template_environment(package: str, *, autoescape: bool = True) -> jinja2.Environment:
    """The templates in the folder `templates` of `package`, which may extend `page.html.j2` of this one.

    A missing variable is an error.
    """
    loader = jinja2.ChoiceLoader([jinja2.PackageLoader(package), jinja2.PackageLoader("pixio_robot")])
    return jinja2.Environment(
        loader=loader, autoescape=autoescape, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )


def data_uri(kind: str, content: bytes) -> str:
    """A `data:` address that holds `content` itself; `kind` is its media type, such as image/png."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
