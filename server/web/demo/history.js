// Recent calls: who, how it ended, what it cost. A line calls again; its receipt opens under it.
import { isFree, moneyText } from "./money.js";
import { at, face, icon, make, show } from "./page.js";
import { fetchReceipt, receiptCard } from "./receipt.js";
import { clockText, nameOf, whenText } from "./util.js";

/** What a callee sees as missed. */
const MISSED = new Set(["no_answer", "unreachable", "cancelled", "caller_lost", "busy"]);

/** `no_answer` → `no answer`: the short form, beside the direction. */
const briefly = (reason) => (reason === "insufficient_funds" ? "out of money" : (reason ?? "ended").replaceAll("_", " "));

export class History {
  #api;
  #choose;
  #open = new Map(); // ids of calls whose receipt is open → its card

  /** There is no call yet. False also while nobody knows. */
  empty = false;

  /** `choose(user)`: a line was clicked. */
  constructor({ api, choose }) {
    this.#api = api;
    this.#choose = choose;
  }

  draw(calls, me) {
    this.empty = !calls.length;
    at("history").replaceChildren(...calls.map((call) => this.#line(call, me)));
    show(at("history-empty"), this.empty);
  }

  clear() {
    this.#open.clear();
    at("history").replaceChildren();
    this.empty = false;
    show(at("history-empty"), false);
  }

  #line(call, me) {
    const outgoing = call.caller?.id === me.id;
    const other = outgoing ? call.callee : call.caller;
    const missed = !outgoing && call.state === "ended" && MISSED.has(call.endReason);
    const direction = missed ? "Missed" : outgoing ? "Outgoing" : "Incoming";
    const ending = call.state === "ended" ? briefly(call.endReason) : `now ${call.state}`;
    const line = make("li");
    const button = make("button", `line ${missed ? "missed" : ""}`);
    button.type = "button";
    button.title = `Call ${nameOf(other)} again`;
    button.addEventListener("click", () => this.#choose(other));
    const avatar = make("span", "avatar small");
    avatar.setAttribute("aria-hidden", "true");
    face(avatar, other);
    const text = make("span", "line-text");
    const what = make("span", "what");
    what.append(icon(outgoing ? "out" : "in"), `${direction} ${call.type} · ${ending}`);
    text.append(make("strong", "", nameOf(other)), what);
    const side = make("span", "line-side");
    const length = call.durationSeconds ? clockText(call.durationSeconds) : "";
    // What it cost the caller: with a minus in their own list, as it came in for the one who was called.
    const cost = call.costMinor ? `${outgoing ? "−" : ""}${moneyText(call.costMinor, call.price.currency)}` : "";
    const figures = [length, cost].filter(Boolean).map((one) => make("span", "", one));
    side.append(make("time", "", whenText(call.createdAt)), ...figures); // one under the other: the name needs the width
    side.firstChild.dateTime = call.createdAt;
    button.append(avatar, text, side);
    line.append(button);
    if (call.state === "ended" && call.activeAt && !isFree(call.price)) this.#addReceipt(line, call);
    return line;
  }

  /** A button beside the line that opens and closes the receipt. It stays open while the list is drawn anew. */
  #addReceipt(line, call) {
    line.className = "with-receipt";
    const button = make("button", "icon-button");
    button.type = "button";
    button.dataset.test = "history-receipt";
    button.append(icon("receipt"));
    const say = () => {
      button.setAttribute("aria-expanded", String(this.#open.has(call.id)));
      button.title = this.#open.has(call.id) ? "Close the receipt" : "Open the receipt";
      button.setAttribute("aria-label", button.title);
    };
    button.addEventListener("click", async () => {
      const card = this.#open.get(call.id);
      if (card) {
        this.#open.delete(call.id);
        card.remove();
      } else {
        button.disabled = true;
        const receipt = await fetchReceipt(this.#api, call.id, () => line.isConnected);
        button.disabled = false;
        if (!receipt) return;
        const fresh = make("article", "receipt");
        fresh.append(...receiptCard(receipt));
        this.#open.set(call.id, fresh);
        line.append(fresh);
      }
      say();
    });
    line.append(button, ...[this.#open.get(call.id)].filter(Boolean));
    say();
  }
}
