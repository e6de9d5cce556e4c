// The page of the rooms: who is here, which room the address names, what a click does, when to draw.
import { Api } from "./api.js";
import { drawPurse } from "./balance.js";
import { checkoutTab } from "./checkout.js";
import { minorOf, rateText, termsOf } from "./money.js";
import { at, drawLink, drawMe, face, make, notice, show, write } from "./page.js";
import { Purse } from "./purse.js";
import { Signaling } from "./signaling.js";
import { Tiles, drawRoomChat, drawVisit, titleOf } from "./tiles.js";
import { wakeTones } from "./tones.js";
import { memory, nameOf, uuid } from "./util.js";
import { Visit } from "./visit.js";

const TITLE = "Ringmeter rooms";
const INVITED = "You have the link of a room. Say who you are, and go in.";
const api = new Api();
const signaling = new Signaling(api);
const purse = new Purse({ api, signaling });
const visit = new Visit({ api, signaling });
const tiles = new Tiles((user, button) => attempt(() => visit.kick(user.id), button));

let room = null; // the one that the address names, as the server last said it
let charged = null; // the last BILLING_TICK of a room with a price

const named = () => new URLSearchParams(location.search).get("room");
const linkTo = (id) => `${location.origin}/rooms?room=${encodeURIComponent(id)}`;

/** Do it; what the server refuses becomes a line on the page. */
async function attempt(work, button) {
  notice("");
  if (button) button.disabled = true;
  try {
    return await work();
  } catch (refusal) {
    if (!refusal.sentence) console.error(refusal);
    notice(refusal.sentence ?? "Something went wrong on this page; the console says what.");
    return undefined;
  } finally {
    if (button) button.disabled = false;
  }
}

// ---- coming and going -----------------------------------------------------------------------------------------------

function enter() {
  drawMe(api.me, TITLE);
  drawLink("connecting");
  purse.open();
  signaling.open();
  goTo(named());
}

function exit(reason) {
  visit.leave();
  signaling.close();
  purse.forget();
  drawMe(null, TITLE);
  draw();
  notice(reason);
  at("name").focus();
}

at("join-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  wakeTones();
  if (await attempt(() => api.join(at("name").value), event.submitter)) enter();
});

at("leave").addEventListener("click", async () => {
  visit.leave();
  await api.leave();
  exit("");
});

api.onSignedOut = async (refusal) => {
  await api.leave();
  exit(refusal.sentence);
};

// ---- lobby and door -------------------------------------------------------------------------------------------------

/** In front of a room, or without one in the lobby. The address says which, so that it can be shared and reloaded. */
async function goTo(id) {
  if (named() !== id) history.pushState(null, "", id ? linkTo(id) : "/rooms");
  if (room?.id !== id) room = null;
  draw();
  if (!api.me) return;
  if (id) await attempt(() => look(id));
  else await listRooms();
}

async function look(id) {
  const { room: found } = await api.call("GET", `/api/room/${encodeURIComponent(id)}`);
  if (named() !== id) return;
  room = found;
  draw();
}

async function listRooms() {
  const { items } = await api.call("GET", "/api/rooms?limit=20").catch(() => ({ items: [] }));
  const open = items.filter((one) => !one.closedAt);
  at("rooms").replaceChildren(...open.map(roomLine));
  show(at("rooms-empty"), !open.length);
}

function roomLine(one) {
  const item = make("li");
  const button = make("button", "line");
  button.type = "button";
  const text = make("span", "line-text");
  const price = one.price ? ` · ${rateText(one.price)}` : "";
  text.append(make("strong", "", titleOf(one)), make("span", "what", `${nameOf(one.owner)} · ${one.type}${price}`));
  const there = one.participants.length;
  button.append(text, make("span", "line-side", there ? `${there} of ${one.capacity} there` : "empty"));
  button.addEventListener("click", () => goTo(one.id));
  item.append(button);
  return item;
}

addEventListener("popstate", () => {
  visit.leave();
  goTo(named());
});

at("create-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  wakeTones();
  const form = new FormData(at("create-form"));
  const made = await attempt(async () => {
    const ask = { name: form.get("name").trim(), type: form.get("type"), capacity: Number(form.get("capacity")) || 8 };
    await purse.ready; // its currency says what the price is in
    if (Number(form.get("rate"))) ask.ratePerMinuteMinor = minorOf(Number(form.get("rate")), purse.wallet.currency);
    return (await api.call("POST", "/api/room/create", { ...ask, opId: uuid() })).room;
  }, event.submitter);
  if (!made) return;
  room = made;
  at("create-form").reset();
  goTo(made.id);
});

at("room-join").addEventListener("click", async () => {
  wakeTones();
  await attempt(async () => {
    await purse.ready; // a wallet that is being made has to be there before a room is paid from it
    await visit.join(room);
  }, at("room-join"));
});

// ---- in the room ----------------------------------------------------------------------------------------------------

at("room-mute").addEventListener("click", () => visit.toggleMute());
at("room-camera").addEventListener("click", () => visit.toggleCamera());
at("room-leave").addEventListener("click", () => {
  visit.leave();
  goTo(named());
});
at("room-close").addEventListener("click", () => attempt(() => api.call("POST", `/api/room/${named()}/close`), at("room-close")));
at("notice-close").addEventListener("click", () => notice(""));
at("top-up").addEventListener("click", () => {
  const tab = () => {
    const opened = checkoutTab();
    if (opened || !visit.inside) return opened;
    throw Object.assign(new Error(), { sentence: "Your browser keeps this page from opening the checkout: allow pop-ups for it." });
  };
  attempt(() => purse.topUp({ tab }), at("top-up"));
});
at("room-copy").addEventListener("click", async () => {
  await navigator.clipboard?.writeText(at("room-link").href).catch(() => {});
  getSelection().selectAllChildren(at("room-link"));
  write(at("room-copy").lastElementChild, "Copied");
});

at("room-chat-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = at("room-chat-text").value.trim();
  if (!text) return;
  await attempt(async () => {
    await visit.say(text);
    at("room-chat-text").value = "";
  }, event.submitter);
  at("room-chat-text").focus();
});

visit.addEventListener("over", async ({ detail: { reason, text } }) => {
  if (reason === "kicked") await goTo(null); // it is no longer ours to see
  else await look(named()).catch(() => goTo(null));
  notice(text);
});
visit.addEventListener("change", () => draw());
purse.addEventListener("change", () => drawPurse(purse));
signaling.addEventListener("status", ({ detail }) => drawLink(detail));
signaling.addEventListener("sync", async () => {
  // Loaded anew in the middle of a room: back in, without a click.
  if (visit.inside || !named() || memory.get("room") !== named()) return;
  await attempt(async () => {
    if (room?.id !== named()) await look(named());
    await visit.join(room);
  });
});
signaling.addEventListener("told", ({ detail: { event, payload } }) => {
  if (event === "error") notice(payload.error?.message ?? "The server refused an event.");
  if (event === "BILLING_TICK" && visit.room?.price) charged = payload;
  if (event === "BILLING_LOW_BALANCE" && visit.room?.price) {
    notice(`Your money lasts ${payload.remainingSeconds} s more. Top up, and you can stay.`);
  }
  if (event === "room-invited") listRooms();
  if (event === "room-updated" && payload.room.id === room?.id) room = payload.room;
  if (event === "CALL_REQUEST") notice(`${nameOf(payload.from)} calls you. Answer on the page “Phone”.`);
  draw();
});

// ---- drawing --------------------------------------------------------------------------------------------------------

let drawing = false;

function draw() {
  if (drawing) return;
  drawing = true;
  queueMicrotask(() => {
    drawing = false;
    if (visit.room) ({ room } = visit);
    else charged = null;
    const id = named();
    if (id) write(at("welcome-words"), INVITED);
    write(at("room-state"), visit.state);
    show(at("lobby"), !id);
    show(at("door"), Boolean(id && room && !visit.inside));
    show(at("visit"), visit.inside);
    show(at("invite"), Boolean(id && room && !room.closedAt));
    show(at("room-close"), Boolean(room && !room.closedAt && room.owner.id === api.me?.id));
    if (id) drawLinkTo(id);
    if (room && !visit.inside) drawDoor();
    drawVisit(visit, { charged });
    if (!api.me) return;
    tiles.draw(visit, api.me);
    drawRoomChat(visit, api.me);
  });
}

function drawLinkTo(id) {
  if (at("room-link").href === linkTo(id)) return;
  at("room-link").href = linkTo(id);
  write(at("room-link"), linkTo(id));
  write(at("room-copy").lastElementChild, "Copy");
}

function drawDoor() {
  const { owner, participants, capacity, price, type, closedAt } = room;
  const mine = owner.id === api.me?.id;
  write(at("door-name"), titleOf(room));
  const who = mine ? "Your room" : `${nameOf(owner)}’s room`;
  const there = participants.length ? `${participants.map(nameOf).join(", ")} in it` : "nobody in it yet";
  const facts = closedAt ? [who, "closed"] : [who, type, `for ${capacity}`, there];
  if (price && !closedAt) facts.push(mine ? `pays you ${rateText(price)} each` : rateText(price), ...termsOf(price));
  write(at("door-words"), facts.join(" · "));
  show(at("room-join"), !closedAt);
  at("door-people").replaceChildren(
    ...participants.map((user) => {
      const avatar = make("span", "avatar");
      face(avatar, user);
      return avatar;
    }),
  );
}

if (api.me) enter();
else {
  drawMe(null, TITLE);
  draw();
}
