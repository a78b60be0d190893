"""README, CONTRIBUTING and the pages of docs/, as the tests read them."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
}
ALL = "\n".join(PAGES.values())
_LINES = re.compile(r"^(?:```(?P<fence>[^`]*)|(?P<rank>#+) (?P<title>.*))$")


@dataclass(frozen=True)
class Block:
    """A fenced code block: its page, the heading above it, its language, which may be none, and what is in it."""

    page: str
    heading: str
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}, {self.heading}, {self.language}"


def headings(page: str) -> list[str]:
    """The headings of a page, code left out, with their rank: `## Gates`."""
    return [line for line in _prose(PAGES[page]).splitlines() if re.match("#+ ", line)]


def anchors(page: str) -> set[str]:
    """What a link can name after `#` in a page, as GitHub derives it from headings."""
    plain = (heading.partition(" ")[2].lower() for heading in headings(page))
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in plain}


def links(page: str) -> list[str]:
    """The targets of the links in a page."""
    return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", _prose(PAGES[page])))


def blocks() -> list[Block]:
    """Every fenced code block of every page."""
    return [
        Block(page, heading, block[1], block[2])
        for page in PAGES
        for heading, part in _parts(PAGES[page])
        for block in re.finditer(r"^```(.*)\n((?:.*\n)*?)```$", part, re.MULTILINE)
    ]


def section(page: str, heading: str) -> str:
    """The text below a heading, up to the next one of its rank or above."""
    rank = len(heading.partition(" ")[0])
    parts = iter(_parts(PAGES[page]))
    title = heading.partition(" ")[2]
    found = [part for name, part in parts if name == title and part.startswith(heading)]
    assert found, (page, heading)
    text = found[0]
    after = PAGES[page].partition(text)[2]
    for _, part in _parts(after):
        if re.match(rf"#{{1,{rank}}} ", part):
            break
        text += part
    return text


def example(page: str, heading: str, language: str) -> str:
    """The one code block of a language below a heading."""
    (block,) = re.finditer(rf"```{language}\n(.*?)```", section(page, heading), re.DOTALL)
    return block[1]


def named(text: str) -> set[str]:
    """Everything between backticks, word by word."""
    return {word for code in re.findall(r"`([^`\n]+)`", text) for word in re.findall(r"[\w.]+", code)}


def _prose(text: str) -> str:
    return re.sub(r"^```.*\n(?:.*\n)*?```$", "", text, flags=re.MULTILINE)


def _parts(text: str) -> list[tuple[str, str]]:
    """A text cut before each of its headings; what is in a code block is none."""
    found: list[tuple[str, list[str]]] = []
    fenced = False
    for line in text.splitlines(keepends=True):
        match = _LINES.match(line.rstrip("\n"))
        fenced ^= bool(match and match["fence"] is not None)
        if match and match["rank"] and not fenced:
            found.append((match["title"], [line]))
        elif found:
            found[-1][1].append(line)
        elif line.strip():
            found.append(("", [line]))
    return [(title, "".join(lines)) for title, lines in found]
