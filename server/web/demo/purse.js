// The wallet of this person: made without being asked for, paid into at the gateway's checkout, and always as the
// server last said it. Events of this object: `change`, `paid` (detail: the payment, when it has come to an end),
// `payout` (detail: a withdrawal that has changed).
import { goTo, payHere } from "./checkout.js";
import { uuid } from "./util.js";

// In a real app this is what its owner chose. The demo types it for them, because nothing of worth is behind it.
export const DEMO_PIN = "4071";
/** What a top-up pays in, in major units of whatever currency the wallet is in. */
const TOP_UP = "500";

export class Purse extends EventTarget {
  #api;
  #signaling;
  #opened = () => {};

  wallet = null;

  /** The payment whose checkout is open in another tab, or null. */
  pending = null;

  /** The references of what this page has begun to pay in. */
  #begun = new Set();

  /** Resolved when the wallet is there, or when there is none to be had; a call waits for it. */
  ready = Promise.resolve();

  constructor({ api, signaling }) {
    super();
    this.#api = api;
    this.#signaling = signaling;
    signaling.addEventListener("sync", ({ detail }) => this.#synced(detail.wallet));
    signaling.addEventListener("told", ({ detail }) => {
      if (detail.event === "WALLET_UPDATED") this.#take(detail.payload.wallet);
      if (detail.event === "PAYMENT_UPDATED") this.#paid(detail.payload.payment);
      if (detail.event === "PAYOUT_UPDATED") this.dispatchEvent(new CustomEvent("payout", { detail: detail.payload.payout }));
    });
    // Back from the checkout: if we were not told, we ask.
    addEventListener("focus", () => this.pending && this.ask().catch((refusal) => console.debug(refusal.message)));
  }

  /** What calls can be paid from, in minor units. */
  get spendableMinor() {
    return this.wallet ? this.wallet.availableMinor + this.wallet.callCredits.availableMinor : 0;
  }

  /** Somebody has joined. */
  open() {
    this.ready = new Promise((done) => {
      this.#opened = done;
    });
  }

  forget() {
    this.wallet = null;
    this.pending = null;
    this.#begun.clear();
    this.#opened();
    this.#changed();
  }

  /**
   * Money with one press, in the currency that is needed; without one in the wallet's own. At the sandbox this page
   * presses `paid` itself. Any other gateway's checkout is for a person: `tab()` opens one for it, or gives null.
   */
  async topUp({ tab, currency = this.wallet?.currency }) {
    const payment = await this.#begin({ amount: TOP_UP, currency });
    if (await payHere(payment.checkoutUrl)) await this.ask(payment.reference);
    else this.#leave(payment, tab());
  }

  /** Pay in at the checkout: in `tab`, which the click has opened (`checkoutTab`). Without one this page goes there. */
  async payIn({ tab, currency = this.wallet?.currency, amount = TOP_UP, into = "primary" }) {
    try {
      this.#leave(await this.#begin({ amount, currency, into }), tab);
    } catch (refusal) {
      tab?.close();
      throw refusal;
    }
  }

  async #begin(asked) {
    const { currency } = asked;
    if (!this.wallet || (currency && currency !== this.wallet.currency)) await this.#create(currency);
    const { payment } = await this.#deposit({ ...asked, opId: uuid() });
    this.#begun.add(payment.reference);
    return payment;
  }

  #leave(payment, tab) {
    this.pending = payment;
    goTo(payment.checkoutUrl, tab);
    this.#changed();
  }

  /** Have the gateway asked how the pending payment stands. */
  async ask(reference = this.pending?.reference) {
    const { payment, wallet } = await this.#api.call("POST", "/api/wallet/verify-deposit", { reference });
    this.#take(wallet);
    this.#paid(payment);
    return payment;
  }

  /** `SYNC` has the wallet; a person who has none gets one with money in it, so that the first call can be made. */
  async #synced(wallet) {
    try {
      if (wallet) this.#take(wallet);
      if (wallet || this.wallet) return;
      await this.#create();
      // The same key: two tabs of one person pay in once. So that the first call can be made at once, this page pays
      // the first money itself, on the very checkout that a person sees later.
      const { payment } = await this.#deposit({ amount: TOP_UP, opId: "welcome" });
      if (await payHere(payment.checkoutUrl)) await this.ask(payment.reference);
    } catch (refusal) {
      console.debug(`wallet: ${refusal.code} ${refusal.message}`); // the button tries again
    } finally {
      this.#opened();
    }
  }

  async #create(currency) {
    try {
      const { wallet } = await this.#api.call("POST", "/api/wallet/create", { pin: DEMO_PIN, currency });
      if (!this.wallet) this.#take(wallet);
    } catch (refusal) {
      if (refusal.code !== "WALLET_EXISTS") throw refusal;
    }
  }

  #deposit(ask) {
    return this.#api.call("POST", "/api/wallet/deposit", ask);
  }

  #paid(payment) {
    if (payment.status === "pending" || !this.#begun.delete(payment.reference)) return;
    if (payment.reference === this.pending?.reference) this.pending = null;
    this.#changed();
    this.dispatchEvent(new CustomEvent("paid", { detail: payment }));
  }

  /** An older one than we know came late; one in another currency is not the one on the page. */
  #take(wallet) {
    const known = this.wallet;
    if (known && (known.currency !== wallet.currency || known.version > wallet.version)) return;
    this.wallet = wallet;
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

/** What a top-up pays in, for the label of its button. */
export function topUpText(currency) {
  const style = { style: "currency", currency, currencyDisplay: "narrowSymbol", maximumFractionDigits: 0 };
  return new Intl.NumberFormat(undefined, style).format(Number(TOP_UP));
}
