//  pending.js - what was written and is not known to be stored yet, as the reader sees it: cards above
//             the list, and a message that fades while it is deleted

import { byId, clone, focusOn, part, uuid } from "./dom.js";
import { edit, reopenEdit } from "./edit.js";
import { fillIn } from "./fields.js";
import { own, steady } from "./list.js";
import { announce, notify, offerUndo } from "./say.js";

const WHAT = {
  "update message": "Your change of a message",
  "delete message": "A message that you delete",
  "restore message": "A message that you bring back",
};

const place = byId("pending");
const cards = new Map(); // By the entry's id
const watched = new Map(); // {entry, done, refused} by the entry's id

export let outbox;
let line;

export function pendOver(openLine, newOutbox) {
  line = openLine;
  outbox = newOutbox;
}

//  Calls done () once the entry is stored, or refused (error).
export function watch(entry, handlers) {
  watched.set(entry.id, { entry, ...handlers });
}

//  The outbox is another one, or the line is.
export function showPending() {
  for (const [id, { entry, done, refused }] of watched) {
    const gone = !outbox.entries.includes(entry);
    if (!gone && !entry.error) continue;
    watched.delete(id);
    if (gone) done();
    else refused(entry.error);
  }
  const entries = outbox.entries.filter(hasCard);
  if (entries.length === 0 && cards.size === 0) return;
  steady(() => {
    for (const [id, card] of cards) if (!entries.some((entry) => entry.id === id)) drop(id, card);
    entries.forEach(showCard);
  });
}

//  What shows its state elsewhere has none: the edit form that is open, the message that fades.
function hasCard(entry) {
  if (entry.action === "add message" || entry.error) return entry !== edit?.entry;
  return !watched.has(entry.id) || (line.state !== "open" && entry !== edit?.entry);
}

function drop(id, card) {
  const focused = card.contains(document.activeElement);
  card.remove();
  cards.delete(id);
  if (focused) focusOn(byId("message-form__text"));
}

function showCard(entry) {
  let card = cards.get(entry.id);
  if (!card) {
    card = clone("pending-message").firstElementChild;
    card.dataset.entry = entry.id;
    cards.set(entry.id, card);
    place.prepend(card);
    card.querySelector(".pending__author").textContent = WHAT[entry.action] ?? entry.data.author;
    card.querySelector(".pending__text").textContent = entry.data.text ?? "";
  }
  const state = stateOf(entry);
  const element = card.querySelector(".pending__state");
  card.classList.toggle("pending--refused", Boolean(entry.error));
  card.querySelector(".pending__controls").hidden = !entry.error;
  card.querySelector(".pending__edit").hidden = entry.data.text === undefined;
  if (element.textContent !== state) element.textContent = state;
}

function stateOf({ error, waits }) {
  if (error) return `Not stored: ${error.message}`;
  if (line.state !== "open") return "Kept, and sent when the connection is back.";
  return waits ? `${waits} It is sent again.` : "Sending…";
}

//  ---------------------------------------------------------------- Adding

export function addMessage(values) {
  const entry = outbox.add("add message", { ...values, key: uuid() });
  watch(entry, {
    done: () => announce("Your message is posted."),
    refused: ({ message }) => announce(`Your message was not stored: ${message}`),
  });
}

const entryOf = (card) => outbox.entries.find(({ id }) => id === card.dataset.entry);

//  Takes up again what was refused: a change where it was made, all else in the form for a new message,
//  unless there is something in it.
export async function takeUp(card, form) {
  const entry = entryOf(card);
  const { data } = entry;
  if (entry.action === "update message" && (await reopenEdit(data)) === "ok") {
    outbox.remove(entry);
    return;
  }
  if (form.elements.message.value.trim()) {
    notify("Post first what is in the form for a new message, or clear it.");
  } else {
    fillIn(form, data);
    form.dispatchEvent(new Event("input", { bubbles: true }));
    outbox.remove(entry);
  }
  form.elements.message.focus();
}

export function discard(card) {
  const entry = entryOf(card);
  outbox.remove(entry);
  if (entry.data.text) offerUndo("What you wrote is discarded.", () => outbox.restore(entry));
}

//  ---------------------------------------------------------------- Deleting

export function deleteMessage(id) {
  const data = { id, key: uuid() };
  const article = byId(`message--${id}`);
  const author = part(article, "author").textContent;
  article.setAttribute("aria-busy", "true");
  const entry = outbox.add("delete message", data);
  watch(entry, {
    done: () => offerUndo(`The message by ${author} is deleted.`, () => bringBack(data)),
    refused({ code }) {
      byId(`message--${id}`)?.removeAttribute("aria-busy");
      if (code !== "not-found") return;
      outbox.remove(entry);
      announce("The message was deleted already.");
    },
  });
}

function bringBack(data) {
  own.add(`message--${data.id}`);
  const entry = outbox.add("restore message", data);
  watch(entry, {
    done: () => announce("The message is back."),
    refused: ({ message }) => announce(`The message is not back: ${message}`),
  });
}
