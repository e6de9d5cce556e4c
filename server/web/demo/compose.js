// The line in which a message is written, and what goes with it: a file, the message that it answers, or the one whose
// words it replaces.
import { textOf } from "./chatview.js";
import { at, show, write } from "./page.js";
import { nameOf } from "./util.js";

export class Composer {
  #does;
  #about = null; // {kind: "reply" | "edit", message}
  #file = null;

  /** `does` = {send({text, file, replyTo}), edit(message, text), typed(), paused()}; the first two say whether it is done. */
  constructor(does) {
    this.#does = does;
    at("chat-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    at("chat-text").addEventListener("input", () => (at("chat-text").value.trim() ? does.typed() : does.paused()));
    at("chat-text").addEventListener("keydown", (event) => event.key === "Escape" && this.clear());
    at("chat-file").addEventListener("change", () => this.#attach(at("chat-file").files[0]));
    at("chat-strip-close").addEventListener("click", () => this.clear());
  }

  reply(message) {
    this.#set({ kind: "reply", message }, this.#file);
  }

  edit(message) {
    at("chat-text").value = message.text;
    this.#set({ kind: "edit", message }, null);
  }

  /** Nothing goes with the next message; the words that were to be edited go, too. */
  clear() {
    if (this.#about?.kind === "edit") at("chat-text").value = "";
    this.#set(null, null);
  }

  #attach(file) {
    at("chat-file").value = "";
    if (file) this.#set(this.#about?.kind === "reply" ? this.#about : null, file);
  }

  #set(about, file) {
    this.#about = about;
    this.#file = file;
    show(at("chat-strip"), Boolean(about || file));
    const said = [];
    if (about?.kind === "edit") said.push(`Editing: ${textOf(about.message)}`);
    if (about?.kind === "reply") said.push(`Reply to ${nameOf(about.message.sender)}: ${textOf(about.message)}`);
    if (file) said.push(`With ${file.name}`);
    write(at("chat-strip-text"), said.join(" · "));
    at("chat-text").focus();
  }

  /** The line is free for the next words at once; what was refused comes back into it, unless there are others by now. */
  async #submit() {
    const text = at("chat-text").value.trim();
    const [about, file] = [this.#about, this.#file];
    const editing = about?.kind === "edit";
    if (!text && (editing || !file)) return;
    at("chat-text").value = "";
    this.#set(null, null);
    const done = editing
      ? await this.#does.edit(about.message, text)
      : await this.#does.send({ text: text || undefined, file, replyTo: about?.message.id });
    if (done || at("chat-text").value) return;
    at("chat-text").value = text;
    this.#set(about, file);
  }
}
