"""One self-contained HTML page from sections of text, pictures and tables: what a person opens when work is done."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from streampose.files import write_text

_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{ title }}</title><style>
:root { color-scheme: light dark; --line: #8884; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
section { overflow-x: auto; }
figure { margin: 1rem 0; } img, video { max-width: 100%; border-radius: 4px; }
figcaption { opacity: .75; font-size: .9rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .8rem 0; }
th, td { padding: .25rem .8rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; }
</style></head><body>
<h1>{{ title }}</h1>
{% for section in sections %}<section><h2>{{ section.title }}</h2>
{% for paragraph in section.paragraphs %}<p>{{ paragraph }}</p>{% endfor %}
{% for table in section.tables %}<table>
<thead><tr>{% for name in table.header %}<th>{{ name }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in table.rows %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}
</tbody></table>
{% endfor %}{% for picture in section.pictures %}<figure>
{% if picture.kind == "video" %}<video src="{{ picture.source }}" controls loop muted></video>
{% else %}<img src="{{ picture.source }}" alt="{{ picture.caption }}">{% endif %}
<figcaption>{{ picture.caption }}</figcaption></figure>
{% endfor %}</section>{% endfor %}
</body></html>
"""


@dataclass(frozen=True)
class Table:
    """Rows of cells under a header; numbers are shown with four significant digits."""

    header: list[str]
    rows: list[list[str | int | float]]


@dataclass(frozen=True)
class Picture:
    """An RGB array (H, W, 3), or the path of a picture or an mp4, with a caption; embedded into the page."""

    image: np.ndarray | Path
    caption: str


@dataclass(frozen=True)
class Section:
    """One heading of the page and what stands under it."""

    title: str
    paragraphs: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)


def write_report(path: Path, title: str, sections: list[Section]) -> Path:
    """Write the page to `path` (published by rename, so it is never half there) and return the path."""
    from jinja2 import Environment

    shown = [
        {
            "title": section.title,
            "paragraphs": section.paragraphs,
            "tables": [
                {"header": table.header, "rows": [[_cell(cell) for cell in row] for row in table.rows]}
                for table in section.tables
            ],
            "pictures": [_embed(picture) for picture in section.pictures],
        }
        for section in sections
    ]
    page = Environment(autoescape=True).from_string(_TEMPLATE).render(title=title, sections=shown)
    write_text(path, page)
    return path


def write_picture(path: Path, image: np.ndarray) -> Path:
    """Write an RGB array (H, W, 3) uint8 as PNG or JPEG by its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ok, data = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    assert ok, f"{path}: not encoded"
    path.write_bytes(data.tobytes())
    return path


def _embed(picture: Picture) -> dict[str, str]:
    if isinstance(picture.image, Path):
        mime = {".png": "image/png", ".jpg": "image/jpeg", ".mp4": "video/mp4"}[picture.image.suffix]
        data = picture.image.read_bytes()
    else:
        mime = "image/jpeg"
        image = cv2.cvtColor(picture.image, cv2.COLOR_RGB2BGR)
        data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
    source = f"data:{mime};base64,{base64.b64encode(data).decode()}"
    return {"source": source, "caption": picture.caption, "kind": mime.split("/")[0]}


def _cell(value: str | int | float) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """The lines of a table in Markdown."""
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    return lines + ["| " + " | ".join(str(value) for value in row) + " |" for row in rows]
