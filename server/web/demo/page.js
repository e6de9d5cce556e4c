// What both pages draw with: elements by id, text that is only written when it differs, faces, icons, the head.
import { initials, nameOf, tintOf } from "./util.js";

const ICONS = "/static/demo/icons.svg";
const SVG = "http://www.w3.org/2000/svg";

export const at = (id) => document.getElementById(id);

export const show = (element, yes) => {
  if (element.hidden === yes) element.hidden = !yes;
};

export const write = (element, text) => {
  if (element.textContent !== text) element.textContent = text; // an unchanged live region stays silent
};

/** A new element. What people wrote goes in as `text`, never as HTML. */
export function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

export const iconAt = (name) => `${ICONS}#i-${name}`;

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", iconAt(name));
  svg.append(use);
  return svg;
}

export function face(element, user) {
  element.textContent = user ? initials(user) : "";
  element.dataset.tint = user ? tintOf(user) : "none";
}

/** A button that is on or off, and says what the next click does. */
export function toggle(id, on, [offText, onText]) {
  const button = at(id);
  button.setAttribute("aria-pressed", String(on));
  write(button.lastElementChild, on ? onText : offText);
}

/** Show a stream, and say whether the browser wants a click before it plays sound. */
export function play(video, stream, blocked) {
  if (video.srcObject !== stream) video.srcObject = stream;
  if (!stream || !video.paused) return;
  video.play().then(() => blocked(false)).catch((error) => blocked(error.name === "NotAllowedError"));
}

/** Who is signed in, in the head; without anybody the page shows how to. `title` is the page's. */
export function drawMe(me, title = "Ringmeter demo") {
  show(at("welcome"), !me);
  show(at("room"), Boolean(me));
  show(at("me"), Boolean(me));
  document.title = me ? `${nameOf(me)} · ${title}` : title;
  if (!me) return;
  face(at("me-avatar"), me);
  write(at("me-name"), nameOf(me));
}

export function drawLink(status) {
  at("link").dataset.status = status;
  write(at("link"), { online: "online", connecting: "connecting…", offline: "offline" }[status]);
}

export function notice(text) {
  write(at("notice-text"), text ?? "");
  show(at("notice"), Boolean(text));
}
