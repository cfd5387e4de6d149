"""Pages have a frame and a base style in common, know their variables, and hold their pictures."""

import base64

import jinja2
import pytest

from pixio_robot.html_pages import data_uri, template_environment

PAGES = [
    ("pixio_robot.evaluation.report", "probes.html.j2"),
    ("pixio_robot.data.curation", "curation.html.j2"),
]


@pytest.mark.parametrize(("package", "name"), PAGES)
def test_a_page_has_the_frame_and_adds_its_own_style(package, name):
    environment = template_environment(package)
    page = environment.get_template(name)
    frame = environment.get_template("page.html.j2").render()
    assert list(page.blocks) == ["title", "style", "main"]
    assert frame.startswith("<!doctype html>")
    assert frame.index("<style>") < frame.index(":root {") < frame.index("</style>")
    own = "".join(page.blocks["style"](page.new_context()))
    assert own.strip()
    assert ":root" not in own


def test_a_missing_variable_is_an_error_and_values_are_text():
    page = template_environment("pixio_robot.evaluation.report").from_string("{{ title }}")
    assert page.render(title="<b>") == "&lt;b&gt;"
    assert (
        template_environment("pixio_robot.evaluation.report", autoescape=False).from_string("{{ a }}").render(a="<b>")
        == "<b>"
    )
    with pytest.raises(jinja2.UndefinedError):
        page.render()


def test_data_uri_holds_the_content():
    head, _, content = data_uri("image/png", bytes(range(256))).partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(content) == bytes(range(256))
