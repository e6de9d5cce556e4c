// A room from this tab: who is in it, what is written in it, and the way back in after a lost connection. The server
// owns the truth: who is there is what it says. Events of this object: `change` (draw), `over` (detail: {reason, text}; we
// are out without having asked for it).
import { openMedia, stopMedia } from "./media.js";
import { Mesh } from "./mesh.js";
import { Refusal, memory, uuid } from "./util.js";

const REPEAT = { tries: 3 }; // coming and going are safe to repeat
const UNHEARD = new Set(["NO_ANSWER", "OFFLINE"]);
const PAGE = 50; // of the room's chat
const ENDINGS = {
  kicked: "The owner has shown you out of the room.",
  insufficient_funds: "Your money has run out, so you are no longer in the room.",
  max_duration: "You have been in the room for as long as one can be.",
  owner: "The room was closed by its owner.",
  empty: "The room was closed, because nobody was in it for a long time.",
};

export class Visit extends EventTarget {
  #api;
  #signaling;
  #mesh = null;
  #stay = 0; // counts goings in and out, so that a camera that opens late knows whether it is still wanted

  /** "outside", "joining", "joined", "reconnecting". */
  state = "outside";

  /** The room as the server last said it; null outside. */
  room = null;

  /** Everybody in the room, us too: id → PublicUser, in the order in which they came. */
  people = new Map();

  messages = [];
  stream = null;
  note = "";
  muted = false;
  cameraOff = false;

  constructor({ api, signaling }) {
    super();
    this.#api = api;
    this.#signaling = signaling;
    signaling.addEventListener("status", ({ detail }) => this.#status(detail));
    signaling.addEventListener("sync", () => this.#comeBack());
    signaling.addEventListener("told", ({ detail }) => this.#told(detail.event, detail.payload));
  }

  get inside() {
    return this.state !== "outside";
  }

  get mine() {
    return this.room?.owner?.id === this.#api.me?.id;
  }

  /** The connection to one of the others, or undefined while there is none. */
  peer(userId) {
    return this.#mesh?.with(userId);
  }

  // ---- what the person does -------------------------------------------------------------------------------------

  /** Go in. Throws a Refusal: full, closed, not invited, not enough money. */
  async join(room) {
    if (this.inside) return;
    Object.assign(this, { room, messages: [], muted: false, cameraOff: false });
    this.people = new Map(room.participants.map((user) => [user.id, user]));
    this.#become("joining");
    const stay = (this.#stay += 1);
    const [{ stream, note }, config] = await Promise.all([
      openMedia(room.type, { small: true }),
      this.#api.iceConfig(),
    ]);
    if (stay !== this.#stay) {
      stopMedia(stream);
      return;
    }
    Object.assign(this, { stream, note });
    const link = {
      say: (event, targetUserId, what) => this.#signaling.hint(event, { roomId: room.id, targetUserId, ...what }),
      online: () => this.state === "joined",
      changed: () => this.#changed(),
    };
    const kinds = room.type === "video" ? ["audio", "video"] : ["audio"];
    this.#mesh = new Mesh(link, { me: this.#api.me.id, stream, kinds, config });
    try {
      await this.#enter();
    } catch (refusal) {
      this.#end();
      throw refusal;
    }
  }

  /** The screen does not wait for the network. */
  leave() {
    if (!this.inside) return;
    const { id } = this.room;
    this.#end();
    this.#signaling.hint("leave-room", { roomId: id });
  }

  async say(text) {
    const { id } = this.room;
    this.#wrote(await this.#signaling.ask("chat-message", { roomId: id, message: text, opId: uuid() }, REPEAT));
  }

  kick(userId) {
    return this.#api.call("POST", `/api/room/${this.room.id}/kick`, { userId });
  }

  closeRoom() {
    return this.#api.call("POST", `/api/room/${this.room.id}/close`);
  }

  toggleMute() {
    this.muted = !this.muted;
    this.#mesh?.mute(this.muted);
    this.#changed();
  }

  toggleCamera() {
    this.cameraOff = !this.cameraOff;
    this.#mesh?.hideCamera(this.cameraOff);
    this.#changed();
  }

  // ---- what the server says -------------------------------------------------------------------------------------

  #told(event, payload) {
    const about = payload.roomId ?? payload.room?.id;
    if (!this.inside || about !== this.room.id) return;
    switch (event) {
      case "existing-users":
        for (const user of payload.users) this.#isHere(user)?.greet(user.id);
        break;
      case "user-connected":
        this.#isHere(payload.user)?.expect(payload.userId);
        break;
      case "user-disconnected":
        this.people.delete(payload.userId);
        this.#mesh?.drop(payload.userId);
        break;
      case "offer":
      case "answer":
        this.#mesh?.heardDescription(payload.senderId, payload[event]);
        break;
      case "ice-candidate":
        this.#mesh?.heardCandidate(payload.senderId, payload.candidate);
        break;
      case "chat-message":
        this.#wrote(payload);
        break;
      case "room-closed":
      case "room-kicked":
        this.#end({ reason: payload.reason, text: ENDINGS[payload.reason] ?? "You are no longer in the room." });
        return;
      default:
        break;
    }
    if (payload.room?.version > this.room.version) this.room = payload.room;
    this.#changed();
  }

  /** The mesh, when it is somebody else's arrival. */
  #isHere(user) {
    this.people.set(user.id, user);
    return user.id === this.#api.me.id ? undefined : this.#mesh;
  }

  async #enter() {
    const { id } = this.room;
    const stay = this.#stay;
    const { room, participants } = await this.#signaling.ask("join-room", { roomId: id }, REPEAT);
    if (stay !== this.#stay) return;
    memory.set("room", id);
    this.room = room;
    const here = new Map(participants.map((user) => [user.id, user]));
    for (const userId of this.people.keys()) if (!here.has(userId)) this.#mesh.drop(userId);
    this.people = here;
    this.#become("joined");
    await this.#readChat(id);
  }

  async #readChat(id) {
    const { items } = await this.#api.call("GET", `/api/room/${id}/messages?limit=${PAGE}`);
    if (this.room?.id === id) for (const message of items) this.#wrote(message);
  }

  /** A line of the chat, each once, in the order of the room. */
  #wrote(message) {
    if (this.messages.some((known) => known.id === message.id)) return;
    this.messages.push(message);
    this.messages.sort((one, other) => one.seq - other.seq);
    this.#changed();
  }

  // ---- a lost connection ----------------------------------------------------------------------------------------

  #status(status) {
    if (status !== "online" && this.state === "joined") this.#become("reconnecting");
  }

  /** The socket was away while the media went on: take our place again. */
  async #comeBack() {
    if (this.state !== "reconnecting") return;
    try {
      await this.#enter();
    } catch (refusal) {
      if (!(refusal instanceof Refusal)) throw refusal;
      if (!UNHEARD.has(refusal.code)) this.#end({ reason: refusal.code, text: refusal.sentence }); // else the next connect tries again
    }
  }

  #end(farewell = null) {
    this.#stay += 1;
    this.#mesh?.close();
    stopMedia(this.stream);
    memory.set("room", null);
    this.#mesh = null;
    Object.assign(this, { stream: null, people: new Map(), note: "", room: null });
    this.#become("outside");
    if (farewell) this.dispatchEvent(new CustomEvent("over", { detail: farewell }));
  }

  #become(state) {
    this.state = state;
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}
