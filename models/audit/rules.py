"""The books replayed from their first entry: wallets and journal, without trusting anything they say of themselves.

Wallets are registered first; then every entry is given once, in the order of the journal. Within a wallet that is the
order of its versions, because an entry is computed from the version before it; so one pass follows every chain with a
few numbers for each wallet. A wallet whose entries come in another order (a restored dump, a missing or altered row)
is left where the order broke, and its later entries are to be given again, sorted (``behind``, ``follow``).

After a fault a chain goes on from what the faulty row says, so that one altered row is one finding and not thousands.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from models.audit.payments import KINDS as DEPOSITS
from models.audit.report import Findings
from models.calls.call import Purse
from models.ledger.journal import Entry, Kind, Pocket, Seal, Sealed, Wallet, escrow, pocket_of
from models.ledger.rules import STATEMENT_ACCOUNTS, chain_hash
from models.payouts.rules import KINDS as WITHDRAWAL_KINDS

WALLETS, JOURNAL = "wallets", "journal"

HELD = {Pocket.PRIMARY_HELD, Pocket.CREDITS_HELD}
# What the idempotency key of each kind looks like; {c} is the call's id.
_NAMES: Mapping[Kind, str] = {
    Kind.HOLD: r"call:{c}:h:\d+",
    Kind.CAPTURE: r"call:{c}:cap:\d+",
    Kind.RELEASE: r"call:{c}:rel",
    Kind.SETTLE: r"call:{c}:settle",
    Kind.CLEAR: r"call:{c}:clear",
    Kind.REFUND: r"call:{c}:refund:.+",
    Kind.DEPOSIT: r"pay:[^:]+:.+",
    Kind.REVERSAL: r"rev:[^:]+:.+",
    Kind.CREDITS: r"cr:[^:]+:.+",
    Kind.TRANSFER: r"tr:[^:]+:.+",
    Kind.WITHDRAW_HOLD: r"wd:[^:]+:hold",
    Kind.WITHDRAWAL: r"wd:[^:]+:ok",
    Kind.WITHDRAW_VOID: r"wd:[^:]+:void",
    Kind.WITHDRAW_RETURN: r"wd:[^:]+:rev",
    Kind.EXCHANGE: r"fx:[^:]+",
    Kind.REWARD: r"rw:[^:]+:.+",
}
_OTHER_ACCOUNTS = re.compile(r"(?:platform:[a-z_]+|gateway:[^:]+:[a-z_]+|escrow:.+)")


@dataclass(slots=True)
class Chain:
    """One wallet's entries as far as they have been followed.

    ``pockets`` are its balances by the legs (a debt counts positive), ``stated`` what its statement lines say (None:
    not known, because an entry is missing).
    ``whole``: no entry was missing so far, so ``pockets`` are what they were at ``version``.
    """

    version: int = 0
    head: str = ""
    pockets: dict[Pocket, int] = field(default_factory=lambda: dict.fromkeys(Pocket, 0))
    stated: dict[str, int | None] = field(default_factory=lambda: dict.fromkeys(STATEMENT_ACCOUNTS, 0))
    whole: bool = True


class Books:
    """Wallets and journal of one database. Its memory grows with the wallets and not with the journal."""

    def __init__(self, found: Findings) -> None:
        self._found = found
        self._wallets: dict[str, Wallet] = {}
        self._chains: dict[str, Chain] = {}
        # By the legs alone, in any order and whatever the links say.
        self._sums: dict[str, Counter[Pocket]] = defaultdict(Counter)
        self._platform: Counter[tuple[str, str]] = Counter()
        self._holds: dict[str, Purse] = {}
        self.behind: set[str] = set()
        self.deposits = 0
        # Entries of each kind, by their own word.
        self.kinds: Counter[Kind] = Counter()

    # ------------------------------------------------------------------------------------------------------ reading

    def wallet(self, wallet: Wallet) -> None:
        """A wallet's document."""
        self._wallets[wallet.key] = wallet
        self._chains[wallet.key] = Chain()

    def entry(self, sealed: Sealed) -> None:
        """An entry of the journal, in the journal's order."""
        entry = sealed.entry
        moves = self._legs(entry)
        self._named(entry)
        links = Counter(seal.wallet for seal in sealed.seals)
        self._found.checked("I10")
        for key in links.keys() | moves.keys():
            if key not in self._chains:
                self._found.broken("I2", JOURNAL, entry.id, f"moves wallet {key}, which does not exist")
            elif links[key] != 1 or key not in moves:
                said = f"has {links[key]} links of wallet {key} and " + (
                    "moves" if key in moves else "no part of"
                )
                self._found.broken("I10", JOURNAL, entry.id, f"{said} it")
        for seal in sealed.seals:
            chain = self._chains.get(seal.wallet)
            if chain is None:
                continue
            if seal.version <= chain.version:
                said = f"is version {seal.version} of wallet {seal.wallet}, as another entry is"
                self._found.broken("I10", JOURNAL, entry.id, said)
            elif seal.wallet in self.behind or seal.version != chain.version + 1:
                self.behind.add(seal.wallet)
            else:
                self._follow(chain, entry, seal, moves.get(seal.wallet) or Counter())

    def version(self, key: str) -> int:
        """How far a wallet has been followed."""
        return self._chains[key].version

    def follow(self, key: str, sealed: Sealed) -> None:
        """A later entry of a wallet that is ``behind``, in the order of its versions."""
        chain, entry = self._chains[key], sealed.entry
        moves = _moves(entry).get(key) or Counter[Pocket]()
        for seal in sorted((one for one in sealed.seals if one.wallet == key), key=lambda one: one.version):
            if seal.version <= chain.version:
                said = f"is version {seal.version} of wallet {key}, as another entry is"
                self._found.broken("I10", JOURNAL, entry.id, said)
                continue
            if seal.version > chain.version + 1:
                said = f"has no entries for versions {chain.version + 1} to {seal.version - 1}, before {entry.id}"
                self._found.broken("I10", WALLETS, key, said)
                chain.version, chain.head, chain.whole = seal.version - 1, seal.previous, False
                chain.stated = dict.fromkeys(STATEMENT_ACCOUNTS)
            self._follow(chain, entry, seal, moves)

    def platform(self, account: str) -> dict[str, int]:
        """The balances of a platform account by currency, as far as the journal was read."""
        return {currency: amount for (name, currency), amount in self._platform.items() if name == account}

    def holds(self, wallet: str, purse: Purse) -> None:
        """What a call or withdrawal holds in a wallet, by its own document."""
        self._holds[wallet] = self._holds.get(wallet, Purse()) + purse

    # ------------------------------------------------------------------------------------------------- one entry

    def _legs(self, entry: Entry) -> dict[str, Counter[Pocket]]:
        """Fold the legs into the sums, and check what must hold of an entry alone."""
        self._found.checked("I1")
        sums: Counter[str] = Counter()
        for leg in entry.legs:
            sums[leg.currency] += leg.amount_minor
            if isinstance(leg.amount_minor, bool) or not isinstance(leg.amount_minor, int):
                said = f"moves {leg.amount_minor!r}, which is no whole number"
                self._found.broken("I1", JOURNAL, entry.id, said)
            place = pocket_of(leg.account)
            if place is None:
                # All escrows together here: each by itself is looked at with its call.
                account = "escrow" if leg.account.startswith("escrow:") else leg.account
                self._platform[account, leg.currency] += leg.amount_minor
                if not _OTHER_ACCOUNTS.fullmatch(leg.account):
                    self._found.broken("I1", JOURNAL, entry.id, f"names {leg.account}, which is no account")
                if leg.account.startswith("escrow:") and leg.account != escrow(entry.call_id or ""):
                    self._found.broken("I8", JOURNAL, entry.id, f"moves {leg.account}, which is not its own")
                continue
            if place[1] in HELD and entry.call_id is None and entry.kind not in WITHDRAWAL_KINDS:
                said = f"moves what is held in wallet {place[0]} for no call and no withdrawal"
                self._found.broken("I4", JOURNAL, entry.id, said)
            if not place[0].endswith(f":{leg.currency}"):
                self._found.broken("I1", JOURNAL, entry.id, f"moves {leg.currency} in wallet {place[0]}")
        over = [f"{amount} {currency}" for currency, amount in sums.items() if amount]
        if over or len(entry.legs) < 2:
            self._found.broken("I1", JOURNAL, entry.id, f"is off by {', '.join(over) or 'its other side'}")
        moves = _moves(entry)
        for key, amounts in moves.items():
            for pocket, amount in amounts.items():
                self._sums[key][pocket] += amount
        return moves

    def _named(self, entry: Entry) -> None:
        self._found.checked("I9")
        name = _NAMES[entry.kind].replace("{c}", re.escape(entry.call_id or "-"))
        if not re.fullmatch(name, entry.id, re.DOTALL):
            said = f"is of kind {entry.kind.value} and call {entry.call_id}, and named otherwise"
            self._found.broken("I9", JOURNAL, entry.id, said)
        self.kinds[entry.kind] += 1
        if entry.kind in DEPOSITS:
            self.deposits += 1

    def _follow(self, chain: Chain, entry: Entry, seal: Seal, moves: Mapping[Pocket, int]) -> None:
        """The next link of a wallet."""
        self._found.checked("I12", "I3")
        if seal.previous != chain.head:
            said = f"does not follow version {chain.version} of wallet {seal.wallet}"
            self._found.broken("I12", JOURNAL, entry.id, said)
        elif seal.hash != chain_hash(seal.previous, seal.wallet, seal.version, entry, seal.lines):
            said = f"is not what was sealed as version {seal.version} of wallet {seal.wallet}"
            self._found.broken("I12", JOURNAL, entry.id, said)
        chain.version, chain.head = seal.version, seal.hash
        for pocket, amount in moves.items():
            chain.pockets[pocket] += amount
            if chain.whole and chain.pockets[pocket] < 0:
                said = f"leaves {chain.pockets[pocket]} in {pocket.value} of wallet {seal.wallet}"
                self._found.broken("I3", JOURNAL, entry.id, said)
        self._lines(chain, entry, seal, moves)

    def _lines(self, chain: Chain, entry: Entry, seal: Seal, moves: Mapping[Pocket, int]) -> None:
        """The statement lines say what the legs do, and each begins where the one before it ended."""
        self._found.checked("I2")
        amounts = {
            account: sum(moves.get(pocket, 0) for pocket in pockets)
            for account, pockets in STATEMENT_ACCOUNTS.items()
        }
        good = {line.account: line.amount_minor for line in seal.lines} == {
            account: amount for account, amount in amounts.items() if amount
        }
        for line in seal.lines:
            before = chain.stated.get(line.account)
            good = good and before in (None, line.after_minor - line.amount_minor)
            chain.stated[line.account] = line.after_minor
        if not good:
            said = (
                f"has statement lines of wallet {seal.wallet} that its legs and the lines before do not give"
            )
            self._found.broken("I2", JOURNAL, entry.id, said)

    # ---------------------------------------------------------------------------------------------------- at the end

    def close(self, collected: Mapping[tuple[str, str], int]) -> None:
        """Everything was read: compare. ``collected``: payments less what went back, by clearing account, currency."""
        totals: Counter[str] = Counter()
        for (_, currency), amount in self._platform.items():
            totals[currency] += amount
        for key, wallet in self._wallets.items():
            totals[wallet.currency] += sum(_signed(pocket, wallet.balance(pocket)) for pocket in Pocket)
            self._wallet(key, wallet)
        for key in self._holds.keys() - self._wallets.keys():
            self._found.broken(
                "I4", WALLETS, key, "does not exist, and a call or withdrawal holds money in it"
            )
        for currency, total in sorted(totals.items()):
            self._found.checked("I13")
            if total:
                self._found.broken("I13", WALLETS, currency, f"all accounts add up to {total}")
        accounts = {place for place in self._platform if place[0].endswith(":clearing")}
        for account, currency in sorted(accounts | collected.keys()):
            self._found.checked("I11")
            paid, balance = collected.get((account, currency), 0), self._platform[account, currency]
            if balance != -paid:
                said = f"is at {balance} {currency}, payments less what went back or out are {paid}"
                self._found.broken("I11", JOURNAL, account, said)

    def _wallet(self, key: str, wallet: Wallet) -> None:
        self._found.checked("I2", "I3", "I4", "I10", "I12")
        chain, sums, holds = self._chains[key], self._sums[key], self._holds.get(key, Purse())
        for pocket in Pocket:
            balance = wallet.balance(pocket)
            if balance != sums[pocket]:
                said = f"{pocket.value} is {balance}, its journal lines add up to {sums[pocket]}"
                self._found.broken("I2", WALLETS, key, said)
            if balance < 0:
                self._found.broken("I3", WALLETS, key, f"{pocket.value} is {balance}")
        if (wallet.credits_held, wallet.primary_held) != (holds.credits, holds.primary):
            said = f"holds {wallet.credits_held} and {wallet.primary_held} (call credits, primary)"
            said += f", its calls and withdrawals hold {holds.credits} and {holds.primary}"
            self._found.broken("I4", WALLETS, key, said)
        if wallet.version != chain.version:
            said = f"is at version {wallet.version}, its last entry at {chain.version}"
            self._found.broken("I10", WALLETS, key, said)
        elif wallet.head != chain.head:
            self._found.broken("I12", WALLETS, key, "its head is not the hash of its last entry")


def _moves(entry: Entry) -> dict[str, Counter[Pocket]]:
    """What an entry adds to the pockets of each wallet; a debt counts positive."""
    moves: dict[str, Counter[Pocket]] = defaultdict(Counter)
    for leg in entry.legs:
        place = pocket_of(leg.account)
        if place is not None:
            moves[place[0]][place[1]] += _signed(place[1], leg.amount_minor)
    return moves


def _signed(pocket: Pocket, amount: int) -> int:
    """Between the ledger's sign, positive for a credit, and a balance's: only a debt is on the other side."""
    return -amount if pocket is Pocket.OWED else amount
