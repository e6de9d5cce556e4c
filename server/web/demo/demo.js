// Wires the parts together: who is here, what a click does, when to draw.
import { Api } from "./api.js";
import { drawPurse } from "./balance.js";
import { Chat } from "./chat.js";
import { checkoutTab } from "./checkout.js";
import { ChatView } from "./chatview.js";
import { Composer } from "./compose.js";
import { History } from "./history.js";
import { Meter } from "./meter.js";
import { moneyText } from "./money.js";
import { at, drawLink, drawMe, notice } from "./page.js";
import { Phone } from "./phone.js";
import { Purse } from "./purse.js";
import { Quote } from "./quote.js";
import { fetchReceipt, receiptCard } from "./receipt.js";
import { Signaling } from "./signaling.js";
import { drawTill } from "./till.js";
import { farewell, follow, hush, ring, wakeTones } from "./tones.js";
import { memory, nameOf } from "./util.js";
import { drawCall, drawClocks } from "./view.js";
import { WalletSheet } from "./walletsheet.js";

const api = new Api();
const signaling = new Signaling(api);
const phone = new Phone({ api, signaling });
const purse = new Purse({ api, signaling });
const quote = new Quote({ api });
const meter = new Meter({ phone, signaling });
const chat = new Chat({ api, signaling });
const history = new History({ api, choose });
const sheet = new WalletSheet({ api, purse, payIn });

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
  drawMe(api.me);
  drawLink("connecting");
  redraw();
  signaling.open();
  purse.open();
  refreshHistory();
}

function exit(reason) {
  phone.drop();
  signaling.close();
  purse.forget();
  quote.forget();
  sheet.close();
  Object.assign(till, { receipt: null, put: null, short: null });
  chat.forget();
  chatView.forget();
  chatted = null;
  history.clear();
  drawMe(null);
  notice(reason);
  at("name").focus();
}

at("join-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  wakeTones();
  const joined = await attempt(() => api.join(at("name").value), event.submitter);
  if (!joined) return;
  enter();
  at("peer").focus();
});

at("leave").addEventListener("click", async () => {
  phone.drop();
  await api.leave();
  exit("");
});

api.onSignedOut = async (refusal) => {
  await api.leave();
  exit(refusal.sentence);
};

// ---- the call -------------------------------------------------------------------------------------------------------

async function dial(type) {
  wakeTones();
  if (phone.busy) return;
  const button = at(`call-${type}`);
  till.short = null;
  const found = await attempt(async () => {
    const user = await api.findUser(at("peer").value);
    if (user.id === api.me.id) throw Object.assign(new Error(), { sentence: "That is you. Open a second tab for somebody else." });
    await purse.ready; // a wallet that is being made has to be there before a call is paid from it
    return { user, price: (await quote.for(user, type)).price };
  }, button);
  if (found) await phone.dial(found.user, type, found.price);
}

at("dial").addEventListener("submit", (event) => {
  event.preventDefault();
  dial("video");
});
at("call-audio").addEventListener("click", () => dial("audio"));
at("accept").addEventListener("click", () => {
  wakeTones();
  notice("");
  phone.accept();
});
at("reject").addEventListener("click", () => phone.reject());
at("hangup").addEventListener("click", () => phone.hangup());
at("mute").addEventListener("click", () => phone.toggleMute());
at("camera").addEventListener("click", () => phone.toggleCamera());
at("ask-video").addEventListener("click", () => phone.askForVideo());
at("upgrade-yes").addEventListener("click", () => phone.answerUpgrade(true));
at("upgrade-no").addEventListener("click", () => phone.answerUpgrade(false));
at("unlock").addEventListener("click", () => {
  wakeTones();
  at("remote-video").play().catch(() => {});
  at("unlock").hidden = true;
});
// noopener: the new tab starts with a session storage of its own, so it is somebody else
at("open-tab").addEventListener("click", () => window.open("/", "_blank", "noopener"));
at("notice-close").addEventListener("click", () => notice(""));

let sounding = null;
let followed = { stream: null, stop: () => {} };

/** Sound and the level ring follow the call; both only when something changed. */
function sound() {
  const { leg } = phone;
  const ringing = phone.busy && (leg.phase === "incoming" ? "incoming" : leg.state === "ringing" ? "outgoing" : null);
  if (ringing !== sounding) {
    sounding = ringing;
    if (ringing) ring(ringing);
    else hush();
  }
  const stream = phone.busy && leg.remote?.getAudioTracks().length ? leg.remote : null;
  if (stream === followed.stream) return;
  followed.stop();
  const draw = (level) => at("face-ring").style.setProperty("--level", level.toFixed(2));
  followed = { stream, stop: stream ? follow(stream, draw) : () => {} };
}

let drawing = false;
const redraw = () => {
  if (drawing) return;
  drawing = true;
  queueMicrotask(() => {
    drawing = false;
    drawCall(phone, { alone: history.empty && !chat.list.length });
    drawClocks(phone);
    sound();
    const { leg } = phone;
    if (!leg) return;
    if (phone.busy && !at("peer").value.trim()) at("peer").value = leg.other?.username ?? "";
    followChat();
  });
};
phone.addEventListener("change", redraw);
at("remote-video").addEventListener("resize", redraw); // the first picture has come
phone.addEventListener("note", ({ detail: { text, refusal } }) => refused(text, refusal));
phone.addEventListener("over", ({ detail }) => {
  if (detail?.talkedMs) farewell();
  refreshHistory();
  refreshReceipt(detail);
});
setInterval(() => {
  drawClocks(phone);
  redrawTill();
}, 250);

async function refreshHistory() {
  if (!api.me) return;
  try {
    const calls = await api.history();
    if (!api.me) return;
    history.draw(calls, api.me);
    redraw();
  } catch (refusal) {
    console.debug(`history: ${refusal.message}`);
  }
}

// ---- the money ------------------------------------------------------------------------------------------------------

const till = { receipt: null, put: null, short: null }; // as drawTill takes them

function redrawTill() {
  if (!phone.busy && api.me) quote.name(at("peer").value);
  drawTill({ phone, meter, quote, purse, ...till });
}

/** A refusal for want of money is a card with a button; all others are a line. */
function refused(text, refusal) {
  if (refusal?.code === "INSUFFICIENT_FUNDS") till.short = refusal.details;
  else notice(text);
  if (refusal?.code === "PRICE_CHANGED") quote.again();
  redrawTill();
}

async function refreshReceipt(leg) {
  till.receipt = null;
  if (leg?.call?.state !== "ended" || !leg.call.activeAt) return;
  const receipt = await fetchReceipt(api, leg.id, () => phone.leg === leg);
  if (!receipt || phone.leg !== leg) return;
  at("receipt").replaceChildren(...receiptCard(receipt));
  till.receipt = receipt;
  redrawTill();
}

/** The currency in which money is wanted now. */
const wanted = () => till.short?.currency ?? meter.price?.currency ?? quote.prices?.audio.price.currency;

/** A tab for a checkout; without one this page would go there, which must not end a call. */
function tabForCheckout() {
  const tab = checkoutTab();
  if (tab || !phone.busy) return tab;
  const sentence = "Your browser keeps this page from opening the checkout beside your call: allow pop-ups for it.";
  throw Object.assign(new Error(), { sentence });
}

/** Begin to pay in at the checkout, in a tab of its own; the money comes when it was paid there. */
async function payIn(asked = {}) {
  await purse.payIn({ tab: tabForCheckout(), currency: wanted(), ...asked });
}

for (const id of ["top-up", "top-up-now"]) {
  at(id).addEventListener("click", () => attempt(() => purse.topUp({ tab: tabForCheckout, currency: wanted() }), at(id)));
}
at("pay-in").addEventListener("click", () => attempt(payIn, at("pay-in")));
at("wallet-open").addEventListener("click", () => sheet.open());
purse.addEventListener("paid", ({ detail: { status, paidMinor, currency } }) => {
  const came = status === "completed";
  if (came) till.short = null;
  at("wallet-said").textContent = came ? `${moneyText(paidMinor, currency)} came in.` : `The payment is ${status}.`;
  if (status === "failed" || status === "cancelled") notice("The payment has failed. Nothing was taken.");
  redrawTill();
});

/** A line of one of the lists was clicked: that person goes into the dial, and their chat is opened. */
function choose(other) {
  openChat(other);
  if (at("peer").disabled || at("peer").value === other.username) return;
  chatted = other.id;
  at("peer").value = other.username;
  anotherPeer();
}

/** Somebody is named: the last call's receipt makes room for the price of the next one. */
function anotherPeer() {
  if (phone.busy) return;
  Object.assign(till, { put: phone.leg, short: null });
  redrawTill();
}

at("peer").addEventListener("input", () => {
  chatted = null;
  openChat(null); // until it is clear who it is, nothing goes to whom it was before
  anotherPeer();
});
addEventListener("focus", () => phone.busy || quote.user || quote.again()); // they may have joined in the other tab
purse.addEventListener("change", () => {
  drawPurse(purse);
  if (!phone.busy && quote.user) quote.again(); // how long the money lasts has changed
  redrawTill();
});
for (const one of [quote, meter]) one.addEventListener("change", redrawTill);
quote.addEventListener("change", () => followChat());

// ---- the chat -------------------------------------------------------------------------------------------------------

/** Whom a message goes to: the one whose chat is open, else the other one in the call, else the one in the dial. */
async function chatPeer() {
  return chat.thread?.other ?? (phone.busy && phone.leg.other) ?? (await api.findUser(at("peer").value));
}

const composer = new Composer({
  send: ({ text, file, replyTo }) =>
    attempt(async () => {
      const other = await chatPeer();
      const attachment = file ? await api.upload(file) : undefined;
      chat.open(other);
      await chat.send(other, { text, attachment, replyTo });
      return true;
    }),
  edit: (message, text) =>
    attempt(async () => {
      await chat.edit(message, text);
      return true;
    }),
  typed: () => chat.thread && chat.typed(chat.thread.other),
  paused: () => chat.stopTyping(),
});

const chatView = new ChatView({
  chat,
  api,
  does: {
    choose,
    reply: (message) => composer.reply(message),
    edit: (message) => composer.edit(message),
    remove: (message, button) => attempt(() => chat.remove(message), button),
  },
});

let chatted = null; // who was in the call, or in the dial, when the chat last followed

/** The chat of whom the phone is about, unless another one was opened meanwhile. */
function followChat() {
  const { leg } = phone;
  const other = phone.busy && leg.id ? leg.other : quote.user;
  if (!other || other.id === chatted) return;
  chatted = other.id;
  openChat(other);
}

function openChat(other) {
  if (chat.thread?.other.id !== other?.id) composer.clear();
  chat.open(other);
}

at("chat-back").addEventListener("click", () => openChat(null));

chat.addEventListener("change", () => {
  chatView.draw();
  redraw();
});
chat.addEventListener("came", ({ detail: { sender } }) => {
  if (document.hidden) document.title = `${nameOf(sender)} wrote · Ringmeter demo`;
  if (!chat.thread && !at("peer").value.trim()) choose(sender);
});
signaling.addEventListener("told", ({ detail: { event, payload } }) => {
  if (event === "error") notice(payload.error?.message ?? "The server refused an event.");
});
document.addEventListener("visibilitychange", () => document.hidden || drawMe(api.me));

signaling.addEventListener("status", ({ detail }) => drawLink(detail));
signaling.addEventListener("sync", refreshHistory);

const back = new URLSearchParams(location.search).has("payment");
if (back) globalThis.history.replaceState(null, "", "/");
if (back && memory.get("checkout")) {
  memory.clear(); // the tab of a checkout, which is nobody's phone
  notice("You can close this tab: the one with your phone has heard of it.");
}
memory.set("checkout", null);
if (api.me) enter();
else drawMe(null);
