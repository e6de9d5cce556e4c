// JSON Schema as a table: field, type, what it says. Objects inside open by a click, and stop at themselves.

const DEPTH_MAX = 6;

export function el(tag, className = "", text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

/** A sentence of the documents: what stands between backticks is code. */
export function said(tag, className, text) {
  const element = el(tag, className);
  text.split("`").forEach((part, index) => part && element.append(index % 2 ? el("code", "", part) : part));
  return element;
}

/** Follows `$ref` inside one document. */
export class Schemas {
  constructor(document_) {
    this.document = document_;
  }

  resolve(node, hops = 0) {
    if (!node || typeof node !== "object" || !node.$ref || hops > 16) return node ?? {};
    if (!node.$ref.startsWith("#/")) return {};
    const path = node.$ref.slice(2).split("/");
    const found = path.reduce((inner, part) => {
      const key = decodeURIComponent(part).replaceAll("~1", "/").replaceAll("~0", "~");
      return inner?.[key];
    }, this.document);
    const { $ref, ...beside } = node;
    return { "x-name": path.at(-1), ...this.resolve(found, hops + 1), ...beside };
  }

  /** One flat schema: references followed, `allOf` laid together. */
  flat(node) {
    const schema = this.resolve(node);
    if (!schema.allOf) return schema;
    const { allOf, ...own } = schema;
    return [...allOf, own].map((part) => this.flat(part)).reduce((sum, part) => ({
      ...sum,
      ...part,
      properties: { ...sum.properties, ...part.properties },
      required: [...(sum.required ?? []), ...(part.required ?? [])],
    }), {});
  }
}

const choices = (schema) => schema.oneOf ?? schema.anyOf ?? null;
const isNull = (schema) => schema.type === "null";

/** The type in a few words: `text (uuid)`, `list of PublicUser`, `"audio" | "video"`. */
function typeText(node, schemas, depth = 0) {
  const schema = schemas.flat(node);
  if (depth > DEPTH_MAX) return "…";
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(" | ");
  const options = choices(schema);
  if (options) return options.map((one) => typeText(one, schemas, depth + 1)).join(" | ");
  if (Array.isArray(schema.type)) {
    return schema.type.map((one) => (one === "null" ? "null" : typeText({ ...schema, type: one }, schemas, depth + 1))).join(" | ");
  }
  if (schema.type === "array") return `list of ${typeText(schema.items ?? {}, schemas, depth + 1)}`;
  if (schema.type === "object" || schema.properties) return schema["x-name"] ?? schema.title ?? "object";
  const words = { string: "text", integer: "integer", number: "number", boolean: "true | false", null: "null" };
  const word = words[schema.type] ?? "anything";
  return schema.format ? `${word} (${schema.format})` : word;
}

/** The limits that a field has, in words. */
function limitText(schema) {
  const limits = [];
  if (schema.minimum !== undefined) limits.push(`at least ${schema.minimum}`);
  if (schema.maximum !== undefined) limits.push(`at most ${schema.maximum}`);
  if (schema.minLength) limits.push(schema.minLength === 1 ? "not empty" : `at least ${schema.minLength} characters`);
  if (schema.maxLength !== undefined) limits.push(`at most ${schema.maxLength} characters`);
  if (schema.maxItems !== undefined) limits.push(`at most ${schema.maxItems} items`);
  if (schema.default !== undefined && schema.default !== null) limits.push(`default ${JSON.stringify(schema.default)}`);
  return limits.join(", ");
}

/** The object schemas inside a node: itself, the items of a list, each choice. */
function objectsIn(node, schemas, depth = 0) {
  const schema = schemas.flat(node);
  if (depth > DEPTH_MAX) return [];
  if (schema.properties && Object.keys(schema.properties).length) return [schema];
  if (schema.items) return objectsIn(schema.items, schemas, depth + 1);
  return (choices(schema) ?? []).filter((one) => !isNull(one)).flatMap((one) => objectsIn(one, schemas, depth + 1));
}

function fieldRow(name, node, required, schemas, path) {
  const schema = schemas.flat(node);
  const row = el("tr");
  const first = el("th");
  first.scope = "row";
  first.append(el("code", "", name));
  if (required) first.append(el("span", "must", "required"));
  const type = el("td", "type", typeText(node, schemas));
  const about = el("td");
  if (schema.description) about.append(said("p", "", schema.description));
  const limits = limitText(schema);
  if (limits) about.append(el("p", "soft", limits));
  for (const inner of objectsIn(node, schemas)) {
    const label = inner["x-name"] ?? inner.title ?? name;
    if (path.includes(inner["x-name"] ?? inner.properties) || path.length > DEPTH_MAX) continue;
    const box = el("details");
    box.append(el("summary", "", `Fields of ${label}`));
    // built when it is opened: a call holds two people, and so on down
    box.addEventListener("toggle", () => {
      if (box.children.length === 1) box.append(fields(inner, schemas, path));
    });
    about.append(box);
  }
  row.append(first, type, about);
  return row;
}

function fields(schema, schemas, path) {
  const table = el("table", "fields");
  const body = el("tbody");
  const must = new Set(schema.required ?? []);
  const here = [...path, schema["x-name"] ?? schema.properties];
  for (const [name, node] of Object.entries(schema.properties)) {
    body.append(fieldRow(name, node, must.has(name), schemas, here));
  }
  table.append(body);
  return table;
}

export function schemaTable(node, schemas) {
  if (!node) return el("p", "soft", "None.");
  const objects = objectsIn(node, schemas);
  const schema = schemas.flat(node);
  if (!objects.length) return el("p", "soft", schema.description ?? (schema.type === "object" ? "An object without fields of its own." : typeText(node, schemas)));
  const box = el("div", "schema");
  const several = objects.length > 1 || schema.type === "array";
  for (const inner of objects) {
    if (several) box.append(el("p", "soft", schema.type === "array" ? typeText(node, schemas) : (inner["x-name"] ?? inner.title ?? "either")));
    box.append(fields(inner, schemas, []));
  }
  return box;
}
