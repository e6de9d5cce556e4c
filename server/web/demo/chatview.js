// The chat on the page: the list of conversations, or the one that is open. State in, elements out.
import { at, face, icon, make, show, write } from "./page.js";
import { nameOf, whenText } from "./util.js";

const TICKS = { sending: ["clock", "On its way"], sent: ["tick", "Sent"], delivered: ["ticks", "Delivered"], read: ["ticks", "Read"] };
const PRESENCES = { online: "online", away: "away", in_call: "in a call", offline: "offline" };
const PICTURES_MAX = 200; // kept in memory, as addresses that hold the picture itself

export const textOf = (message) => {
  if (message.deletedAt) return "Message deleted";
  if (message.encrypted) return "Encrypted message";
  return message.text || message.attachment?.filename || (message.attachment?.kind === "image" ? "Photo" : "File");
};

export class ChatView {
  #chat;
  #api;
  #does;
  #lines = new Map(); // a message's key → {element, look}
  #pictures = new Map(); // path → promise of an address
  #shown = null; // the Thread on the page

  /** `does` = {choose(user), reply(message), edit(message), remove(message, button)}. */
  constructor({ chat, api, does }) {
    this.#chat = chat;
    this.#api = api;
    this.#does = does;
  }

  draw() {
    const { thread, list, unread } = this.#chat;
    show(at("chat-back"), Boolean(thread) && list.some((one) => one !== thread));
    show(at("chat-unread"), unread > 0);
    write(at("chat-unread"), String(unread));
    write(at("chat-title"), thread ? nameOf(thread.other) : "Chats");
    show(at("conversations"), !thread);
    show(at("chat-log"), Boolean(thread));
    show(at("chat-empty"), thread ? !thread.messages.length : !list.length);
    write(at("chat-typing"), thread?.typing ? `${nameOf(thread.other)} is typing…` : "");
    this.#drawPresence(thread);
    if (thread) this.#drawLog(thread);
    else at("conversations").replaceChildren(...list.map((one) => this.#row(one)));
    this.#shown = thread;
  }

  forget() {
    this.#pictures.clear();
    this.#lines.clear();
    at("chat-log").replaceChildren();
  }

  #drawPresence(thread) {
    show(at("chat-presence"), Boolean(thread));
    if (!thread) return;
    const { state, lastSeenAt } = this.#chat.presenceOf(thread.other);
    at("chat-presence").dataset.presence = state;
    const seen = state === "offline" && lastSeenAt ? `last seen ${whenText(lastSeenAt)}` : PRESENCES[state];
    write(at("chat-presence"), seen);
  }

  // ---- the list -------------------------------------------------------------------------------------------------

  #row(thread) {
    const { other, last, unread, typing } = thread;
    const item = make("li");
    const button = make("button", unread ? "line unread" : "line");
    button.type = "button";
    button.dataset.test = "conversation";
    button.dataset.user = other.id;
    button.addEventListener("click", () => this.#does.choose(other));
    const avatar = make("span", "avatar small");
    face(avatar, other);
    avatar.dataset.presence = this.#chat.presenceOf(other).state;
    avatar.setAttribute("role", "img");
    avatar.setAttribute("aria-label", PRESENCES[avatar.dataset.presence]);
    const text = make("span", "line-text");
    const what = make("span", "what");
    const mine = last.sender.id !== other.id;
    what.append(make("span", "", typing ? "typing…" : `${mine ? "You: " : ""}${textOf(last)}`));
    text.append(make("strong", "", nameOf(other)), what);
    const side = make("span", "line-side");
    side.append(make("time", "", whenText(last.createdAt)));
    if (unread) side.append(make("span", "badge", String(unread)));
    button.append(avatar, text, side);
    item.append(button);
    return item;
  }

  // ---- the open one ---------------------------------------------------------------------------------------------

  /** Each message once; what has not changed is left as it is, so that nothing flickers and nothing is read out anew. */
  #drawLog(thread) {
    const log = at("chat-log");
    if (this.#shown !== thread) {
      this.#lines.clear();
      log.replaceChildren();
    }
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
    const before = log.lastElementChild;
    thread.messages.forEach((message, index) => {
      const element = this.#lineOf(thread, message);
      if (log.children[index] !== element) log.insertBefore(element, log.children[index] ?? null);
    });
    const came = log.lastElementChild !== before;
    if (atEnd || (came && log.lastElementChild?.classList.contains("mine"))) log.scrollTop = log.scrollHeight;
  }

  #lineOf(thread, message) {
    const key = message.opId ?? message.id; // a message keeps its line when its number comes
    const mine = message.sender.id !== thread.other.id;
    const state = mine ? thread.stateOf(message) : "";
    const original = thread.find(message.replyTo)?.version;
    const look = `${message.id} ${message.version} ${state} ${original}`;
    const known = this.#lines.get(key);
    if (known?.look === look) return known.element;
    const element = this.#line(thread, message, { mine, state });
    known?.element.replaceWith(element);
    this.#lines.set(key, { element, look });
    return element;
  }

  #line(thread, message, { mine, state }) {
    const item = make("li", mine ? "mine" : "theirs");
    item.dataset.test = "message";
    item.dataset.id = message.id;
    if (state) item.dataset.state = state;
    item.append(this.#bubble(thread, message), foot(message, { mine, state }));
    if (!message.deletedAt && !message.pending) item.append(this.#actions(message, mine));
    return item;
  }

  #bubble(thread, message) {
    const bubble = make("div", "bubble");
    bubble.addEventListener("click", () => bubble.parentElement.classList.toggle("picked")); // where nothing hovers
    if (message.deletedAt || message.encrypted) {
      bubble.append(make("p", "gone", textOf(message)));
      return bubble;
    }
    if (message.replyTo) {
      const original = thread.find(message.replyTo);
      bubble.append(make("span", "quoted", original ? `${nameOf(original.sender)}: ${textOf(original)}` : "An earlier message"));
    }
    if (message.attachment) {
      bubble.append(this.#attached(message.attachment));
      bubble.classList.toggle("picture", Boolean(message.attachment.thumbnailUrl));
    }
    if (message.text) bubble.append(make("p", "", message.text));
    return bubble;
  }

  #attached(attachment) {
    const { thumbnailUrl, filename, width, height } = attachment;
    const button = make("button", thumbnailUrl ? "attached" : "attached file");
    button.type = "button";
    button.title = "Open it";
    button.addEventListener("click", async () => {
      const { url } = await this.#api.call("GET", `${attachment.url}/link`); // a tab sends no token, either
      window.open(url, "_blank", "noopener");
    });
    if (!thumbnailUrl) {
      button.append(icon("file"), filename ?? "File");
      return button;
    }
    const image = make("img");
    Object.assign(image, { alt: filename ?? "Photo", width: Math.min(width, 220) });
    image.height = Math.round((image.width * height) / width); // its place is known before it is there
    this.#picture(thumbnailUrl)
      .then((address) => (image.src = address))
      .catch((refusal) => console.debug(`thumbnail: ${refusal.message}`));
    button.append(image);
    return button;
  }

  #picture(path) {
    let address = this.#pictures.get(path);
    if (address) return address;
    address = this.#api.file(path).then(dataAddress);
    address.catch(() => this.#pictures.delete(path));
    if (this.#pictures.size >= PICTURES_MAX) this.#pictures.delete(this.#pictures.keys().next().value);
    this.#pictures.set(path, address);
    return address;
  }

  #actions(message, mine) {
    const row = make("div", "does");
    const add = (name, label, act) => {
      const button = make("button");
      button.type = "button";
      button.dataset.test = `message-${name}`;
      button.title = label;
      button.setAttribute("aria-label", label);
      button.append(icon(name === "delete" ? "bin" : name));
      button.addEventListener("click", () => act(message, button));
      row.append(button);
    };
    add("reply", "Reply", this.#does.reply);
    if (mine && message.text) add("edit", "Edit", this.#does.edit);
    if (mine) add("delete", "Delete for both", this.#does.remove);
    return row;
  }
}

function foot(message, { mine, state }) {
  const from = make("span", "from");
  const time = make("time", "", whenText(message.createdAt));
  time.dateTime = message.createdAt;
  from.append(time);
  if (message.editedAt && !message.deletedAt) from.append(" · edited");
  if (!mine || message.deletedAt) return from;
  const [name, words] = TICKS[state];
  const ticks = make("span", "ticks");
  ticks.setAttribute("role", "img");
  ticks.setAttribute("aria-label", words);
  ticks.title = words;
  ticks.append(icon(name));
  from.append(ticks);
  return from;
}

/** The page's policy lets pictures come from data, not from blobs. */
function dataAddress(blob) {
  return new Promise((done, fail) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => fail(reader.error);
    reader.readAsDataURL(blob);
  });
}
