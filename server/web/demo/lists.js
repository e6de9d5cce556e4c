// The two lists beside the phone: recent calls and the chat. Everything that people wrote goes in by textContent.
import { at, face } from "./view.js";
import { moneyText } from "./money.js";
import { clockText, nameOf, whenText } from "./util.js";

/** What a callee sees as missed. */
const MISSED = new Set(["no_answer", "unreachable", "cancelled", "caller_lost", "busy"]);
const SVG = "http://www.w3.org/2000/svg";

/** `no_answer` → `no answer`: the short form, beside the direction. */
const briefly = (reason) => (reason === "insufficient_funds" ? "out of money" : (reason ?? "ended").replaceAll("_", " "));

export function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** One line of the history; a click puts the person's name into the dial. */
function callLine(call, me, choose) {
  const outgoing = call.caller?.id === me.id;
  const other = outgoing ? call.callee : call.caller;
  const missed = !outgoing && call.state === "ended" && MISSED.has(call.endReason);
  const direction = missed ? "Missed" : outgoing ? "Outgoing" : "Incoming";
  const ending = call.state === "ended" ? briefly(call.endReason) : `now ${call.state}`;
  const line = make("li");
  const button = make("button", `line ${missed ? "missed" : ""}`);
  button.type = "button";
  button.title = `Call ${nameOf(other)} again`;
  button.addEventListener("click", () => choose(other));
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
  const figures = [length, cost].filter(Boolean).join(" · ");
  side.append(make("time", "", whenText(call.createdAt)), make("span", "", figures));
  side.firstChild.dateTime = call.createdAt;
  button.append(avatar, text, side);
  line.append(button);
  return line;
}

export function drawHistory(calls, me, choose) {
  at("history").replaceChildren(...calls.map((call) => callLine(call, me, choose)));
  at("history-empty").hidden = calls.length > 0;
}

/** The messages of this tab, each once, in the order of their time. */
export class ChatLog {
  #shown = new Map();

  clear() {
    this.#shown.clear();
    at("chat-log").replaceChildren();
    at("chat-empty").hidden = false;
  }

  /** `message` as the server sends it; `to` is known for what we have just sent. */
  add(message, me, to = null) {
    if (!message?.id || this.#shown.has(message.id)) return;
    const senderId = typeof message.sender === "object" ? message.sender?.id : message.sender;
    const mine = senderId === me.id;
    const item = make("li", mine ? "mine" : "theirs");
    const who = mine ? `You${to ? ` to ${nameOf(to)}` : ""}` : nameOf(message.sender);
    const head = make("span", "from", `${who} · `);
    const time = make("time", "", whenText(message.createdAt));
    time.dateTime = message.createdAt ?? "";
    head.append(time);
    item.append(make("p", "", message.deletedAt ? "Message deleted" : (message.text ?? "")), head);
    item.dataset.at = message.createdAt ?? "";
    this.#shown.set(message.id, item);
    const log = at("chat-log");
    const after = [...log.children].find((one) => one.dataset.at > item.dataset.at);
    log.insertBefore(item, after ?? null);
    at("chat-empty").hidden = true;
    log.scrollTop = log.scrollHeight;
  }
}
