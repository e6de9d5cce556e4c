// The chats of this person: the list, the one on the screen, and who is there. What is written goes over the socket; the
// server's log brings what was missed. Events of this object: `change` (draw), `came` (detail: a message from somebody).
import { Thread } from "./thread.js";
import { uuid } from "./util.js";

const AGAIN = { tries: 2 }; // safe with an opId
const TYPING_MS = 3000; // the server forgets after 6 s that somebody types
const TYPING_LOST_MS = 8000; // nobody has said that they stopped
const PAGE = 50;
const WATCHED_MAX = 100;

export class Chat extends EventTarget {
  #api;
  #signaling;
  #threads = new Map(); // the other's id → Thread
  #presences = new Map(); // people's ids → {state, lastSeenAt}
  #watched = "";
  #told = ""; // what PRESENCE_SET has last said
  #typedAt = -Infinity;
  #typingEnds = new Map(); // Thread → timer

  /** The conversation on the screen; null while the list is. */
  thread = null;

  constructor({ api, signaling }) {
    super();
    this.#api = api;
    this.#signaling = signaling;
    signaling.addEventListener("sync", () => this.#synced());
    signaling.addEventListener("told", ({ detail }) => this.#heard(detail.event, detail.payload));
    document.addEventListener("visibilitychange", () => this.#looked());
  }

  /** All conversations, the newest first. */
  get list() {
    const begun = [...this.#threads.values()].filter((one) => one.last);
    return begun.sort((one, another) => another.last.createdAt.localeCompare(one.last.createdAt));
  }

  get unread() {
    return [...this.#threads.values()].reduce((sum, one) => sum + one.unread, 0);
  }

  /** `{state, lastSeenAt}` of a person. */
  presenceOf(user) {
    return this.#presences.get(user.id) ?? { state: user.presence ?? "offline", lastSeenAt: null };
  }

  // ---- what the person does -------------------------------------------------------------------------------------

  /** Show the conversation with somebody; null shows the list. */
  async open(user) {
    const thread = user && this.#with(user);
    if (this.thread === thread) return;
    this.stopTyping();
    this.thread = thread;
    this.#changed();
    this.#looked();
    this.#watch();
    if (thread && !thread.loaded) await this.#load(thread);
  }

  /** Write to somebody. What the server refuses is thrown, and not shown as sent. */
  async send(user, { text, attachment, replyTo }) {
    const thread = this.#with(user);
    const opId = uuid();
    const shown = { opId, id: opId, sender: this.#api.me, text, attachment, replyTo, createdAt: new Date().toISOString() };
    thread.begin(shown);
    this.#typedAt = -Infinity; // the server takes a message for the end of the typing
    this.#changed();
    try {
      const ask = { to: user.id, text, attachmentId: attachment?.id, replyTo, opId };
      thread.add(await this.#signaling.ask("CHAT_MESSAGE", ask, AGAIN));
    } finally {
      thread.giveUp(opId);
      this.#changed();
    }
  }

  async edit(message, text) {
    this.#take(await this.#signaling.ask("MESSAGE_EDIT", { messageId: message.id, text }, AGAIN));
  }

  async remove(message) {
    this.#take(await this.#signaling.ask("MESSAGE_DELETE", { messageId: message.id }, AGAIN));
  }

  /** A key was pressed; said to the other one now and then. */
  typed(user) {
    if (performance.now() - this.#typedAt < TYPING_MS) return;
    this.#typedAt = performance.now();
    this.#signaling.hint("CHAT_TYPING", { to: user.id });
  }

  stopTyping() {
    if (this.#typedAt === -Infinity || !this.thread) return;
    this.#typedAt = -Infinity;
    this.#signaling.hint("CHAT_STOP_TYPING", { to: this.thread.other.id });
  }

  forget() {
    this.#threads.clear();
    this.#presences.clear();
    Object.assign(this, { thread: null });
    this.#watched = this.#told = "";
    this.#changed();
  }

  // ---- what the server says -------------------------------------------------------------------------------------

  #heard(event, payload) {
    switch (event) {
      case "CHAT_MESSAGE":
        this.#came(payload);
        return;
      case "MESSAGE_EDIT":
      case "MESSAGE_DELETE":
        this.#take(payload);
        break;
      case "MESSAGE_DELIVERED":
      case "MESSAGE_READ":
        this.#marked(event === "MESSAGE_READ" ? "read" : "delivered", payload);
        break;
      case "CHAT_TYPING":
      case "CHAT_STOP_TYPING":
        this.#types(payload, event === "CHAT_TYPING");
        break;
      case "PRESENCE":
        this.#presences.set(payload.userId, payload);
        break;
      default:
        return;
    }
    this.#changed();
  }

  async #came(message) {
    // The first one of a conversation: the list knows whose it is, and whether it is a group's, which is not shown here.
    if (!this.#byId(message.conversationId)) await this.#readList();
    const thread = this.#byId(message.conversationId);
    const mine = message.sender.id === this.#api.me?.id;
    const isNew = message.seq > (thread?.newestSeq ?? 0);
    if (!thread?.add(message)) return;
    if (!mine) {
      if (isNew) thread.unread += 1;
      thread.typing = false;
      this.#got(thread);
      this.dispatchEvent(new CustomEvent("came", { detail: message }));
    }
    this.#looked();
    this.#changed();
  }

  /** A message that has changed. */
  #take(message) {
    const thread = this.#byId(message.conversationId);
    const known = thread?.find(message.id) ?? thread?.last;
    if (known?.id === message.id) thread.add({ opId: known.opId, ...message });
    this.#changed();
  }

  #marked(what, { conversationId, userId, seq }) {
    const thread = this.#byId(conversationId);
    if (!thread) return;
    const mine = userId === this.#api.me.id; // on another device of ours
    thread.mark(mine ? thread.mine : thread.theirs, what, seq);
    if (mine && thread.mine.read >= thread.newestSeq) thread.unread = 0;
  }

  #types({ from, conversationId }, yes) {
    const thread = this.#byId(conversationId) ?? this.#threads.get(from.id);
    if (!thread || from.id === this.#api.me.id) return;
    thread.typing = yes;
    clearTimeout(this.#typingEnds.get(thread));
    if (!yes) return;
    const lost = () => {
      thread.typing = false;
      this.#changed();
    };
    this.#typingEnds.set(thread, setTimeout(lost, TYPING_LOST_MS));
  }

  // ---- after a connect, and when the page is looked at ------------------------------------------------------------

  async #synced() {
    this.#watched = this.#told = ""; // both end with a socket
    this.#looked();
    await this.#readList();
    if (this.thread) await this.#load(this.thread); // also what changed while the log had a gap
  }

  async #readList() {
    try {
      const { items } = await this.#api.call("GET", `/api/chat/conversations?limit=${PAGE}`);
      for (const row of items) if (row.kind === "direct") this.#takeRow(row);
    } catch (refusal) {
      console.debug(`conversations: ${refusal.message}`);
    }
    this.#watch();
    this.#changed();
  }

  #takeRow(row) {
    const thread = this.#with(row.members.find((one) => one.id !== this.#api.me.id));
    thread.id = row.id;
    thread.unread = row.unread;
    if (row.lastMessage && row.lastMessage.seq >= thread.newestSeq) thread.last = row.lastMessage;
    for (const [side, { deliveredSeq, readSeq }] of [[thread.mine, row], ...row.markers.map((one) => [thread.theirs, one])]) {
      thread.mark(side, "delivered", deliveredSeq);
      thread.mark(side, "read", readSeq);
    }
    if (row.unread) this.#got(thread);
  }

  async #load(thread) {
    try {
      for (const message of await this.#api.chatWith(thread.other.id)) thread.add(message);
      thread.loaded = true;
    } catch (refusal) {
      console.debug(`chat history: ${refusal.message}`);
    }
    this.#looked();
    this.#changed();
  }

  /** Tell them that their messages are on this device. */
  #got(thread) {
    const seq = thread.newestSeq;
    if (!thread.id || thread.mine.delivered >= seq) return;
    thread.mark(thread.mine, "delivered", seq);
    this.#signaling.hint("MESSAGE_DELIVERED", { conversationId: thread.id, seq });
  }

  /** What is on the screen is read, and not pushed to this device. */
  #looked() {
    const { thread } = this;
    const looking = !document.hidden;
    if (looking && thread?.id && thread.loaded && thread.mine.read < thread.newestSeq) {
      thread.mark(thread.mine, "read", thread.newestSeq);
      if (thread.last.sender.id !== this.#api.me.id || thread.unread) {
        this.#signaling.hint("MESSAGE_READ", { conversationId: thread.id, seq: thread.newestSeq });
      }
    }
    if (looking && thread?.loaded) thread.unread = 0;
    this.#say({ state: looking ? "online" : "away", conversationId: looking ? (thread?.id ?? null) : null });
    if (!looking) this.stopTyping();
  }

  #say(where) {
    const told = JSON.stringify(where);
    if (told === this.#told || !this.#signaling.online) return;
    this.#told = told;
    this.#signaling.hint("PRESENCE_SET", where);
  }

  /** Whoever is on the page is watched; asked anew when somebody joins them. */
  async #watch() {
    const shown = new Set([this.thread?.other.id, ...this.list.map((one) => one.other.id)].filter(Boolean));
    const userIds = [...shown].slice(0, WATCHED_MAX);
    if (!userIds.length || userIds.join() === this.#watched || !this.#signaling.online) return;
    this.#watched = userIds.join();
    try {
      const { presences } = await this.#signaling.ask("PRESENCE_WATCH", { userIds });
      for (const one of presences) this.#presences.set(one.userId, one);
      this.#changed();
    } catch (refusal) {
      this.#watched = "";
      console.debug(`PRESENCE_WATCH: ${refusal.code} ${refusal.message}`);
    }
  }

  #with(user) {
    let thread = this.#threads.get(user.id);
    if (!thread) this.#threads.set(user.id, (thread = new Thread(user)));
    return thread;
  }

  #byId(conversationId) {
    return [...this.#threads.values()].find((one) => one.id === conversationId);
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}
