//  breadboard.js - makes the page live
//
//  The page is complete without this script: its forms post, its buttons lead to pages. The script
//  opens a WebSocket, sends what the forms say over it, and puts the HTML that comes back in place.
//
//  dom.js      the few things that every module does to the document
//  line.js     the WebSocket: requests and replies, silence, reconnecting
//  outbox.js   what was written, kept until the board has stored it
//  pending.js  the same, as it is shown; deleting and its undo
//  list.js     the list: merging, the page in the address, nothing moves;  paginator.js  other pages
//  edit.js     the edit form
//  fields.js   checking and counting;  times.js  times;  say.js  notices and announcements

import { byId, clone, enhance, focusOn, keep, kept, parse } from "./dom.js";
import {
  askForEdit, cancelEdit, edit, editOver, isTyped, keepEdit, postAsNew, restoreEdit, save,
} from "./edit.js";
import { count, fillIn, isInOrder, valuesOf } from "./fields.js";
import { Line } from "./line.js";
import { announcePlace, nameInAddress, own, pageInAddress, showList, showNamed, shown } from "./list.js";
import { Outbox } from "./outbox.js";
import { isNumberTyped, restoreNumber, showNumber, takeNumber } from "./paginator.js";
import { addMessage, deleteMessage, discard, pendOver, showPending, takeUp } from "./pending.js";
import { dismissNotice, forgetUnseen, notify, showNotice, undo } from "./say.js";
import { showTimes } from "./times.js";

const TIMES_MS = 30000;
const HOLD_MS = 200;
const DRAFT = "breadboard-draft"; // What was typed and not sent, in this tab, survives a reload

const messageForm = document.querySelector(".message-form form");
const { host, scheme, socketPath } = document.body.dataset;

//  ---------------------------------------------------------------- Line

const line = new Line(`${scheme === "https" ? "wss" : "ws"}://${host}${socketPath}`, {
  place: () => (wanted ? `page=${wanted}` : `page=${shown.page}&etag=${shown.etag}`),
  receive,
  changed,
});
const outbox = new Outbox(line, { changed: showPending, answered });

function receive({ selector, html, ...place }) {
  if (selector === "#messages__list") hold({ html, ...place });
  else if (selector === "#notices") showNotice(parse(html));
  else if (selector) document.querySelector(selector)?.replaceChildren(parse(html));
  if (selector === "#presence") heardOfSaving(Boolean(document.querySelector(".presence__away")));
}

const STATES = {
  connecting: "", // Most often over at once
  open: "Live",
  away: "Saving is off for the moment", // The line is open, but the board does not reach its database
  lost: "Connection lost, reconnecting…",
  off: "Not live",
};

let away = Boolean(byId("away")); // As the page was served, then as presence tells

function heardOfSaving(off) {
  if (off === away) return;
  away = off;
  if (!away) byId("away")?.remove();
  showState();
}

function showState() {
  const state = line.state === "open" && away ? "away" : line.state;
  const element = byId("connection");
  element.dataset.state = state;
  element.textContent = STATES[state];
}

function changed(state) {
  release();
  showState();
  showPending();
  if (state !== "open") return;
  outbox.send();
  outbox.adopt();
  restoreEdit();
}

//  ---------------------------------------------------------------- Pages that come

let held = null; // A list that waits for the reply to what was written
let holdTimer = 0;

//  The list that shows a write comes just before its reply. The message takes the place of the one that
//  was pending in one step, so that none is seen twice.
function hold(frame) {
  held = frame;
  if (!outbox.waits) release();
  else holdTimer ||= setTimeout(release, HOLD_MS);
}

function release() {
  clearTimeout(holdTimer);
  holdTimer = 0;
  if (held) arrive(held);
}

function answered({ action }, { status, id }) {
  if (action === "add message" && status === "ok") own.add(`message--${id}`);
  release();
}

let turns = 0;
let wanted = null; // The page that was asked for and has not come
let byReader = false; // The next turn is the reader's, who can go back
let waiting = null; // The notice that it has to wait, since the line was lost: the next one begins with it

function arrive(frame) {
  held = null;
  if (waiting) wanted = null;
  waiting?.remove();
  waiting = null;
  const turned = showList(frame, byReader);
  if (turned) byReader = false;
  if (!wanted) showNumber(shown.page, turned);
}

//  Of several turns in a row only the last one is shown.
async function turnTo(page, asReader) {
  const turn = ++turns;
  wanted = page;
  byReader = asReader;
  const reply = await line.request("list messages", { page }).catch(() => null);
  if (turn !== turns) return;
  if (!reply) {
    waiting = notify(`The connection is lost. Page ${page} is shown when it is back.`);
    return;
  }
  wanted = null;
  if (reply.status === "ok") arrive(reply);
  else {
    showNotice(parse(reply.html));
    showNumber(shown.page, true);
  }
  if (!asReader) showNamed();
}

//  Goes to the page that was typed; what is no number is put right. A keyboard on the screen goes away.
function jump(field) {
  const page = takeNumber(field, shown.pages);
  if (page) turnTo(page, true);
  else announcePlace();
  if (matchMedia("(pointer: coarse)").matches) focusOn(null);
}

//  ---------------------------------------------------------------- Deleting asks first

let confirmation = null; // The question, in its form

//  The focus goes to Keep, which also lies where Delete was: neither a held key nor a double click deletes.
function openConfirmation(form) {
  closeConfirmation();
  form.append(clone("delete-confirmation"));
  confirmation = form.querySelector(".message__confirmation");
  showControls(form, false);
  confirmation.querySelector(".messages__delete-no").focus();
}

function closeConfirmation() {
  if (!confirmation) return;
  const form = confirmation.parentElement;
  const focused = confirmation.contains(document.activeElement);
  showControls(form, true);
  if (focused) form.querySelector(".messages__delete").focus();
  confirmation.remove();
  confirmation = null;
}

function showControls(form, visible) {
  form.querySelector(".messages__delete").hidden = !visible;
  form.previousElementSibling.hidden = !visible;
}

//  ---------------------------------------------------------------- What the reader does

//  While no socket was ever open, what is in order goes to the server the browser's own way.
function submitted(event) {
  const { target: form, submitter } = event;
  const asks = submitter?.matches(".messages__delete");
  const inOrder = asks || isInOrder(form);
  const live = line.state === "open" || line.state === "lost";
  if (live || !inOrder) event.preventDefault();
  if (asks && live) openConfirmation(form);
  else if (inOrder && live) act(form, submitter);
  else if (inOrder && form === messageForm) keep(DRAFT, null); // It is on its way
}

function act(form, submitter) {
  if (form === messageForm) post();
  else if (form.matches(".update-form")) save();
  else if (form.matches(".paginator__place")) jump(form.elements.page);
  else if (form.matches("#paginator *")) turnTo(Number(submitter.value), true);
  else if (submitter.matches(".messages__update")) askForEdit(submitter.dataset.id);
  else {
    const { id } = form.querySelector(".messages__delete").dataset;
    closeConfirmation();
    deleteMessage(id);
  }
}

//  The form is free again at once. Who posts is shown page 1, and can go back.
function post() {
  byReader = true;
  addMessage(valuesOf(messageForm));
  messageForm.elements.message.value = "";
  messageForm.querySelector(".form-error")?.remove();
  count(messageForm.elements.message);
  keepDraft();
}

function pressed(event) {
  if (event.isComposing) return;
  const { target, key, repeat } = event;
  const command = event.ctrlKey || event.metaKey;
  const writes = target.matches("input, textarea");
  if (command && key === "Enter" && target.matches(".field__input")) {
    event.preventDefault();
    if (!repeat) target.form.requestSubmit();
  }
  if (command && key === "z" && !writes && undo()) event.preventDefault();
  if (key === "Escape") {
    if (confirmation?.contains(target)) closeConfirmation();
    else if (edit?.form.contains(target)) cancelEdit();
    else if (isNumberTyped(target)) restoreNumber(target);
    else dismissNotice();
  }
}

let clickedLast = "";

//  Whether a click is the second of a double click that was meant for something else, which has gone from
//  there, or for the form that has been sent by the first.
function isEcho({ target, detail }) {
  const before = clickedLast;
  clickedLast = `${target.id} ${target.className} ${target.dataset.id}`;
  const sent = target.form === messageForm && !messageForm.elements.message.value;
  return detail > 1 && (clickedLast !== before || sent);
}

function clicked(event) {
  const { target } = event;
  const card = target.closest(".pending");
  if (isEcho(event)) return event.preventDefault();
  if (target.matches(".notice__dismiss")) dismissNotice();
  if (target.matches(".messages__delete-no")) closeConfirmation();
  if (target.matches(".pending__edit")) takeUp(card, messageForm);
  if (target.matches(".pending__discard")) discard(card);
  if (target.matches(".undo__button")) undo(target.closest(".undo"));
  if (target.matches(".update-form__as-new")) postAsNew();
  if (target.matches(".paginator__number") && !isNumberTyped(target)) target.select();
  if (target.matches(".update-form__cancel") && edit) {
    event.preventDefault();
    cancelEdit();
  }
  if (target.matches(".message__permalink") && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
    event.preventDefault();
    history.replaceState(null, "", `#${target.closest(".message").id}`);
    location.replace(location.hash); // So that it is the address's target
    showNamed();
  }
}

function typed({ target }) {
  if (target.dataset.limit) count(target);
  if (target.closest("form") === edit?.form) keepEdit();
  else keepDraft();
}

//  ---------------------------------------------------------------- Coming and going

function keepDraft() {
  keep(DRAFT, valuesOf(messageForm));
}

function restoreDraft() {
  const draft = kept(DRAFT);
  if (draft && !messageForm.elements.message.value) fillIn(messageForm, draft);
}

function looked() {
  if (document.hidden) return;
  forgetUnseen();
  showTimes(document);
  line.connectNow();
}

function wentBack() {
  if (line.state === "off") location.reload();
  else if (pageInAddress() !== (wanted ?? shown.page)) turnTo(pageInAddress(), false);
}

//  What would be lost with the page, the browser asks about.
function leaving(event) {
  const unsent = outbox.entries.length > 0 && !outbox.kept;
  if (isTyped() || unsent) event.preventDefault();
}

function start() {
  editOver(line);
  pendOver(line, outbox);
  enhance(document);
  restoreDraft();
  nameInAddress(false);
  const hint = byId("message-form__hint");
  hint.hidden = false;
  if (/Mac|iP/.test(navigator.platform)) hint.querySelector("kbd").textContent = "⌘";
  document.addEventListener("submit", submitted);
  document.addEventListener("keydown", pressed);
  document.addEventListener("click", clicked);
  document.addEventListener("input", typed);
  document.addEventListener("visibilitychange", looked);
  addEventListener("popstate", wentBack);
  addEventListener("pageshow", (event) => event.persisted && looked());
  addEventListener("beforeunload", leaving);
  setInterval(showTimes, TIMES_MS, document);
  showNamed();
  outbox.open();
  line.connect();
}

start();
