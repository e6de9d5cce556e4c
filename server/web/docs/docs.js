// The /docs page: Swagger UI for the routes, and the events of /asyncapi.json as a page to read.
import { Schemas, el, said, schemaTable } from "./schema.js";

const at = (id) => document.getElementById(id);
const TABS = ["rest", "events"];

// ---- tabs -----------------------------------------------------------------------------------------------------------

function choose(name) {
  for (const tab of TABS) {
    const chosen = tab === name;
    at(tab).hidden = !chosen;
    at(`tab-${tab}`).setAttribute("aria-selected", String(chosen));
    at(`tab-${tab}`).tabIndex = chosen ? 0 : -1;
  }
}

/** `#events` or `#event-<direction>-<name>` opens the events; anything else the routes. */
function followHash() {
  const hash = decodeURIComponent(location.hash.slice(1));
  choose(hash.startsWith("event") ? "events" : "rest");
  if (hash.startsWith("event-")) at(hash)?.scrollIntoView();
}

for (const tab of TABS) {
  at(`tab-${tab}`).addEventListener("click", () => {
    history.replaceState(null, "", `#${tab}`);
    choose(tab);
  });
  at(`tab-${tab}`).addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const next = TABS[(TABS.indexOf(tab) + 1) % TABS.length];
    at(`tab-${next}`).click();
    at(`tab-${next}`).focus();
  });
}
window.addEventListener("hashchange", followHash);

// ---- routes ---------------------------------------------------------------------------------------------------------

function drawRoutes() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const paint = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
  dark.addEventListener("change", paint);
  paint();
  window.SwaggerUIBundle({
    url: "/openapi.json",
    domNode: at("swagger"),
    presets: [window.SwaggerUIBundle.presets.apis],
    layout: "BaseLayout",
    deepLinking: false,
    docExpansion: "list",
    defaultModelsExpandDepth: 0,
    filter: true,
    persistAuthorization: false,
    tryItOutEnabled: true,
  });
}

// ---- events ---------------------------------------------------------------------------------------------------------

/** AsyncAPI speaks from the server's side: what it receives is what a client sends. */
const SIDES = [
  { action: "receive", id: "send", title: "You send", lead: "Every one gets exactly one ack, after the change is durable." },
  { action: "send", id: "hear", title: "You hear", lead: "What the server tells your device." },
];

function paragraphs(text) {
  return (text ?? "").split(/\n\s*\n/).filter(Boolean).map((part) => said("p", "", part.replace(/\s*\n\s*/g, " ")));
}

/** The events of one direction: `{name, summary, description, messages, replies, tags}`, in the document's order. */
function eventsOf(document_, schemas, action) {
  const found = [];
  for (const [key, raw] of Object.entries(document_.operations ?? {})) {
    const operation = schemas.resolve(raw);
    if (operation.action !== action) continue;
    const channel = schemas.resolve(operation.channel ?? {});
    const all = operation.messages ?? Object.values(channel.messages ?? {});
    const messages = all.map((one) => schemas.resolve(one));
    const reply = schemas.resolve(operation.reply ?? {});
    const replyChannel = schemas.resolve(reply.channel ?? {});
    const replies = (reply.messages ?? Object.values(replyChannel.messages ?? {})).map((one) => schemas.resolve(one));
    found.push({ key, operation, channel, messages, replies, name: nameOf(key, operation, channel, messages) });
  }
  return found;
}

/** Several events may share one channel (the namespace), or each may have its own. */
function nameOf(key, operation, channel, messages) {
  if (messages.length === 1 && messages[0].name) return messages[0].name;
  if (channel.address && channel.address !== "/") return channel.address;
  return operation.title ?? messages[0]?.name ?? key;
}

function payloadOf(message) {
  const payload = message.payload ?? null;
  return payload?.schemaFormat ? payload.schema : payload;
}

function exampleBlock(message) {
  const payload = message.examples?.[0]?.payload;
  if (payload === undefined) return null;
  const box = el("details", "example");
  box.append(el("summary", "", "Example"), el("pre", "", JSON.stringify(payload, null, 2)));
  return box;
}

/** Extension fields that list refusals or other words: shown as they are. */
function extras(operation) {
  const lines = [];
  for (const [key, value] of Object.entries(operation)) {
    if (!key.startsWith("x-") || !Array.isArray(value) || !value.length) continue;
    const line = el("p", "extra", `${key.slice(2).replaceAll("-", " ")}: `);
    value.forEach((one) => line.append(el("code", "", typeof one === "string" ? one : (one.code ?? JSON.stringify(one))), " "));
    lines.push(line);
  }
  return lines;
}

function eventCard(event, side, schemas) {
  const { operation, messages, replies, name } = event;
  const id = `event-${side.id}-${name}`;
  const card = el("article", "event");
  card.id = id;
  const head = el("h3");
  const link = el("a", "", name);
  link.href = `#${encodeURIComponent(id)}`;
  head.append(link);
  card.append(head);
  // A summary is most often the first sentence of the description: each text once, and none that another begins with.
  const texts = [operation, messages[0] ?? {}].flatMap((owner) => [owner.summary, owner.description]).filter(Boolean);
  const news = (text, index) => !texts.some((other, at) => at !== index && other.startsWith(text) && (other !== text || at < index));
  card.append(...texts.filter(news).flatMap(paragraphs));
  for (const message of messages) {
    card.append(el("h4", "", messages.length > 1 ? `Payload: ${message.title ?? message.name}` : "Payload"));
    card.append(schemaTable(payloadOf(message), schemas));
    const example = exampleBlock(message);
    if (example) card.append(example);
  }
  for (const reply of replies) {
    card.append(el("h4", "", replies.length > 1 ? `Ack: ${reply.title ?? reply.name ?? ""}` : "Ack"));
    card.append(schemaTable(payloadOf(reply), schemas));
    const example = exampleBlock(reply);
    if (example) card.append(example);
  }
  card.append(...extras(operation));
  return card;
}

async function drawEvents() {
  const response = await fetch("/asyncapi.json", { headers: { Accept: "application/json" } });
  if (!response.ok) throw new Error(`the server answered ${response.status}`);
  const document_ = await response.json();
  const schemas = new Schemas(document_);
  const reference = el("div");
  const index = el("div");
  reference.append(el("h2", "", `${document_.info?.title ?? "Events"} ${document_.info?.version ?? ""}`));
  reference.append(...paragraphs(document_.info?.description));
  for (const side of SIDES) {
    const events = eventsOf(document_, schemas, side.action);
    if (!events.length) continue;
    reference.append(el("h2", "side", side.title), el("p", "soft", side.lead));
    const list = el("ul");
    for (const event of events) {
      reference.append(eventCard(event, side, schemas));
      const link = el("a", "", event.name);
      link.href = `#${encodeURIComponent(`event-${side.id}-${event.name}`)}`;
      const item = el("li");
      item.append(link);
      list.append(item);
    }
    index.append(el("h2", "", side.title), list);
  }
  at("reference").replaceChildren(...reference.childNodes);
  at("index").replaceChildren(...index.childNodes);
}

at("filter").addEventListener("input", () => {
  const wanted = at("filter").value.trim().toLowerCase();
  const hides = (element, text) => {
    element.hidden = Boolean(wanted) && !text.toLowerCase().includes(wanted);
  };
  for (const item of at("index").querySelectorAll("li")) hides(item, item.textContent);
  for (const card of at("reference").querySelectorAll(".event")) hides(card, card.querySelector("h3").textContent);
});

followHash();
drawRoutes();
drawEvents()
  .then(followHash)
  .catch((error) => at("reference").replaceChildren(el("p", "soft", `The event reference cannot be read: ${error.message}.`)));
