// The people of a room as tiles, and what stands around them. Elements in, state out.
import { moneyText, rateText } from "./money.js";
import { at, face, icon, make, play, show, toggle, write } from "./page.js";
import { follow } from "./tones.js";
import { nameOf, whenText } from "./util.js";

/** One person: a picture where there is one, else a face; a name; for the owner a way to remove them. */
class Tile {
  #followed = null;
  #stop = () => {};

  constructor(user, { own, kick }) {
    this.own = own;
    this.element = make("div", "tile");
    this.element.dataset.test = "room-tile";
    this.element.dataset.user = user.id;
    this.video = make("video", own ? "own" : "");
    Object.assign(this.video, { autoplay: true, playsInline: true, muted: own });
    this.avatar = make("span", "avatar large");
    this.avatar.setAttribute("aria-hidden", "true");
    this.label = make("span", "tile-name");
    this.words = make("span", "tile-words");
    this.off = icon("mic");
    this.off.append(icon("off").firstChild);
    this.kick = make("button", "tile-kick");
    this.kick.type = "button";
    this.kick.dataset.test = "room-kick";
    this.kick.append(icon("close"));
    this.kick.title = `Remove ${nameOf(user)} from the room`;
    this.kick.setAttribute("aria-label", this.kick.title);
    this.kick.addEventListener("click", () => kick(user, this.kick));
    const foot = make("p", "tile-foot");
    foot.append(this.off, this.label, this.words);
    this.element.append(this.video, this.avatar, foot, this.kick);
  }

  draw(user, { stream, picture, words, muted, removable, blocked }) {
    face(this.avatar, user);
    write(this.label, this.own ? `${nameOf(user)} (you)` : nameOf(user));
    write(this.words, words);
    this.off.toggleAttribute("hidden", !muted);
    show(this.kick, removable);
    this.element.dataset.look = picture ? "picture" : "face";
    play(this.video, stream, blocked);
    this.#listen(this.own ? null : stream);
  }

  /** Whoever speaks has a lit frame. */
  #listen(stream) {
    const track = stream?.getAudioTracks()[0] ?? null;
    if (track === this.#followed) return;
    this.#followed = track;
    this.#stop();
    const light = (level) => this.element.style.setProperty("--level", level.toFixed(2));
    this.#stop = track ? follow(stream, light) : () => {};
  }

  remove() {
    this.#stop();
    this.video.srcObject = null;
    this.element.remove();
  }
}

export class Tiles {
  #tiles = new Map();

  /** `kick(user, button)`: the owner wants somebody out. */
  constructor(kick) {
    this.kick = kick;
  }

  draw(visit, me) {
    for (const [id, tile] of this.#tiles) {
      if (visit.people.has(id)) continue;
      tile.remove();
      this.#tiles.delete(id);
    }
    // Our own stands last: the others are whom we look at.
    const others = [...visit.people.values()].filter((one) => one.id !== me.id);
    for (const user of [...others, visit.people.get(me.id)].filter(Boolean)) this.#drawOne(visit, user, user.id === me.id);
    at("tiles").dataset.count = String(this.#tiles.size);
  }

  #drawOne(visit, user, own) {
    let tile = this.#tiles.get(user.id);
    if (!tile) this.#tiles.set(user.id, (tile = new Tile(user, { own, kick: this.kick })));
    const place = own ? null : ([...at("tiles").children].find((one) => one.firstChild.matches(".own")) ?? null);
    if (!tile.element.isConnected) at("tiles").insertBefore(tile.element, place);
    const removable = visit.mine && !own;
    tile.draw(user, { ...(own ? ownLook(visit) : theirLook(visit.peer(user.id))), removable, blocked: needsClick });
  }
}

function ownLook({ stream, muted, cameraOff, state }) {
  const picture = Boolean(stream?.getVideoTracks().length) && !cameraOff;
  const words = state === "joined" ? "" : state === "joining" ? "going in…" : "connection lost, trying again…";
  return { stream: picture ? stream : null, picture, words, muted };
}

function theirLook(peer) {
  const state = peer?.state ?? "new";
  const connected = state === "connected";
  const lost = state === "disconnected" || state === "failed";
  const words = connected ? "" : lost ? "connection lost…" : "connecting…";
  return { stream: peer?.remote ?? null, picture: connected && peer.receivesVideo, words, muted: false };
}

/** A browser plays sound only after a click: the next one anywhere starts what waits. */
function needsClick(yes) {
  if (!yes) return;
  const start = () => {
    for (const video of document.querySelectorAll("#tiles video")) if (video.srcObject) video.play().catch(() => {});
  };
  addEventListener("click", start, { once: true });
}

/** What stands around the tiles. `charged` is the last BILLING_TICK, or null. */
export function drawVisit(visit, { charged }) {
  const { room, people } = visit;
  if (!room) return;
  write(at("visit-name"), titleOf(room));
  write(at("room-count"), String(people.size));
  write(at("room-size"), ` of ${room.capacity}`);
  write(at("room-price"), priceText(visit, charged));
  toggle("room-mute", visit.muted, ["Mute", "Unmute"]);
  toggle("room-camera", visit.cameraOff, ["Camera off", "Camera on"]);
  at("room-mute").disabled = !visit.stream?.getAudioTracks().length;
  show(at("room-camera"), Boolean(visit.stream?.getVideoTracks().length));
  write(at("visit-note"), visit.note);
  show(at("visit-note"), Boolean(visit.note));
}

export const titleOf = (room) => room.name || `${nameOf(room.owner)}’s room`;

function priceText({ room, mine }, charged) {
  if (!room.price) return "";
  if (mine) return ` · pays you ${rateText(room.price)} each`;
  return ` · ${rateText(room.price)}${charged ? `, ${moneyText(charged.chargedMinor, charged.currency)} so far` : ""}`;
}

/** The chat of the room, drawn anew: it is short, and a line never changes. */
export function drawRoomChat({ messages, people }, me) {
  const log = at("room-chat-log");
  if (log.childElementCount === messages.length) return;
  log.replaceChildren(...messages.map((message) => line(message, people, me)));
  show(at("room-chat-empty"), !messages.length);
  log.scrollTop = log.scrollHeight;
}

function line({ senderId, username, message, timestamp }, people, me) {
  const mine = senderId === me.id;
  const item = make("li", mine ? "mine" : "theirs");
  const head = make("span", "from", mine ? "" : `${nameOf(people.get(senderId) ?? { username })} · `);
  const time = make("time", "", whenText(timestamp));
  time.dateTime = timestamp;
  head.append(time);
  const bubble = make("div", "bubble");
  bubble.append(make("p", "", message));
  item.append(bubble, head);
  return item;
}
