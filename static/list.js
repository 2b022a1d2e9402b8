//  list.js - the list of messages: frames are merged into it, not put in its place
//
//  A message that did not change keeps its node, and with it focus, caret, selection, and an edit form
//  that is open in it. Nothing moves under the pointer, under the caret, or before the eyes of who has
//  scrolled down: the window is scrolled by as much as the list has moved. A message that goes from
//  under the pointer leaves its room behind until the pointer has left.

import { arrange, byId, enhance, focusOn, parse, part } from "./dom.js";
import { edit, orphanEdit, renewEdit } from "./edit.js";
import { isNumberTyped, renewPaginator } from "./paginator.js";
import { announce, announceArrival, countUnseen } from "./say.js";

const list = byId("messages__list");
const hovers = matchMedia("(hover: hover)"); // A finger leaves :hover where it was
const sources = new WeakMap(); // The HTML from which a child of the list was made
for (const child of list.children) sources.set(child, child.outerHTML);

//  The page that is shown, how many there are, and its etag: what the server knows it by
export const shown = {
  page: Number(list.dataset.page),
  pages: Number(list.dataset.pages),
  etag: list.dataset.etag,
};

export const own = new Set(); // Ids of messages that the reader wrote, and need not be told of

//  byReader: who reads has turned the page, and can go back. Returns whether it is another page.
export function showList({ html, page, pages, etag }, byReader = false) {
  const turned = page !== shown.page;
  const incoming = [...parse(html).children];
  Object.assign(shown, { page, pages, etag });
  const restoreFocus = rememberFocus();
  let arrived = [];
  const change = () => (arrived = merge(incoming, turned ? null : underPointer()));
  if (turned) change();
  else steady(change);
  restoreFocus();
  if (turned) showTurned(byReader);
  else arrived.forEach(showArrived);
  return turned;
}

//  Puts the children in place. Returns the messages that are new at the top.
function merge(incoming, pointed) {
  const before = new Set([...list.children].map((child) => child.id));
  const next = incoming.map(keep);
  if (pointed && !next.some(({ id }) => id === pointed.id)) placeAfter(next, pointed, roomOf(pointed));
  if (edit && !next.includes(edit.article)) {
    placeAfter(next, edit.article, edit.article);
    orphanEdit();
  }
  arrange(list, next);
  const oldest = next.findIndex((child) => before.has(child.id) || child === edit?.article);
  return next.slice(0, oldest < 0 ? next.length : oldest).filter((child) => child.matches(".message"));
}

//  The node to show for one that came: the old one where it is the same, or holds what somebody types in.
function keep(fresh) {
  const source = fresh.outerHTML;
  const edited = edit && fresh.id === `message--${edit.id}`;
  const old = edited ? edit.article : fresh.id && byId(fresh.id);
  if (old?.id === "paginator") return renewPaginator(old, fresh, shown.pages);
  if (old && sources.get(old) === source && !(edited && edit.orphan)) return old;
  enhance(fresh);
  if (edited) renewEdit(fresh);
  const kept = edited ? old : fresh;
  sources.set(kept, source);
  return kept;
}

//  Adds a node to those that will be shown, where another one was: behind the same neighbour
function placeAfter(next, where, node) {
  let before = where.previousSibling;
  while (before && !next.includes(before)) before = before.previousSibling;
  next.splice(next.indexOf(before) + 1, 0, node);
}

//  The room that a message leaves behind
function roomOf(message) {
  if (message.matches(".room")) return message;
  const room = document.createElement("p");
  room.className = "room";
  room.textContent = "This message has left the page.";
  room.style.height = `${message.getBoundingClientRect().height}px`;
  room.addEventListener("pointerleave", () => steady(() => room.remove()));
  return room;
}

//  The message, or room, under the pointer, unless the reader has just deleted it
function underPointer() {
  return hovers.matches ? list.querySelector(".message:hover:not([aria-busy]), .room:hover") : null;
}

const NEXT_BEST = ".messages__update, #messages__previous-page, #messages__next-page";

//  What had the focus and is gone hands it to its successor.
function rememberFocus() {
  const active = document.activeElement;
  if (!list.contains(active)) return () => {};
  const article = active.closest(".message");
  const position = [...list.children].indexOf(article);
  const same = active.id ? `#${active.id}` : `.${active.classList[active.classList.length - 1]}`;
  return () => {
    if (active.isConnected && document.activeElement === active) return;
    const heir = article ? byId(article.id) ?? list.children[position] : byId("paginator");
    focusOn(heir?.querySelector(same) ?? heir?.querySelector(NEXT_BEST));
  };
}

function showArrived(article) {
  article.classList.add("message--new");
  if (own.has(article.id)) return;
  announceArrival(part(article, "author").textContent);
  countUnseen();
}

//  ---------------------------------------------------------------- Place

//  The address names the page that is shown, and goes on naming a message that is there.
export function nameInAddress(byReader) {
  const url = new URL(location.href);
  if (pageInAddress() === shown.page) return;
  url.hash = "";
  if (shown.page > 1) url.searchParams.set("page", shown.page);
  else url.searchParams.delete("page");
  if (byReader) history.pushState(null, "", url);
  else history.replaceState(null, "", url);
}

function showTurned(byReader) {
  nameInAddress(byReader);
  list.style.paddingTop = "";
  giveRoom(0);
  announcePlace();
  const heading = byId("messages__title");
  if (heading.getBoundingClientRect().top < 0) heading.scrollIntoView();
}

export const announcePlace = () => announce(`Page ${shown.page} of ${shown.pages}`);

//  The page that the address names
export const pageInAddress = () => Number(new URL(location.href).searchParams.get("page") ?? 1);

//  Goes to the message that the address names behind its #, as a permalink does.
export function showNamed() {
  const article = location.hash.startsWith("#message--") && byId(location.hash.slice(1));
  if (!article) return;
  article.tabIndex = -1;
  focusOn(article);
  article.scrollIntoView({ block: "center" });
}

//  ---------------------------------------------------------------- Nothing moves

//  Runs a change of what is shown, and scrolls so that what the reader is at stays where it is. Where
//  the window cannot be scrolled so far, the list begins further down, or the page is made longer.
export function steady(change) {
  const anchor = anchorOf();
  const before = anchor?.getBoundingClientRect().top;
  change();
  const after = anchor?.isConnected ? anchor : anchor?.id && byId(anchor.id);
  const moved = after ? after.getBoundingClientRect().top - before : 0;
  if (moved === 0) return;
  const above = -(scrollY + moved);
  if (above > 0) list.style.paddingTop = `${parseFloat(list.style.paddingTop || 0) + above}px`;
  giveRoom(scrollY + moved + innerHeight - document.documentElement.scrollHeight);
  scrollBy({ top: moved, behavior: "instant" });
}

//  What must not move: the form that has the focus, or a number that is typed, or what is under the
//  pointer, or the first message that can be seen of a list that is scrolled
function anchorOf() {
  const children = [...list.children];
  const active = document.activeElement;
  return (
    list.querySelector(".message:has(.update-form:focus-within)") ??
    (isNumberTyped(active) ? active : null) ??
    (hovers.matches ? children.find((child) => child.matches(":hover")) : null) ??
    (list.getBoundingClientRect().top < 0
      ? children.find((child) => child.getBoundingClientRect().bottom > 0)
      : null)
  );
}

//  Makes the document so much longer that it can be scrolled, until it is scrolled back to its top.
function giveRoom(pixels) {
  const { style } = document.body;
  if (pixels > 0) style.minHeight = `${document.documentElement.scrollHeight + pixels}px`;
  else if (scrollY === 0) style.minHeight = "";
}

//  Nobody is at the list any more: it begins where it should.
function settle() {
  if (!anchorOf()) list.style.paddingTop = "";
}

list.addEventListener("pointerleave", settle);
list.addEventListener("focusout", () => setTimeout(settle));
addEventListener("scroll", () => giveRoom(0), { passive: true });
