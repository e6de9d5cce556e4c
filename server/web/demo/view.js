// The phone on the page: elements in, state out. It decides how things look and what they are called, never what happens.
import { isFree, rateText } from "./money.js";
import { at, face, iconAt, play, show, toggle, write } from "./page.js";
import { grade } from "./stats.js";
import { clockText, nameOf } from "./util.js";

const ENDINGS = {
  completed: "Call ended",
  cancelled: "Call cancelled",
  declined: "Call declined",
  busy: "Busy in another call",
  no_answer: "No answer",
  unreachable: "Could not be reached",
  connect_failed: "The call could not connect",
  connection_lost: "The connection was lost",
  caller_lost: "The caller was cut off",
  insufficient_funds: "The money ran out",
  max_duration: "The longest call time was reached",
  policy: "The call was ended by the service",
  server_recovered: "The call was ended by a restart",
  answered_elsewhere: "Answered on another device",
};
const GRADES = ["Poor", "Weak", "Fair", "Good"];

const endingText = (reason) => ENDINGS[reason] ?? "Call ended";

/** What goes on, in words. */
function wordsFor(leg) {
  if (!leg) return "Ready when you are";
  if (leg.over) return leg.id || leg.reason ? `${endingText(leg.reason)}${spoken(leg)}` : "";
  if (leg.phase === "preparing") return leg.stream ? "Calling…" : "Opening your devices…";
  if (leg.phase === "incoming") return `${leg.type === "video" ? "Video" : "Audio"} call for you`;
  if (leg.phase === "joining") return "Answering…";
  if (leg.state === "ringing") return leg.theyRing ? "Ringing…" : "Calling…";
  if (leg.state === "reconnecting") return "Connection lost, trying again…";
  if (leg.state === "accepted") return "Connecting…";
  if (leg.upgrade === "asked") return "Asking for video…";
  if (leg.type === "audio") return "Audio call";
  return leg.peer?.receivesVideo ? "Waiting for their picture…" : "Their camera is off";
}

const spoken = (leg) => (leg.seconds >= 1 ? ` · ${clockText(leg.seconds)}` : "");

/** Draw the call, or that there is none. `alone`: there is nobody yet whom this person has called or written to. */
export function drawCall(phone, { alone }) {
  const { leg } = phone;
  const live = phone.busy;
  const joined = live && leg.phase !== "incoming";
  const remote = live ? leg.remote : null;
  const picture = live && Boolean(leg.peer?.receivesVideo) && at("remote-video").videoWidth > 0;
  const own = joined && Boolean(leg.stream?.getVideoTracks().length) && !leg.cameraOff;

  write(at("state"), phone.state);
  at("stage").dataset.look = !leg ? "idle" : leg.over ? "over" : picture ? "picture" : "face";
  at("stage").dataset.state = phone.state;
  face(at("face"), leg?.other);
  write(at("face-name"), leg ? nameOf(leg.other) : "No call");
  write(at("corner-name"), picture ? nameOf(leg.other) : "");
  write(at("words"), wordsFor(leg));
  at("face-ring").classList.toggle("waves", live && (leg.state === "ringing" || leg.phase === "preparing"));

  play(at("remote-video"), remote, (yes) => show(at("unlock"), yes && phone.busy));
  play(at("local-video"), own ? leg.stream : null, () => {});
  at("local-video").classList.toggle("on", own);
  if (!live) show(at("unlock"), false);

  drawControls(leg, joined);
  drawIncoming(leg, live && leg.phase === "incoming");
  drawQuality(leg, live);
  show(at("timer"), live && leg.seconds > 0);
  show(at("media-note"), joined && Boolean(leg.note));
  write(at("media-note"), joined ? leg.note : "");
  for (const id of ["call-video", "call-audio", "peer"]) at(id).disabled = live;
  show(at("second"), !live && alone);
  at("dial").classList.toggle("resting", joined);
}

function drawControls(leg, joined) {
  show(at("controls"), joined);
  if (!joined) return;
  const settled = ["accepted", "active", "reconnecting"].includes(leg.state);
  toggle("mute", leg.muted, ["Mute", "Unmute"]);
  toggle("camera", leg.cameraOff, ["Camera off", "Camera on"]);
  at("mute").disabled = !leg.stream?.getAudioTracks().length;
  show(at("camera"), leg.type === "video" && Boolean(leg.stream?.getVideoTracks().length));
  show(at("ask-video"), leg.type === "audio" && leg.state === "active" && leg.upgrade !== "offered");
  at("ask-video").disabled = leg.upgrade === "asked";
  write(at("hangup").lastElementChild, settled ? "Hang up" : "Cancel");
  const asking = leg.upgrade === "agreeing";
  show(at("upgrade"), asking || leg.upgrade === "offered");
  write(at("upgrade-yes"), asking ? "Ask for video" : "Turn on video");
  write(at("upgrade-text"), upgradeText(leg, asking));
}

/** The question before video, with what it costs where that is something else than now. */
function upgradeText(leg, asking) {
  const { other, upgradePrice: price, role } = leg;
  const what = asking ? "Go on with video?" : `${nameOf(other)} asks to go on with video.`;
  const now = leg.call?.price;
  if (!price || !now || price.ratePerMinuteMinor === now.ratePerMinuteMinor) return what;
  const who = role === "caller" ? "You pay" : `${nameOf(other)} pays`;
  return `${what} ${who} ${rateText(price)} then, instead of ${rateText(now)}.`;
}

function drawIncoming(leg, yes) {
  const card = at("incoming");
  const appears = yes && card.hidden;
  show(card, yes);
  if (!yes) return;
  face(at("incoming-face"), leg.other);
  write(at("incoming-name"), nameOf(leg.other));
  const kind = leg.type === "video" ? "calls you with video" : "calls you";
  write(at("incoming-kind"), leg.price ? `${kind} · ${payText(leg.price)}` : kind);
  at("accept-icon").setAttribute("href", iconAt(leg.type === "video" ? "video" : "phone"));
  // Never under somebody's fingers: a space typed into the chat must not answer a call.
  if (appears && !document.activeElement?.matches("input")) at("accept").focus({ preventScroll: true });
}

/** To the one who is called: what the caller pays. */
const payText = (price) => (isFree(price) ? "a free call" : `pays ${rateText(price)}`);

function drawQuality(leg, live) {
  const quality = live && leg.state === "active" ? leg.quality : null;
  show(at("bars"), Boolean(quality));
  if (!quality) return;
  const mark = grade(quality);
  at("bars").dataset.grade = String(mark);
  const delay = quality.rttMs === undefined ? "" : `, round trip ${Math.round(quality.rttMs)} ms`;
  const text = `${GRADES[mark]} connection${delay}, loss ${quality.inbound.lossPercent} %`;
  at("bars").setAttribute("aria-label", text);
  at("bars").title = text;
}

/** What changes by itself as time goes by: the talking time, the seconds left to answer. */
export function drawClocks(phone) {
  const { leg } = phone;
  if (!phone.busy) return;
  show(at("timer"), leg.seconds > 0);
  write(at("timer"), clockText(leg.seconds));
  if (leg.phase !== "incoming") return;
  const known = leg.ringsUntil !== null;
  const left = known ? Math.max(0, leg.ringsUntil - performance.now()) : 0;
  show(at("incoming-bar"), known);
  write(at("incoming-left"), known ? `${Math.ceil(left / 1000)} s` : "");
  if (known) at("incoming-bar").value = left / (leg.ringsMs || 45_000);
}
