"""A flame graph as a picture that needs no script, from stacks as ``py-spy record --format raw`` writes them.

One line of input is ``outermost;…;innermost count``. A box is as wide as its share of all samples; who called it
stands above. What is too narrow to be seen is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from zlib import crc32

WIDTH, ROW, MARGIN, HEAD = 1200, 17, 8, 44
LETTER = 6.3  # as wide as one is at 11 px
SHARE_MIN = 0.003
# Ours stand out from the libraries'.
OURS = ("server/", "handlers/", "models/", "main.py")


@dataclass(slots=True)
class Frame:
    """A function as called from those above it."""

    samples: int = 0
    callees: dict[str, Frame] = field(default_factory=dict)

    def depth(self, least: float) -> int:
        """Rows of what is seen of it."""
        return 1 + max((one.depth(least) for one in self.callees.values() if one.samples >= least), default=0)


def read(raw: str) -> Frame:
    """The tree of all stacks."""
    root = Frame()
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        if not stack or not count.isdigit():
            continue
        root.samples += int(count)
        here = root
        for name in stack.split(";"):
            here = here.callees.setdefault(name, Frame())
            here.samples += int(count)
    return root


def trunk(root: Frame) -> tuple[list[str], Frame]:
    """What every stack begins with, and what is above it: the start of the program says nothing."""
    names: list[str] = []
    while len(root.callees) == 1:
        ((name, root),) = root.callees.items()
        names.append(name)
    return names, root


def draw(raw: str, title: str) -> str:
    """The SVG."""
    _, root = trunk(read(raw))
    least = max(1.0, root.samples * SHARE_MIN)
    height = HEAD + ROW * (root.depth(least) - 1) + MARGIN
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="monospace" '
        f'font-size="11">\n<rect width="{WIDTH}" height="{height}" fill="#fff"/>\n'
        f'<text x="{MARGIN}" y="20" font-family="sans-serif" font-size="15" font-weight="bold">{escape(title)}</text>\n'
        f'<text x="{MARGIN}" y="36" font-family="sans-serif" fill="#64748b">{root.samples:,} samples on the CPU; '
        "orange: this server, blue: libraries; callers above</text>\n"
    )
    return (
        head
        + "".join(
            _boxes(root, float(MARGIN), HEAD, (WIDTH - 2 * MARGIN) / max(1, root.samples), root.samples)
        )
        + "</svg>\n"
    )


def _boxes(frame: Frame, x: float, y: int, scale: float, total: int) -> Iterator[str]:
    for name, one in sorted(frame.callees.items(), key=lambda item: -item[1].samples):
        width = one.samples * scale
        if one.samples >= max(1.0, total * SHARE_MIN):
            letters = int((width - 4) / LETTER)
            short = name if len(name) <= letters else name[: max(0, letters - 1)] + "…"
            text = f'<text x="{x + 2:.1f}" y="{y + 12}">{escape(short)}</text>' if letters > 2 else ""
            yield (
                f"<g><title>{escape(name)}: {one.samples / total:.1%}</title>"
                f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW - 1}" fill="{_colour(name)}"/>{text}</g>\n'
            )
            yield from _boxes(one, x, y + ROW, scale, total)
        x += width


def _colour(name: str) -> str:
    shade = crc32(name.encode()) % 5
    if any(mark in name for mark in OURS):
        return ("#fdba74", "#fcb96a", "#fbbf7d", "#f9b061", "#fec488")[shade]
    return ("#bfdbfe", "#c7e0fd", "#b4d4fb", "#cfe5ff", "#bcd8f9")[shade]
