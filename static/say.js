//  say.js - what the page tells people: notices, announcements, offers, the number in the title

import { byId, clone, focusOn } from "./dom.js";

const FLOOD_MS = 5000; // Between two announcements of what others do
const OFFER_MS = 10000;
const OFFER_LONGEST_MS = 18000; // The board grants 20 s to undo a delete

const notices = byId("notices");
let focusBefore = null; // Where the focus was when a notice came

export function showNotice(content) {
  if (!notices.contains(document.activeElement)) focusBefore = document.activeElement;
  notices.replaceChildren(content);
}

//  Returns the notice.
export function notify(text) {
  const content = clone("notice");
  content.querySelector(".notice__message").textContent = text;
  showNotice(content);
  return notices.firstElementChild;
}

export function dismissNotice() {
  const focused = notices.contains(document.activeElement);
  notices.replaceChildren();
  if (focused) focusOn(focusBefore?.isConnected ? focusBefore : null);
}

//  ---------------------------------------------------------------- To who cannot see it happen

const announcer = byId("announcer");
let arrived = []; // Whose messages came and were not announced yet
let lastMs = -FLOOD_MS;
let timer = 0;

//  What the reader did, at once. The same words again are said again only when they differ.
export function announce(text) {
  lastMs = performance.now();
  announcer.textContent = announcer.textContent === text ? `${text}\u00a0` : text;
}

//  What others did, in sum
export function announceArrival(author) {
  arrived.push(author);
  timer ||= setTimeout(announceArrivals, Math.max(0, lastMs + FLOOD_MS - performance.now()));
}

function announceArrivals() {
  timer = 0;
  announce(arrived.length === 1 ? `New message by ${arrived[0]}` : `${arrived.length} new messages`);
  arrived = [];
}

//  ---------------------------------------------------------------- To who wants it back

//  Says what was done, and offers to undo it for 10 s; longer while the pointer or the focus is there.
export function offerUndo(text, undo) {
  const offer = clone("undo").firstElementChild;
  offer.querySelector(".undo__message").textContent = text;
  byId("undos").append(offer);
  offer.takeBack = undo;
  offer.timer = setTimeout(closeOffer, OFFER_MS, offer);
}

function closeOffer(offer) {
  if (offer.matches(":hover, :focus-within") && !offer.late) {
    offer.late = true;
    offer.timer = setTimeout(closeOffer, OFFER_LONGEST_MS - OFFER_MS, offer);
    return;
  }
  const focused = offer.contains(document.activeElement);
  clearTimeout(offer.timer);
  offer.remove();
  if (focused) focusOn(null);
}

//  Takes up an offer, or the newest one. Returns whether there was one.
export function undo(offer = byId("undos").lastElementChild) {
  if (!offer) return false;
  offer.late = true;
  closeOffer(offer);
  offer.takeBack();
  return true;
}

//  ---------------------------------------------------------------- To who looks elsewhere

const title = document.title;
let unseen = 0; // Messages that came while the page was hidden

export function countUnseen() {
  if (document.hidden) document.title = `(${++unseen}) ${title}`;
}

export function forgetUnseen() {
  unseen = 0;
  document.title = title;
}
