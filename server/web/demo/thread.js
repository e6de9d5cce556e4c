// One conversation with one other person: its messages, each in its newest version, and how far both have read. Nothing
// here touches the page or the network.

export class Thread {
  #messages = new Map(); // id → message
  #pending = new Map(); // opId → message that has no number yet

  /** The conversation's id; null before its first message. */
  id = null;
  typing = false;
  unread = 0;
  loaded = false;

  /** The newest message, also before the others are loaded; null when there is none. */
  last = null;

  /** Numbers up to which each side has got: what the other one has of ours, and we of theirs. */
  theirs = { delivered: 0, read: 0 };
  mine = { delivered: 0, read: 0 };

  constructor(other) {
    this.other = other;
  }

  /** In order: by number, then what is on its way. */
  get messages() {
    const known = [...this.#messages.values()].sort((one, another) => one.seq - another.seq);
    return [...known, ...this.#pending.values()];
  }

  get newestSeq() {
    return this.last?.seq ?? 0;
  }

  find(id) {
    return this.#messages.get(id);
  }

  /** A message as the server has it. An older version of one that we know changes nothing; false then. */
  add(message) {
    const known = this.#messages.get(message.id);
    if (known && known.version >= message.version) return false;
    this.id = message.conversationId;
    this.#messages.set(message.id, message);
    if (message.opId) this.#pending.delete(message.opId);
    if (message.seq >= this.newestSeq) this.last = message;
    return true;
  }

  /** On its way: shown at once, until the answer has come. */
  begin(message) {
    this.#pending.set(message.opId, { ...message, pending: true });
  }

  giveUp(opId) {
    this.#pending.delete(opId);
  }

  /** Markers only go forward. */
  mark(side, what, seq) {
    side[what] = Math.max(side[what], seq);
    if (what === "read") side.delivered = Math.max(side.delivered, seq); // who has read it has it
  }

  /** Of a message of ours: "sending", "sent", "delivered", "read". */
  stateOf(message) {
    if (message.pending) return "sending";
    if (message.seq <= this.theirs.read) return "read";
    return message.seq <= this.theirs.delivered ? "delivered" : "sent";
  }
}
