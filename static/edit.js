//  edit.js - the edit form of a message, in its place; one at a time
//
//  While it is open it is the reader's: what others do to the message is said in a note and changes
//  neither text nor caret. What is typed survives a reload, and comes back when it was cancelled.

import { byId, clone, enhance, focusOn, keep, kept, parse, part } from "./dom.js";
import { fillIn, sameValues, valuesOf } from "./fields.js";
import { addMessage, outbox, watch } from "./pending.js";
import { announce, notify, offerUndo, showNotice } from "./say.js";

const DRAFT = "breadboard-edit"; // {id, version, author, text} of what was typed and not saved

//  {id, article, form, inside: the article's own content, came: the values that came,
//  orphan: the message is not on this page any more, entry: of the outbox, while it is saved}
export let edit = null;

let line;
export const editOver = (openLine) => (line = openLine);

const LOST = { message: "The connection is lost." };

export const isTyped = () => edit !== null && !sameValues(valuesOf(edit.form), edit.came);

//  ---------------------------------------------------------------- Opening and closing

export async function askForEdit(id) {
  if (edit?.id === id) return edit.form.elements.message.focus();
  if (isTyped()) {
    noteEdit("Save or cancel this change first.");
    edit.form.elements.message.focus();
    return;
  }
  const reply = await askForForm(id);
  if (reply?.status === "ok") openEdit(id, reply);
  else if (reply) showNotice(parse(reply.html));
  else notify("The connection is lost. A message can be edited when it is back.");
}

//  null where the line is lost. Who has gone on meanwhile keeps the focus where it is.
async function askForForm(id) {
  const before = document.activeElement;
  const reply = await line.request("open edit page", { id }).catch(() => null);
  const now = document.activeElement;
  return reply && { ...reply, waited: now === before || now === document.body };
}

function openEdit(id, { html, waited }) {
  if (isTyped()) return;
  if (edit) closeEdit();
  const article = byId(`message--${id}`) ?? strayArticle();
  const inside = document.createDocumentFragment();
  inside.append(...article.childNodes);
  article.append(parse(html));
  const form = article.querySelector("form");
  edit = { id, article, form, inside, came: valuesOf(form), orphan: !article.id };
  enhance(article);
  const { message } = form.elements;
  message.setSelectionRange(message.value.length, message.value.length);
  if (waited) message.focus();
}

//  Where the message is not on the page that is shown
function strayArticle() {
  const article = document.createElement("article");
  article.className = "message";
  byId("messages__list").prepend(article);
  return article;
}

//  Opens the form with what was typed in it before. Returns "ok", or why not: an error, or undefined
//  where the line is lost.
export async function reopenEdit({ id, version, author, text }) {
  const reply = await askForForm(id);
  if (reply?.status !== "ok") return reply?.error;
  if (isTyped()) return { message: "Another change is not saved yet." };
  openEdit(id, reply);
  const { elements } = edit.form;
  if (version && Number(elements.version.value) !== version) {
    noteEdit("Somebody has changed this message meanwhile.");
    elements.version.value = version;
  }
  fillIn(edit.form, { author, text });
  keepEdit();
  return "ok";
}

export function cancelEdit() {
  const typed = isTyped() && !edit.entry ? typedEdit() : null;
  closeEdit();
  if (typed) offerUndo("Your change is not saved.", () => takeBack(typed));
}

async function takeBack(typed) {
  const result = await reopenEdit(typed);
  if (result !== "ok") outbox.add("update message", typed, result ?? LOST);
}

export function closeEdit() {
  const { article, form, inside, orphan } = edit;
  const focused = form.contains(document.activeElement);
  edit = null;
  keepEdit();
  article.replaceChildren(inside);
  enhance(article);
  if (orphan) article.remove();
  if (focused) focusOn(article.isConnected ? article.querySelector(".messages__update") : null);
}

const typedEdit = () => ({
  id: edit.id,
  version: Number(edit.form.elements.version.value),
  ...valuesOf(edit.form),
});

export const keepEdit = () => keep(DRAFT, isTyped() && !edit.entry ? typedEdit() : null);

//  After a reload; where the message is gone, what was typed is shown as what was not stored.
export async function restoreEdit() {
  const draft = kept(DRAFT);
  if (!draft || edit) return;
  const result = await reopenEdit(draft);
  if (result === "ok" || !result) return;
  keep(DRAFT, null);
  outbox.add("update message", draft, result);
}

//  ---------------------------------------------------------------- What others do meanwhile

//  The message as it is now, for when the form closes
export function renewEdit(fresh) {
  const { article, orphan, inside } = edit;
  const changed = ["author", "text"].some(
    (name) => part(fresh, name).textContent !== part(inside, name)?.textContent,
  );
  edit.inside = document.createDocumentFragment();
  edit.inside.append(...fresh.childNodes);
  if (orphan) article.id = `message--${edit.id}`;
  edit.orphan = false;
  if (changed && !edit.entry && inside.firstChild) noteEdit("Somebody has changed this message meanwhile.");
  else if (orphan) noteEdit("");
}

//  It has left the page. Whether it is anywhere else, the board knows.
export async function orphanEdit() {
  if (edit.orphan) return;
  edit.orphan = true;
  edit.article.removeAttribute("id");
  noteEdit("This message is on another page now. What you typed is kept.");
  const { id } = edit;
  const reply = await askForForm(id);
  if (reply?.error?.code === "not-found" && edit?.id === id && edit.orphan) noteDeleted();
}

function noteDeleted() {
  noteEdit("This message was deleted. What you typed is kept.");
  edit.form.querySelector(".update-form__note").append(clone("post-as-new"));
}

export function postAsNew() {
  addMessage(valuesOf(edit.form));
  closeEdit();
}

function noteEdit(text) {
  edit.form.querySelector(".update-form__note")?.remove();
  if (!text) return;
  const note = document.createElement("div");
  note.className = "update-form__note";
  note.setAttribute("role", "status");
  note.textContent = text;
  edit.form.prepend(note);
}

//  ---------------------------------------------------------------- Saving

export function save() {
  const { id, form } = edit;
  if (edit.entry) return;
  const version = Number(form.elements.version.value);
  const values = valuesOf(form);
  const saved = edit;
  form.setAttribute("aria-busy", "true");
  edit.entry = outbox.add("update message", { id, ...values, version });
  watch(edit.entry, {
    done: () => edit === saved && finishSaving(values, version),
    refused: (error) => edit === saved && refuseSaving(error),
  });
  keepEdit();
  if (line.state !== "open") noteEdit("Your change is kept, and saved when the connection is back.");
}

//  Who typed on meanwhile goes on.
function finishSaving(values, version) {
  const { form } = edit;
  edit.entry = null;
  form.removeAttribute("aria-busy");
  announce("Your change is saved.");
  if (sameValues(valuesOf(form), values)) {
    edit.came = values;
    closeEdit();
  } else {
    edit.came = values;
    form.elements.version.value = version + 1;
    keepEdit();
    noteEdit("Saved, but for what you typed since.");
  }
}

function refuseSaving({ code, message, html }) {
  const { form, entry } = edit;
  edit.entry = null;
  form.removeAttribute("aria-busy");
  outbox.remove(entry);
  if (code === "not-found") noteDeleted();
  else noteEdit(message);
  if (code === "conflict") showConflict(parse(html).querySelector("form"));
  keepEdit();
  if (document.activeElement === document.body) form.elements.message.focus();
}

//  What is stored, beside what was typed, and the version by which that may be overwritten
function showConflict(came) {
  const { form } = edit;
  form.querySelector(".update-form__stored")?.remove();
  form.elements.version.before(came.querySelector(".update-form__stored"));
  form.elements.version.value = came.elements.version.value;
  edit.came = { author: null, text: null }; // Whatever is in the form is typed
}
