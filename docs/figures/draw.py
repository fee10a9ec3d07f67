"""The drawings of the documentation: python docs/figures/draw.py writes the .svg files beside this one."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from svg import BLUE, GREY, ORANGE, PALE, Drawing

__all__ = ["DRAWINGS", "cost", "factors", "losses", "segments"]

_BLUE_FILL, _ORANGE_FILL = "#bcd7ee", "#f6cfa6"


def cost() -> Drawing:
    """What an ordinary layer reads for an example, and what the exact head reads."""
    made = Drawing(860, 380, "Where the time of a wide output layer goes")
    made.text(20, 26, "An ordinary layer: every row of W, three times", bold=True)
    _column(made, 30, 150, "h", "d")
    made.arrow([(58, 190), (96, 190)])
    _tall(made, 110, 60, 90, 260, "W", "D × d", rows=range(13), fill=_ORANGE_FILL)
    made.arrow([(206, 190), (244, 190)])
    _tall(made, 256, 60, 22, 260, "o", "D", rows=range(13), fill=_ORANGE_FILL)
    made.text(20, 362, "O(Dd) an example: outputs, ∇h and update of W", size=13, colour=GREY)
    made.line([(412, 14), (412, 366)], colour=GREY, dashed=True)
    made.text(436, 26, "The exact head: d × d numbers and the targets’ rows", bold=True)
    _column(made, 446, 150, "h", "d")
    made.arrow([(474, 180), (522, 120)])
    made.arrow([(474, 190), (522, 190)])
    made.arrow([(474, 200), (522, 254)])
    made.box(530, 70, 90, 90, fill=_ORANGE_FILL)
    made.text(575, 112, "Q = WᵀW", size=13, anchor="middle")
    made.text(575, 130, "d × d", size=12, colour=GREY, anchor="middle")
    made.box(530, 181, 90, 18, fill=_ORANGE_FILL)
    made.text(628, 195, "w̄ = Wᵀ1, d", size=13)
    _tall(made, 530, 222, 90, 98, "", "", rows=(1, 3), fill=_ORANGE_FILL, step=20)
    made.text(628, 252, "K rows of W", size=13)
    made.text(628, 269, "(the other rows", size=12, colour=GREY)
    made.text(628, 285, "are not read)", size=12, colour=GREY)
    made.arrow([(626, 112), (700, 112)])
    made.text(708, 109, "‖o‖²", size=13)
    made.text(708, 126, "of all D", size=12, colour=GREY)
    made.arrow([(712, 190), (742, 190)])
    made.text(750, 195, "Σo", size=13)
    made.arrow([(712, 248), (742, 248)])
    made.text(750, 253, "oₖ", size=13)
    made.text(436, 362, "O(d²) + O(Kd) an example, whatever D is", size=13, colour=GREY)
    return made


def factors() -> Drawing:
    """W = V·U + 1ωᵀ, and what a step changes."""
    made = Drawing(800, 340, "The weights as a product, and what a step changes")
    _tall(made, 20, 50, 90, 220, "W", "D × d", rows=(), fill=PALE, ground="none")
    made.text(133, 166, "=", size=22, anchor="middle")
    _tall(made, 160, 50, 90, 220, "V", "D × d", rows=(2, 7), fill=_ORANGE_FILL)
    made.text(268, 166, "·", size=26, anchor="middle")
    made.box(288, 115, 90, 90, fill=_ORANGE_FILL)
    made.text(333, 165, "U", size=18, anchor="middle", bold=True)
    made.text(333, 224, "d × d", size=13, colour=GREY, anchor="middle")
    made.text(402, 166, "+", size=22, anchor="middle")
    made.box(426, 50, 16, 220)
    made.text(434, 42, "1", size=16, anchor="middle", bold=True)
    made.text(434, 288, "D", size=13, colour=GREY, anchor="middle")
    made.box(452, 151, 90, 18, fill=_ORANGE_FILL)
    made.text(497, 142, "ωᵀ", size=16, anchor="middle", bold=True)
    made.text(497, 188, "d", size=13, colour=GREY, anchor="middle")
    made.box(572, 62, 16, 16, fill=_ORANGE_FILL)
    made.text(596, 75, "written by a step", size=13)
    made.box(572, 90, 16, 16)
    made.text(596, 103, "not written", size=13)
    made.text(572, 142, "U and ω carry what the", size=13, colour=GREY)
    made.text(572, 159, "step does to all rows alike;", size=13, colour=GREY)
    made.text(572, 176, "V’s target rows carry what", size=13, colour=GREY)
    made.text(572, 193, "it does to them alone.", size=13, colour=GREY)
    made.text(20, 324, "All D × d weights change in every step, though O(d²) numbers and K rows are written.", size=13)
    return made


def segments() -> Drawing:
    """Segments of steps, the condition of U in them, and rows that are brought forward when they are needed."""
    made = Drawing(760, 390, "Segments, and rows that are brought forward")
    bounds = (130, 290, 430, 610)
    made.text(20, 44, "κ(U)", size=13)
    for start, stop in zip(bounds, (*bounds[1:], 740), strict=True):
        made.line([(start, 88), (start + (stop - start) * 0.55, 72), (stop, 34)], colour=BLUE)
        made.line([(stop, 34), (stop, 88)], colour=BLUE, dashed=True)
    made.line([(120, 90), (745, 90)], colour=GREY)
    made.text(205, 108, "a segment of steps", size=12, colour=GREY, anchor="middle")
    for number, x in enumerate(bounds):
        made.line([(x, 116), (x, 330)], colour=GREY, dashed=True)
        made.text(x, 350, f"boundary {number}", size=13, anchor="middle")
        made.text(x, 367, "U = I again", size=12, colour=GREY, anchor="middle")
    for number, (a, b) in enumerate(pairwise(bounds), start=1):
        made.text((a + b) / 2, 136, f"U{'₁₂₃'[number - 1]}", size=14, colour=BLUE, anchor="middle", bold=True)
    _row(made, 170, "row 17", "often a target", [(130, 290), (290, 430), (430, 610)], bounds, 610, "version 3")
    _row(made, 225, "row 4,711", "a target now", [(290, 610)], bounds, 610, "version 1 → 3: · U₂ · U₃")
    _row(made, 285, "row 90,000", "never a target", [], bounds, 130, "version 0: still to go through U₁ · U₂ · U₃")
    return made


def losses() -> Drawing:
    """Which losses the exact head can have."""
    made = Drawing(760, 330, "The family of losses")
    made.text(20, 30, "The D outputs of an example (never formed)", bold=True)
    for cell in range(24):
        made.box(20 + cell * 30, 44, 26, 26, fill=_ORANGE_FILL if cell in (5, 16) else PALE)
    made.text(183, 62, "a₁", size=12, anchor="middle")
    made.text(513, 62, "a₂", size=12, anchor="middle")
    boxes = (
        (20, "q = ‖o‖²", "h Q hᵀ: O(d²)"),
        (280, "s = Σo", "h·w̄: O(d)"),
        (540, "a: outputs at targets", "h·wₖ: O(Kd)"),
    )
    for x, name, how in boxes:
        made.box(x, 104, 200, 52, fill=_BLUE_FILL)
        made.text(x + 100, 126, name, anchor="middle", bold=True)
        made.text(x + 100, 145, how, size=12, colour=GREY, anchor="middle")
        made.arrow([(x + 100, 76), (x + 100, 101)], colour=GREY)
        made.arrow([(x + 100, 160), (x + 100 + (380 - x - 100) * 0.12, 192)], colour=BLUE)
    made.box(20, 196, 720, 58, fill=PALE)
    made.text(
        380, 220, "ℓ(q, s, a): any differentiable function of these is trained exactly", anchor="middle", bold=True
    )
    made.text(
        380, 241, "squared error · weighted squared error · spherical softmax · Taylor softmax · Z-loss · your own",
        size=13, anchor="middle",
    )  # fmt: skip
    made.text(20, 288, "Not in the family:", size=13, colour=ORANGE, bold=True)
    made.text(
        150, 288, "the ordinary softmax. log Σ exp(o) needs every single output, so it has heads of its own.", size=13
    )
    return made


def _column(made: Drawing, x: float, y: float, name: str, size: str) -> None:
    """A hidden layer."""
    made.box(x, y, 20, 80, fill=_BLUE_FILL)
    made.text(x + 10, y - 8, name, size=16, anchor="middle", bold=True)
    made.text(x + 10, y + 98, size, size=13, colour=GREY, anchor="middle")


def _tall(
    made: Drawing,
    x: float,
    y: float,
    w: float,
    h: float,
    name: str,
    size: str,
    *,
    rows: Iterable[int],
    fill: str,
    step: float = 20,
    ground: str = PALE,
) -> None:
    """A matrix of D rows, some of them filled."""
    made.box(x, y, w, h, fill=ground)
    for row in rows:
        made.box(x, y + row * step, w, step, fill=fill)
    made.text(x + w / 2, y - 8, name, size=18, anchor="middle", bold=True)
    made.text(x + w / 2, y + h + 18, size, size=13, colour=GREY, anchor="middle")


def _row(
    made: Drawing, y: float, name: str, kind: str, moves: list[tuple[float, float]],
    bounds: tuple[float, ...], stands: float, note: str,
) -> None:  # fmt: skip
    """A row of V: where it stands, and the moves that brought it there."""
    made.text(20, y, name, size=13, bold=True)
    made.text(20, y + 17, kind, size=12, colour=GREY)
    for start, stop in moves:
        made.arrow([(start + 6, y), (stop - 8, y)], colour=ORANGE)
        made.dot(start, y, colour=GREY, radius=4)
    made.dot(stands, y, colour=ORANGE, radius=6)
    made.text(622 if stands == bounds[-1] else stands + 14, y + (20 if stands == bounds[-1] else 4), note, size=12)


DRAWINGS = {"cost": cost, "factors": factors, "segments": segments, "losses": losses}

if __name__ == "__main__":
    for name, draw in DRAWINGS.items():
        (Path(__file__).parent / f"{name}.svg").write_text(draw().render(), encoding="utf-8")
