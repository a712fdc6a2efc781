#!/usr/bin/env python3
"""Records a command in a terminal and draws it as an SVG that plays.

usage: record.py OUT.svg COMMAND [ARGUMENT...]

What is drawn is what the command wrote, at the times at which it wrote it; pauses are cut to one second. A viewer that
plays nothing shows the end. Needs nothing but Python 3.
"""
import html
import os
import pty
import re
import select
import struct
import sys
import time
import fcntl
import termios

COLUMNS = 112
LONGEST_PAUSE = 1.0
FEWEST_SECONDS_BETWEEN_VERSIONS = 0.25
CHARACTER, LINE, MARGIN = 7.8, 18, 18
COLOURS = {31: "#ff7b72", 32: "#7ee787", 33: "#e3b341", 34: "#79c0ff", 35: "#d2a8ff", 36: "#76e3ea"}
SEQUENCE = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|\x1b\][^\x07]*\x07|\x1b[()=>].?")


class Screen:
    """An endless sheet that a terminal writes on; remembers what each line was, and since when."""

    def __init__(self):
        self.lines = [[]]
        self.versions = {}
        self.row = self.column = 0
        self.style = (None, False, False)

    def write(self, text, at):
        changed = {self.row}
        position = 0
        while position < len(text):
            match = SEQUENCE.match(text, position)
            if match:
                position = match.end()
                if match.group(2):
                    self.control(match.group(1), match.group(2))
            else:
                self.character(text[position])
                position += 1
            changed.add(self.row)
        for row in changed:
            self.versions.setdefault(row, []).append((at, [tuple(cell) for cell in self.lines[row]]))

    def character(self, character):
        if character == "\n":
            self.row += 1
        elif character == "\r":
            self.column = 0
        elif character == "\b":
            self.column = max(0, self.column - 1)
        elif character >= " ":
            if self.column == COLUMNS:
                self.row, self.column = self.row + 1, 0
            self.reach()
            line = self.lines[self.row]
            line += [(" ", self.style)] * (self.column + 1 - len(line))
            line[self.column] = (character, self.style)
            self.column += 1
        self.reach()

    def reach(self):
        while len(self.lines) <= self.row:
            self.lines.append([])

    def control(self, arguments, kind):
        numbers = [int(number or 0) for number in arguments.lstrip("?").split(";")]
        count = max(1, numbers[0])
        if kind == "m":
            self.colour(numbers)
        elif kind == "A":
            self.row = max(0, self.row - count)
        elif kind == "B":
            self.row += count
        elif kind == "C":
            self.column = min(COLUMNS, self.column + count)
        elif kind == "D":
            self.column = max(0, self.column - count)
        elif kind == "G":
            self.column = count - 1
        elif kind in "KJ":
            line = self.lines[self.row]
            del line[0 if numbers[0] == 2 else self.column:]
        self.reach()

    def colour(self, numbers):
        colour, bold, dim = self.style
        for number in numbers:
            if number == 0:
                colour, bold, dim = None, False, False
            elif number == 1:
                bold = True
            elif number == 2:
                dim = True
            elif number == 22:
                bold = dim = False
            elif number == 39:
                colour = None
            elif number in COLOURS or number - 60 in COLOURS:
                colour = COLOURS.get(number, COLOURS.get(number - 60))
        self.style = (colour, bold, dim)


def record(command):
    """Runs the command in a terminal; gives the screen, its length in played seconds, and the exit status."""
    screen, played, carried = Screen(), 0.0, b""
    child, terminal = pty.fork()
    if child == 0:
        os.environ["TERM"] = "xterm-256color"
        os.execvp(command[0], command)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    last = time.monotonic()
    while True:
        select.select([terminal], [], [])
        try:
            read = os.read(terminal, 65536)
        except OSError:
            break
        if not read:
            break
        os.write(1, read)
        now = time.monotonic()
        played += min(now - last, LONGEST_PAUSE)
        last = now
        carried += read
        text = carried.decode("utf-8", "ignore")
        # A sequence that is cut in two waits for its other half.
        cut = text.rfind("\x1b")
        if cut >= 0 and not SEQUENCE.match(text, cut) and len(text) - cut < 32:
            text, carried = text[:cut], text[cut:].encode()
        else:
            carried = b""
        screen.write(text, played)
    return screen, played, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def spans(cells):
    """A line as SVG, neighbours of one style together."""
    parts, start = [], 0
    while cells and cells[-1][0] == " ":
        cells = cells[:-1]
    for end in range(1, len(cells) + 1):
        if end == len(cells) or cells[end][1] != cells[start][1]:
            colour, bold, dim = cells[start][1]
            text = html.escape("".join(character for character, _ in cells[start:end]))
            style = (f' fill="{colour}"' if colour else "") + (' font-weight="bold"' if bold else "") + (' opacity=".6"' if dim else "")
            parts.append(f"<tspan{style}>{text}</tspan>" if style else text)
            start = end
    return "".join(parts)


def draw(screen, title):
    rows = []
    for row, versions in sorted(screen.versions.items()):
        kept = []
        for at, cells in versions:
            if kept and at - kept[-1][0] < FEWEST_SECONDS_BETWEEN_VERSIONS:
                at = kept.pop()[0]
            kept.append((at, spans(cells)))
        kept = [each for i, each in enumerate(kept) if i == 0 or each[1] != kept[i - 1][1]]
        y = MARGIN + 30 + LINE * row
        for i, (at, text) in enumerate(kept):
            if not text:
                continue
            if i + 1 < len(kept):
                style = f"opacity:0;animation:was {kept[i + 1][0] - at:.2f}s step-end {at:.2f}s forwards"
            else:
                style = f"animation:waits {at:.2f}s step-end"
            rows.append(f'<text x="{MARGIN}" y="{y}" xml:space="preserve" style="{style}">{text}</text>')
    height = MARGIN * 2 + 30 + LINE * (max(screen.versions) + 1)
    width = int(MARGIN * 2 + CHARACTER * COLUMNS)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">
<title>{html.escape(title)}</title>
<style>
@keyframes waits {{ from {{ opacity: 0 }} to {{ opacity: 0 }} }}
@keyframes was {{ from {{ opacity: 1 }} to {{ opacity: 0 }} }}
text {{ font: 13px/1 "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: #e6edf3; white-space: pre }}
</style>
<rect width="{width}" height="{height}" rx="8" fill="#0d1117"/>
<text x="{MARGIN}" y="{MARGIN + 6}" style="fill:#7ee787">$ {html.escape(title)}</text>
{chr(10).join(rows)}
</svg>
"""


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    screen, played, status = record(sys.argv[2:])
    if status != 0:
        sys.exit(f"{sys.argv[2]} ended with status {status}: nothing is drawn")
    with open(sys.argv[1], "w", encoding="utf-8") as out:
        out.write(draw(screen, " ".join(sys.argv[2:])))
    print(f"{sys.argv[1]}: plays {played:.0f} s")


main()
