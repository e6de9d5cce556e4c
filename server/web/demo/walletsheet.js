// The wallet as a sheet: adding money, withdrawing it, changing it, points, and what has happened to it.
import { moneyText } from "./money.js";
import { at, make, show, write } from "./page.js";
import { here } from "./checkout.js";
import { uuid, whenText } from "./util.js";

const LINES = 8;
const SAID_MS = 12_000;
const KINDS = {
  call: "Call",
  call_credits: "Call credits bought",
  earning: "Earned",
  deposit: "Paid in",
  reversal: "Taken back",
  refund: "Refund",
  transfer: "Transfer",
  withdrawal: "Withdrawal",
  withdrawal_returned: "Withdrawal came back",
  exchange: "Changed",
  reward: "Points",
};
const STANDS = {
  pending: "waiting",
  processing: "with the bank",
  completed: "paid",
  failed: "failed, the money is back",
  reversed: "came back",
};

export class WalletSheet {
  #api;
  #purse;
  #payIn;
  #quote = null;
  #accounts = [];
  #hushed = 0;
  #reading = 0;

  /** `payIn({amount, into, currency})` goes to the checkout, as **Pay in** in the head does. */
  constructor({ api, purse, payIn }) {
    this.#api = api;
    this.#purse = purse;
    this.#payIn = payIn;
    at("wallet-close").addEventListener("click", () => this.close());
    at("wallet").addEventListener("click", (event) => event.target === at("wallet") && this.close()); // beside it
    this.#form("add-form", (form) => this.#add(form));
    this.#form("bank-form", (form) => this.#keepAccount(form));
    this.#form("withdraw-form", (form) => this.#withdraw(form));
    this.#form("quote-form", (form) => this.#ask(form));
    this.#form("convert-form", (form) => this.#convert(form));
    this.#form("points-form", () => this.#redeem());
    at("account-remove").addEventListener("click", () => this.#try(() => this.#forgetAccount(), at("account-remove")));
    for (const button of document.querySelectorAll("[data-paper]")) {
      button.addEventListener("click", () => this.#try(() => this.#paper(button.dataset.paper), button));
    }
    purse.addEventListener("change", () => this.#draw());
    purse.addEventListener("paid", ({ detail }) => this.#paid(detail));
    purse.addEventListener("payout", () => at("wallet").open && this.#try(() => this.#readPayouts()));
  }

  async open() {
    this.#say("");
    if (!at("wallet").open) at("wallet").showModal();
    this.#draw();
    await this.#try(() => this.#read());
  }

  close() {
    if (at("wallet").open) at("wallet").close();
    this.#forgetQuote();
  }

  // ---- doing --------------------------------------------------------------------------------------------------------

  #form(id, work) {
    at(id).addEventListener("submit", (event) => {
      event.preventDefault();
      this.#try(() => work(Object.fromEntries(new FormData(at(id)))), event.submitter);
    });
  }

  /** Do it; a refusal is a line at the head of the sheet. */
  async #try(work, button) {
    if (button) button.disabled = true;
    try {
      return await work();
    } catch (refusal) {
      if (!refusal.sentence) console.error(refusal);
      this.#say(refusal.sentence ?? "Something went wrong on this page; the console says what.", { bad: true });
      return undefined;
    } finally {
      if (button) button.disabled = false;
    }
  }

  #say(text, { bad = false } = {}) {
    clearTimeout(this.#hushed);
    write(at("sheet-said"), text);
    at("sheet-said").dataset.bad = String(bad);
    show(at("sheet-said"), Boolean(text));
    if (text && !bad) this.#hushed = setTimeout(() => this.#say(""), SAID_MS);
    if (bad) at("sheet-said").scrollIntoView({ block: "nearest" });
  }

  #add({ amount, into }) {
    return this.#payIn({ amount: amount.trim(), into, currency: this.#currency });
  }

  #paid({ status, paidMinor, currency, amountMinor }) {
    if (status === "completed") {
      const other = paidMinor === amountMinor ? "" : `, of ${moneyText(amountMinor, currency)} that were asked for`;
      this.#say(`${moneyText(paidMinor, currency)} came in${other}.`);
    } else this.#say(`The payment is ${status}.`, { bad: status !== "reversed" });
  }

  async #keepAccount({ bankCode, accountNumber }) {
    const ask = { bankCode, accountNumber: accountNumber.trim(), currency: this.#currency };
    const { bankAccount } = await this.#api.call("POST", "/api/wallet/bank-accounts", ask);
    at("bank-form").reset();
    this.#say(`It is the account of ${bankAccount.accountName}.`);
    await this.#readAccounts(bankAccount.id);
    at("withdraw-amount").focus();
  }

  async #forgetAccount() {
    await this.#api.call("DELETE", `/api/wallet/bank-accounts/${encodeURIComponent(at("withdraw-account").value)}`);
    await this.#readAccounts();
  }

  async #withdraw({ bankAccountId, amount, pin }) {
    const ask = { bankAccountId, amount: amount.trim(), pin, opId: uuid() };
    const { payout } = await this.#api.call("POST", "/api/wallet/withdraw", ask);
    at("withdraw-pin").value = "";
    this.#say(`${moneyText(payout.amountMinor, payout.currency)} are on their way to the bank.`);
    await this.#readPayouts();
  }

  async #ask({ amount, to }) {
    this.#forgetQuote();
    const ask = { from: this.#currency, to, amount: amount.trim() };
    const { quote } = await this.#api.call("POST", "/api/wallet/fx/quote", ask);
    this.#quote = quote;
    const [from, gives] = [moneyText(quote.amountMinor, quote.from), moneyText(quote.receivesMinor, quote.to)];
    write(at("quote-text"), `${from} give ${gives}, for the next ${Math.round(quote.expiresInMs / 1000)}\u00a0s.`);
    show(at("convert-form"), true);
    at("convert-pin").focus();
  }

  async #convert({ pin }) {
    const ask = { quoteId: this.#quote.id, pin, opId: uuid() };
    const { conversion } = await this.#api.call("POST", "/api/wallet/fx/convert", ask);
    this.#forgetQuote();
    this.#say(`You have got ${moneyText(conversion.receivesMinor, conversion.to)}.`);
    await this.#readWallets();
  }

  #forgetQuote() {
    this.#quote = null;
    at("convert-form").reset();
    show(at("convert-form"), false);
  }

  async #redeem() {
    const { rewards } = await this.#api.call("GET", "/api/wallet/rewards");
    const points = rewards.points;
    await this.#api.call("POST", "/api/wallet/rewards/redeem", { points, opId: uuid() });
    this.#say("Your points are call credits now.");
    await this.#readPoints();
  }

  /** The statement as a file: a link of its own could not send the token. */
  async #paper(format) {
    const { timeZone } = Intl.DateTimeFormat().resolvedOptions();
    const asked = new URLSearchParams({ format, currency: this.#currency, timeZone: timeZone ?? "UTC" });
    const blob = await this.#api.file(`/api/wallet/statement?${asked}`);
    const link = make("a");
    link.href = URL.createObjectURL(blob);
    link.download = `statement.${format}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  // ---- reading ------------------------------------------------------------------------------------------------------

  get #currency() {
    return this.#purse.wallet?.currency;
  }

  /** All of it; what this server does not have is left out. */
  async #read() {
    const mine = (this.#reading += 1);
    const parts = [
      ["statement-part", () => this.#readWallets()],
      ["statement-part", () => this.#readLines()],
      ["withdraw-part", () => this.#readWithdrawals()],
      ["points-part", () => this.#readPoints()],
    ];
    for (const [id, read] of parts) {
      if (mine !== this.#reading || !at("wallet").open) return;
      const there = await read().then(() => true, (refusal) => console.debug(`wallet: ${refusal.message}`));
      show(at(id), Boolean(there));
    }
  }

  async #readWallets() {
    const { items } = await this.#api.call("GET", "/api/wallets");
    this.#others = items.filter((one) => one.kind === "primary" && one.currency !== this.#currency);
    this.#draw();
  }

  #others = [];

  async #readLines() {
    const { items } = await this.#api.call("GET", `/api/wallet/transactions?limit=${LINES}`);
    at("lines").replaceChildren(
      ...items.map((one) => {
        const amount = `${one.amountMinor > 0 ? "+" : ""}${moneyText(one.amountMinor, one.currency)}`;
        const who = one.counterparty ? ` · ${one.counterparty.displayName || one.counterparty.username}` : "";
        return row(`${KINDS[one.kind] ?? one.kind}${who}`, amount, whenText(one.createdAt), moneyText(one.balanceAfterMinor, one.currency));
      }),
      ...none(items, "Nothing has happened yet."),
    );
  }

  async #readWithdrawals() {
    await this.#readBanks();
    await this.#readAccounts();
    await this.#readPayouts();
  }

  async #readBanks() {
    if (at("bank").options.length) return;
    const { items } = await this.#api.call("GET", `/api/wallet/banks?currency=${encodeURIComponent(this.#currency)}`);
    at("bank").replaceChildren(...items.map(({ code, name }) => option(code, name)));
  }

  async #readAccounts(chosen = at("withdraw-account").value) {
    const { items } = await this.#api.call("GET", "/api/wallet/bank-accounts");
    this.#accounts = items.filter((one) => one.currency === this.#currency);
    at("withdraw-account").replaceChildren(
      ...this.#accounts.map((one) => option(one.id, `••${one.last4} · ${one.accountName}, ${one.bankName}`)),
    );
    if (this.#accounts.some((one) => one.id === chosen)) at("withdraw-account").value = chosen;
    show(at("withdraw-form"), Boolean(this.#accounts.length));
  }

  async #readPayouts() {
    const { items } = await this.#api.call("GET", "/api/wallet/payouts?limit=6");
    at("payouts").replaceChildren(
      ...items.map((one) => {
        const to = `${one.bankAccount.bankName} ••${one.bankAccount.last4}`;
        const line = row(to, moneyText(one.amountMinor, one.currency), whenText(one.createdAt), STANDS[one.status] ?? one.status);
        line.dataset.status = one.status;
        return line;
      }),
    );
  }

  async #readPoints() {
    const { rewards } = await this.#api.call("GET", "/api/wallet/rewards");
    const { points, worthMinor, currency } = rewards;
    write(at("points-text"), `You have ${points} ${points === 1 ? "point" : "points"}, worth ${moneyText(worthMinor, currency)}.`);
    at("points-redeem").disabled = !points;
  }

  // ---- drawing ------------------------------------------------------------------------------------------------------

  #draw() {
    const { wallet, pending } = this.#purse;
    if (!at("wallet").open || !wallet) return;
    const { currency, callCredits, heldMinor, pendingEarningsMinor } = wallet;
    const held = heldMinor + callCredits.heldMinor;
    const facts = [
      callCredits.availableMinor && `${moneyText(callCredits.availableMinor, currency)} call credits`,
      held && `${moneyText(held, currency)} held`,
      pendingEarningsMinor && `${moneyText(pendingEarningsMinor, currency)} earned, to be disputed yet`,
      wallet.frozen && "frozen: nothing can leave it",
    ];
    at("sheet-wallets").replaceChildren(
      figure(moneyText(wallet.availableMinor, currency), facts.filter(Boolean).join(" · ")),
      ...this.#others.map((one) => figure(moneyText(one.availableMinor, one.currency), one.currency)),
    );
    this.#drawPending(pending);
  }

  #drawPending(pending) {
    show(at("add-pending"), Boolean(pending));
    if (!pending) return at("add-pending").replaceChildren();
    const link = make("a", "", "the checkout");
    link.href = here(pending.checkoutUrl);
    link.target = "_blank";
    const words = `Waiting for ${moneyText(pending.amountMinor, pending.currency)} to be paid at `;
    return at("add-pending").replaceChildren(words, link, ".");
  }
}

function option(value, text) {
  const made = make("option", "", text);
  made.value = value;
  return made;
}

function figure(amount, more) {
  const item = make("li");
  item.append(make("strong", "", amount), make("small", "", more));
  return item;
}

function row(what, amount, when, more) {
  const item = make("li");
  item.append(make("strong", "", what), make("span", "amount", amount), make("small", "", when), make("small", "", more));
  return item;
}

const none = (items, text) => (items.length ? [] : [make("li", "none", text)]);
