"""The statement as a PDF, with fpdf2.

The PDF is drawn by hand, line by line, on A4 with the fonts that every reader has, so that a thousand lines are a
matter of a second and nothing is embedded. Those fonts know Western European letters: others lose their accents, and
a name of which nothing would be left is told by the username. It says nothing of the time at which it was made, so the
same statement is the same file.
"""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime, time

from fpdf import FPDF

from models.ledger.journal import Kind
from models.money import spoken
from models.papers.rules import Statement
from models.users.profile import Profile
from models.wallet.rules import StatementLine

_FONT, _ENCODING = "Helvetica", "windows-1252"
_INK, _FAINT, _LINE, _STRIPE, _BAND = (
    (28, 33, 40),
    (105, 113, 125),
    (214, 218, 224),
    (246, 247, 249),
    (20, 83, 96),
)
_MARGIN, _WIDTH, _ROW, _HEAD = 14.0, 182.0, 7.2, 8.0
_BOTTOM = 297.0 - 20.0
_ACCOUNTS = {"primary": "Balance", "call_credits": "Call credits"}
# Of the columns: heading, width in millimetres, and on which side it stands.
_COLUMNS = (
    ("Date", 33.0, "L"),
    ("What", 67.0, "L"),
    ("Account", 22.0, "L"),
    ("Amount", 30.0, "R"),
    ("Balance", 30.0, "R"),
)
# What a line says, without and with somebody on the other side; out of the wallet, and into it.
_SAID = {
    Kind.CAPTURE: ("Call", "Call with {}"),
    Kind.CLEAR: ("Earned in a call", "Earned in a call with {}"),
    Kind.REFUND: ("Refund of a call", "Refund of a call with {}"),
    Kind.DEPOSIT: ("Paid in", "Paid in by {}"),
    Kind.REVERSAL: ("Payment taken back", "Payment taken back by {}"),
    Kind.CREDITS: ("Call credits bought", "Call credits bought"),
    Kind.WITHDRAWAL: ("Withdrawn to a bank account", "Withdrawn to {}"),
    Kind.WITHDRAW_RETURN: ("Withdrawal came back", "Withdrawal came back"),
    Kind.EXCHANGE: ("Exchanged", "Exchanged with {}"),
    Kind.REWARD: ("Points redeemed", "Points redeemed"),
}


class _Paper(FPDF):  # type: ignore[misc]
    """A page with its foot."""

    def __init__(self, foot: str) -> None:
        super().__init__(format="A4", unit="mm")
        self.core_fonts_encoding = _ENCODING
        self.foot = foot
        self.set_margins(_MARGIN, _MARGIN)
        self.set_auto_page_break(False)
        self.alias_nb_pages()

    def footer(self) -> None:
        """Whose it is, and which page of how many."""
        self.set_y(-14)
        self.set_font(_FONT, size=8)
        self.set_text_color(*_FAINT)
        self.cell(_WIDTH / 2, 5, self.foot)
        self.cell(_WIDTH / 2, 5, f"Page {self.page_no()} of {{nb}}", align="R")


def pdf_of(statement: Statement) -> bytes:
    """The statement as the bytes of a PDF."""
    currency, period = statement.wallet.currency, statement.period
    owner = called(statement.owner)
    pdf = _Paper(f"{owner} - {currency} - {period.first:%d %b %Y} to {period.last:%d %b %Y}")
    pdf.set_title(f"Statement {currency} {period.first} to {period.last}")
    pdf.set_creator("Ringmeter")
    pdf.set_producer("Ringmeter")
    # Not now: the same statement is the same file.
    pdf.set_creation_date(datetime.combine(period.last, time(), UTC))
    pdf.add_page()
    _heading(pdf, statement, owner)
    _accounts(pdf, statement)
    _table(pdf, statement)
    return bytes(pdf.output())


def _heading(pdf: _Paper, statement: Statement, owner: str) -> None:
    period, wallet = statement.period, statement.wallet
    pdf.set_fill_color(*_BAND)
    pdf.rect(0, 0, 210, 30, style="F")
    pdf.set_xy(_MARGIN, 9)
    pdf.set_text_color(255, 255, 255)
    pdf.set_font(_FONT, "B", 20)
    pdf.cell(_WIDTH / 2, 12, "Statement")
    pdf.set_font(_FONT, size=11)
    said = f"{period.first:%d %B %Y} to {period.last:%d %B %Y}"
    pdf.cell(_WIDTH / 2, 12, said, align="R")
    pdf.set_xy(_MARGIN, 37)
    facts = (
        ("Name", owner),
        ("Username", plain(statement.owner.username)),
        ("Wallet", f"{wallet.id} ({wallet.currency})"),
        ("Time zone", period.zone),
    )
    for name, value in facts:
        pdf.set_x(_MARGIN)
        pdf.set_text_color(*_FAINT)
        pdf.set_font(_FONT, size=9)
        pdf.cell(28, 5.4, name)
        pdf.set_text_color(*_INK)
        pdf.set_font(_FONT, "B" if name == "Name" else "", 9)
        pdf.cell(_WIDTH - 28, 5.4, fitting(pdf, value, _WIDTH - 28))
        pdf.ln()
    pdf.ln(4)


def _accounts(pdf: _Paper, statement: Statement) -> None:
    """What was there, what came, what went, what is there, for each account that ever had anything."""
    currency = statement.wallet.currency
    shown = {
        name: sums
        for name, sums in statement.accounts.items()
        if name == "primary" or sums.opening_minor or sums.incoming_minor or sums.outgoing_minor
    }
    wide = _WIDTH / 5
    _row_of_headings(pdf, [(text, wide, side) for text, side in zip(
        ("", "Before", "In", "Out", "After"), "LRRRR", strict=True
    )])  # fmt: skip
    for name, sums in shown.items():
        pdf.set_font(_FONT, "B", 9)
        pdf.set_text_color(*_INK)
        pdf.cell(wide, _ROW, _ACCOUNTS[name])
        amounts = (sums.opening_minor, sums.incoming_minor, -sums.outgoing_minor, sums.closing_minor)
        for place, amount in enumerate(amounts):
            pdf.set_font(_FONT, "B" if place == 3 else "", 9)
            pdf.cell(wide, _ROW, spoken(amount, currency), align="R")
        pdf.ln()
    pdf.set_draw_color(*_LINE)
    pdf.line(_MARGIN, pdf.get_y(), _MARGIN + _WIDTH, pdf.get_y())
    pdf.ln(7)


def _table(pdf: _Paper, statement: Statement) -> None:
    if not statement.lines:
        pdf.set_font(_FONT, "I", 10)
        pdf.set_text_color(*_FAINT)
        pdf.cell(_WIDTH, 10, "Nothing has moved in these days.", align="C")
        return
    _row_of_headings(pdf, _COLUMNS)
    for number, line in enumerate(statement.lines):
        note = plain(line.note or "")
        height = _ROW + (3.6 if note else 0)
        if pdf.get_y() + height > _BOTTOM:
            pdf.add_page()
            _row_of_headings(pdf, _COLUMNS)
        _row(pdf, statement, line, note, height, striped=number % 2 == 1)
    pdf.set_draw_color(*_LINE)
    pdf.line(_MARGIN, pdf.get_y(), _MARGIN + _WIDTH, pdf.get_y())


def _row_of_headings(
    pdf: _Paper, columns: tuple[tuple[str, float, str], ...] | list[tuple[str, float, str]]
) -> None:
    pdf.set_font(_FONT, "B", 8)
    pdf.set_text_color(*_FAINT)
    for text, width, side in columns:
        pdf.cell(width, _HEAD, text.upper(), align=side)
    pdf.ln()
    pdf.set_draw_color(*_LINE)
    pdf.line(_MARGIN, pdf.get_y(), _MARGIN + _WIDTH, pdf.get_y())


def _row(
    pdf: _Paper, statement: Statement, line: StatementLine, note: str, height: float, *, striped: bool
) -> None:
    top, currency = pdf.get_y(), statement.wallet.currency
    if striped:
        pdf.set_fill_color(*_STRIPE)
        pdf.rect(_MARGIN, top, _WIDTH, height, style="F")
    cells = (
        f"{statement.when(line):%d %b %Y  %H:%M}",
        said_of(line, statement.who(line)),
        _ACCOUNTS[line.account],
        spoken(line.amount_minor, currency),
        spoken(line.balance_after_minor, currency),
    )
    for (name, width, side), text in zip(_COLUMNS, cells, strict=True):
        pdf.set_text_color(*(_FAINT if name == "Account" else _INK))
        pdf.set_font(_FONT, "B" if name == "Amount" and line.amount_minor > 0 else "", 9)
        pdf.cell(width, _ROW, fitting(pdf, text, width), align=side)
    if note:
        pdf.set_font(_FONT, size=7.5)
        pdf.set_text_color(*_FAINT)
        pdf.set_xy(_MARGIN + _COLUMNS[0][1], top + _ROW - 1.6)
        pdf.cell(_COLUMNS[1][1], 4, fitting(pdf, note, _COLUMNS[1][1]))
    pdf.set_xy(_MARGIN, top + height)


def said_of(line: StatementLine, who: Profile | None) -> str:
    """What a line is about, in words."""
    kind = Kind(line.kind)
    if kind is Kind.TRANSFER:
        way = "From" if line.amount_minor > 0 else "To"
        return f"{way} {called(who)}" if who else f"Transfer {'in' if line.amount_minor > 0 else 'out'}"
    alone, together = _SAID.get(kind, (kind.value.replace("_", " ").capitalize(), ""))
    return together.format(called(who)) if who and together else alone


def called(person: Profile) -> str:
    """What to call somebody, in letters that the page has: the display name, else the username."""
    name = plain(person.display_name)
    return (
        name
        if name.strip("? ") and name.count("?") == person.display_name.count("?")
        else plain(person.username)
    )


def plain(text: str) -> str:
    """Text in the letters of the page's fonts: without the accents that they lack, ``?`` for what they lack whole."""
    found = []
    for letter in unicodedata.normalize("NFC", " ".join(text.split())):
        if _known(letter):
            found.append(letter)
            continue
        bare = "".join(
            part for part in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(part)
        )
        found.append("".join(part if _known(part) else "?" for part in bare))
    return "".join(found)


def _known(letter: str) -> bool:
    try:
        return bool(letter.encode(_ENCODING)) and letter.isprintable()
    except UnicodeEncodeError:
        return False


def fitting(pdf: FPDF, text: str, width: float) -> str:
    """As much of a text as fits into a width, with dots where it was longer."""
    room = width - 2 * pdf.c_margin
    if pdf.get_string_width(text) <= room:
        return text
    while text and pdf.get_string_width(f"{text}...") > room:
        text = text[:-1]
    return f"{text.rstrip()}..."
