"""Matplotlib's SVG as part of a page: no ids that clash, the page's colours, tooltips, a text alternative."""

import re
from collections.abc import Mapping
from xml.etree import ElementTree


def inline(svg: bytes, name: str, colours: Mapping[str, str], tips: Mapping[str, str], alternative: str) -> str:
    """An SVG file as an element of an HTML page.

    `colours` maps colours to the CSS variables that take their place, `tips` ids of groups to their tooltips. `name`
    tells this element's ids from those of other plots on the page.
    """
    root = ElementTree.fromstring(svg)
    referred = set(re.findall(rb"#([\w-]+)", svg))
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
        group = element.get("id", "")
        if group in tips:
            element.set("class", "point")
            title = ElementTree.Element("title")
            title.text = tips[group]
            element.insert(0, title)
        if group.encode() not in referred:
            element.attrib.pop("id", None)
        if "style" in element.attrib:
            element.set("style", _with_variables(element.attrib["style"], colours))
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-labelledby": f"{name}-alternative"}
    title = ElementTree.Element("desc", {"id": f"{name}-alternative"})
    title.text = alternative
    root.insert(0, title)
    return ElementTree.tostring(root, encoding="unicode")


def _with_variables(style: str, colours: Mapping[str, str]) -> str:
    return re.sub(r"#[0-9a-f]{6}", lambda found: f"var(--{colours[found[0]]})", style)
