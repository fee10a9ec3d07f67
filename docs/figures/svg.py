"""A drawing of boxes, lines and text, written as SVG. The background is left out, so it stands on any page."""

from __future__ import annotations

from html import escape

__all__ = ["BLUE", "GREY", "INK", "ORANGE", "PALE", "Drawing"]

INK, GREY, PALE = "#222222", "#707070", "#e3e8ee"
BLUE, ORANGE = "#2f77b4", "#d9730d"
_FONT = "system-ui, 'DejaVu Sans', Arial, sans-serif"


class Drawing:
    """Shapes on a canvas of (width, height) pixels; (0, 0) is the upper left corner."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
            f'role="img" font-family="{_FONT}">',
            f"<title>{escape(title)}</title>",
        ]
        for name, colour in (("ink", INK), ("orange", ORANGE), ("blue", BLUE), ("grey", GREY)):
            self._parts.append(
                f'<marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
                f'orient="auto"><path d="M0 0 L10 5 L0 10 z" fill="{colour}"/></marker>'
            )

    def box(self, x: float, y: float, w: float, h: float, *, fill: str = PALE, stroke: str = GREY) -> None:
        """A filled rectangle."""
        self._parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" fill="{fill}" stroke="{stroke}" rx="2"/>'
        )

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: int = 14,
        colour: str = INK,
        anchor: str = "start",
        bold: bool = False,
    ) -> None:
        """A line of text; ``anchor`` start, middle or end stands at x."""
        weight = ' font-weight="600"' if bold else ""
        self._parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{colour}" text-anchor="{anchor}"{weight}>'
            f"{escape(text)}</text>"
        )

    def line(
        self, points: list[tuple[float, float]], *, colour: str = INK, width: float = 1.5, dashed: bool = False
    ) -> None:
        """A line through some points."""
        self._stroke(points, colour, width, "", dashed)

    def arrow(self, points: list[tuple[float, float]], *, colour: str = INK, width: float = 1.8) -> None:
        """A line that ends in a point of its colour."""
        names = {INK: "ink", ORANGE: "orange", BLUE: "blue", GREY: "grey"}
        self._stroke(points, colour, width, f' marker-end="url(#{names[colour]})"', False)

    def _stroke(self, points: list[tuple[float, float]], colour: str, width: float, more: str, dashed: bool) -> None:
        path = " L".join(f"{x:g} {y:g}" for x, y in points)
        dash = ' stroke-dasharray="4 4"' if dashed else ""
        self._parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="{width:g}"{dash}{more}/>')

    def dot(self, x: float, y: float, *, colour: str = INK, radius: float = 5) -> None:
        """A filled circle."""
        self._parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="{colour}"/>')

    def render(self) -> str:
        """The file."""
        return "\n".join([*self._parts, "</svg>", ""])
