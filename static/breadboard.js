//  breadboard.js - makes the page live
//
//  The page is complete without this script: its forms post, its buttons lead to pages. The script
//  opens a WebSocket, sends what the forms say over it, and puts the HTML that comes back in place.
//
//  socket     one at a time; lost ones are replaced, with growing pauses
//  frames     {"selector", "html"}: the list, an edit form, a notice, or any other element
//  list       merged, not replaced: what did not change keeps its node, and with it focus, selection
//             and an open edit form
//  requests   a frame names no request, so a write ends with the list that shows it, or with a notice
//  forms      checked here, counted in code points; native while no socket was ever open
//  times      relative, from the datetime attribute
//
//  A module: nothing here is global.

const LOCALE = "en-GB"; // The page's language, in the server's way to write dates
const RETRY_FIRST_MS = 200;
const RETRY_LONGEST_MS = 5000;
const PATIENCE_MS = 4000; // For a list that shows a write
const SILENCE_MS = 8000; // After that: the connection is taken for dead
const RETURN_MS = 500; // For the page that was shown before the connection broke
const TIMES_MS = 30000;

const byId = (id) => document.getElementById(id);
const list = byId("messages__list");
const heading = byId("messages__title");
const notices = byId("notices");
const messageForm = document.querySelector(".message-form form");

//  ---------------------------------------------------------------- Socket

const site = document.body.dataset;
const address = `${site.scheme === "https" ? "wss" : "ws"}://${site.host}${site.socketPath}`;

let socket = null; // null between two attempts
let state = "connecting"; // Then "open" and "lost" in turn; "off" while there never was one
let attempts = 0; // Since a list came
let retryTimer = 0;

function connect() {
  clearTimeout(retryTimer);
  const opening = new WebSocket(address);
  socket = opening;
  opening.onopen = () => opening === socket && opened();
  opening.onmessage = ({ data }) => opening === socket && receive(JSON.parse(data));
  opening.onclose = () => opening === socket && lost();
}

//  The server shows a new connection page 1; we want the one that was here.
function opened() {
  setState("open");
  const adding = [...requests].some(({ action }) => action === "add message"); // Its answer is page 1
  if (page > 1 && !adding) {
    returning = true;
    turnTo(page);
  }
}

//  Attempts spread over the whole pause, so that a server that comes back is not overrun.
function lost() {
  socket = null;
  if (state === "open") setState("lost");
  if (state === "connecting" && attempts > 1) setState("off");
  for (const request of requests) doubt(request);
  const pause = Math.min(RETRY_LONGEST_MS, RETRY_FIRST_MS * 2 ** attempts++);
  retryTimer = setTimeout(connect, Math.random() * pause);
}

//  For a connection that has not been closed, but is silent
function abandon() {
  socket?.close();
  lost();
}

//  Now is a good moment: the network is back, or somebody looks.
function connectNow() {
  if (!socket) connect();
}

function send(action, data) {
  socket.send(JSON.stringify({ action, data }));
}

const STATES = {
  connecting: "", // Most often over at once
  open: "Live",
  lost: "Connection lost, reconnecting…",
  off: "Not live",
};
let focusedBefore = null; // What had the focus when it was disabled

function setState(next) {
  state = next;
  const element = byId("connection");
  element.dataset.state = state;
  element.textContent = STATES[state];

  const active = document.activeElement;
  enableButtons(document);
  if (active?.disabled) focusedBefore = active;
  else if (focusedBefore && active === document.body) focusedBefore.focus({ preventScroll: true });
  if (state === "open") focusedBefore = null;
}

//  What was typed stays and can be typed on; only what needs the server rests.
function enableButtons(root) {
  for (const button of root.querySelectorAll("button:not([type=button])")) {
    button.disabled = state === "lost";
  }
}

//  ---------------------------------------------------------------- Frames

function receive({ selector, html }) {
  if (selector === "#messages__list") receiveList(parse(html));
  else if (selector === "#notices") receiveNotice(parse(html));
  else if (selector.startsWith("#message--")) openEdit(selector.slice(10), parse(html));
  else document.querySelector(selector)?.replaceChildren(parse(html));
}

function parse(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return document.importNode(template.content, true);
}

function receiveNotice(content) {
  showNotice(content);
  for (const request of requests) finish(request, "refused");
}

let focusBeforeNotice = null;

function showNotice(content) {
  if (!notices.contains(document.activeElement)) focusBeforeNotice = document.activeElement;
  notices.replaceChildren(content);
}

function notify(text) {
  const content = document.importNode(byId("notice").content, true);
  content.querySelector(".notice__message").textContent = text;
  showNotice(content);
}

function dismissNotice() {
  const focused = notices.contains(document.activeElement);
  notices.replaceChildren();
  if (focused) (focusBeforeNotice?.isConnected ? focusBeforeNotice : heading).focus();
}

//  Said to who cannot see it happen
function announce(text) {
  byId("announcer").textContent = text;
}

//  ---------------------------------------------------------------- List

const sources = new WeakMap(); // The HTML from which a child of the list was made
let page = pageOf(list);
let returning = false; // We have asked for the page that was here before the connection broke
let returnTimer = 0;
let unseen = 0; // Messages that came while the page was hidden
const title = document.title;

function pageOf(root) {
  return Number(root.querySelector("#paginator")?.dataset.page ?? 1);
}

//  Page 1, which a new connection gets by itself, waits a little for the page that we have asked for.
function receiveList(incoming) {
  attempts = 0;
  clearTimeout(returnTimer);
  if (returning && pageOf(incoming) === 1) returnTimer = setTimeout(showList, RETURN_MS, incoming);
  else showList(incoming);
}

function showList(incoming) {
  returning = false;
  const turned = pageOf(incoming) !== page;
  page = pageOf(incoming);
  const restoreFocus = rememberFocus();
  const arrived = merge([...incoming.children]);
  restoreFocus();
  if (turned) showTurned();
  else arrived.forEach(showArrived);
  requests.forEach(compare);
}

//  Puts the children in place. Nodes that stay are not moved, so nothing in them is disturbed.
//  Returns the messages that are new at the top.
function merge(incoming) {
  const shown = new Set([...list.children].map((child) => child.id));
  const next = incoming.map(keep);
  placeOrphan(next);
  for (const child of [...list.childNodes]) if (!next.includes(child)) child.remove();
  let place = list.firstChild;
  for (const child of next) {
    if (child === place) place = place.nextSibling;
    else list.insertBefore(child, place);
  }
  const oldest = next.findIndex((child) => shown.has(child.id) || child === edit?.article);
  return next.slice(0, oldest < 0 ? next.length : oldest).filter((child) => child.matches(".message"));
}

//  The node to show for one that came: the old one where it is the same, or holds the edit form.
function keep(fresh) {
  const source = fresh.outerHTML;
  const edited = edit && fresh.id === `message--${edit.id}`;
  const old = edited ? edit.article : fresh.id && list.querySelector(`#${fresh.id}`);
  if (old && sources.get(old) === source && !(edited && edit.orphan)) return old;
  enhance(fresh);
  if (edited) renewEdit(fresh);
  const kept = edited ? old : fresh;
  sources.set(kept, source);
  return kept;
}

function rememberFocus() {
  const active = document.activeElement;
  if (!list.contains(active)) return () => {};
  const article = active.closest(".message");
  const position = [...list.children].indexOf(article);
  const same = active.id ? `#${active.id}` : `.${active.classList[active.classList.length - 1]}`;
  return () => {
    if (active.isConnected && document.activeElement === active) return;
    const heir = article ? byId(article.id) ?? list.children[position] : byId("paginator");
    focusOn(heir?.querySelector(same) ?? heir?.querySelector("button"));
  };
}

function focusOn(element) {
  (element ?? heading).focus({ preventScroll: true });
}

function showTurned() {
  const url = new URL(location.href);
  if (page > 1) url.searchParams.set("page", page);
  else url.searchParams.delete("page");
  history.replaceState(null, "", url);
  announce(list.querySelector(".paginator__place")?.textContent ?? "");
  if (heading.getBoundingClientRect().top < 0) heading.scrollIntoView();
}

function showArrived(article) {
  article.classList.add("message--new");
  announce(`New message by ${part(article, "author").textContent}`);
  if (document.hidden) document.title = `(${++unseen}) ${title}`;
}

function turnTo(number) {
  send("list messages", { page: Number(number) });
}

//  ---------------------------------------------------------------- Requests

//  {action, data, isShown (), done (), refused ()}: whether the list shows it; refused: the form stays
const requests = new Set();

function ask(request) {
  const { action, data } = request;
  if ([...requests].some((other) => other.action === action && other.data.id === data.id)) return;
  requests.add(request);
  request.timer = setTimeout(wait, PATIENCE_MS, request);
  send(action, data);
}

//  Others' changes may hide ours; so a list without it counts too when no notice has come for a while.
function wait(request) {
  request.overdue = true;
  request.timer = setTimeout(abandon, SILENCE_MS);
  if (request.listed) finish(request, "done");
}

//  Whether the list that is shown now answers the request
function compare(request) {
  if (request.isShown() || request.overdue) finish(request, "done");
  else if (request.doubted) finish(request, "unknown");
  else request.listed = true;
}

//  The connection broke: the first list of the next one tells, as far as it can be told.
function doubt(request) {
  clearTimeout(request.timer);
  request.doubted = true;
  request.overdue = false;
}

function finish(request, outcome) {
  clearTimeout(request.timer);
  requests.delete(request);
  if (outcome === "done") request.done();
  else request.refused();
  if (outcome === "unknown") {
    notify("The connection broke just then. Please look whether your change arrived before you send it again.");
  }
}

//  ---------------------------------------------------------------- Writing

function addMessage(form) {
  const { author, message } = form.elements;
  const before = new Set([...list.children].map((child) => child.id));
  const data = { author: author.value, text: message.value };
  busy(form, true);
  ask({
    action: "add message",
    data,
    isShown: () => [...list.children].some((child) => !before.has(child.id) && shows(child, data)),
    done() {
      busy(form, false);
      form.querySelector(".form-error")?.remove();
      if (message.value === data.text) message.value = ""; // Else: the next one is being typed
      count(message);
      announce("Your message is posted.");
    },
    refused: () => busy(form, false),
  });
}

function updateMessage(form) {
  const { author, message } = form.elements;
  const data = { id: form.dataset.id, author: author.value, text: message.value };
  const elsewhere = edit?.orphan;
  busy(form, true);
  ask({
    action: "update message",
    data,
    isShown() {
      if (edit?.id === data.id) return edit.orphan ? elsewhere : shows(edit.inside, data);
      return true;
    },
    done() {
      if (edit?.form === form) closeEdit();
      announce("Your change is saved.");
    },
    refused: () => busy(form, false),
  });
}

function deleteMessage(id) {
  const article = byId(`message--${id}`);
  closeConfirmation();
  busy(article, true);
  ask({
    action: "delete message",
    data: { id },
    isShown: () => !byId(`message--${id}`),
    done: () => announce("The message is deleted."),
    refused: () => busy(article, false),
  });
}

function shows(root, { author, text }) {
  return same(part(root, "author"), author) && same(part(root, "text"), text);
}

function part(root, name) {
  return root.querySelector(`.message__${name}`);
}

//  The server trims what it stores.
function same(element, value) {
  return element?.textContent.trim() === value.trim();
}

function busy(element, on) {
  if (on) element.setAttribute("aria-busy", "true");
  else element.removeAttribute("aria-busy");
}

//  ---------------------------------------------------------------- Editing

//  {id, article, form, inside: the article's own content, typed: the fields as they came,
//  orphan: the message is not on this page any more}
let edit = null;

function askForEdit(id) {
  if (edit && isTyped(edit)) {
    noteEdit("Save or cancel this change first.");
    edit.form.elements.message.focus();
  } else {
    send("open edit page", { id });
  }
}

function openEdit(id, content) {
  const article = byId(`message--${id}`) ?? (edit?.id === id ? edit.article : null);
  if (!article || (edit && isTyped(edit))) return;
  if (edit) closeEdit();
  closeConfirmation();
  const inside = document.createDocumentFragment();
  inside.append(...article.childNodes);
  article.append(content);
  const form = article.querySelector("form");
  edit = { id, article, form, inside, typed: fieldsOf(form), orphan: false };
  enhance(article);
  const { message } = form.elements;
  message.focus();
  message.setSelectionRange(message.value.length, message.value.length);
}

function fieldsOf(form) {
  return JSON.stringify([form.elements.author.value, form.elements.message.value]);
}

function isTyped({ form, typed }) {
  return fieldsOf(form) !== typed;
}

function closeEdit() {
  const { article, form, inside, orphan } = edit;
  const focused = form.contains(document.activeElement);
  edit = null;
  article.replaceChildren(inside);
  enhance(article);
  enableButtons(article);
  if (orphan) article.remove();
  if (focused) focusOn(article.isConnected ? article.querySelector(".messages__update") : heading);
}

//  The message as it is now, for when the form closes
function renewEdit(fresh) {
  const { article, orphan, inside } = edit;
  const changed = !shows(fresh, {
    author: part(inside, "author").textContent,
    text: part(inside, "text").textContent,
  });
  edit.inside = document.createDocumentFragment();
  edit.inside.append(...fresh.childNodes);
  if (orphan) article.id = `message--${edit.id}`;
  edit.orphan = false;
  noteEdit(changed ? "Somebody has changed this message meanwhile. Saving replaces that." : "");
}

//  A form whose message has left the page stays where it was, behind the same neighbour.
function placeOrphan(next) {
  if (!edit || next.includes(edit.article)) return;
  let before = edit.article.previousSibling;
  while (before && !next.includes(before)) before = before.previousSibling;
  next.splice(next.indexOf(before) + 1, 0, edit.article);
  edit.orphan = true;
  edit.article.removeAttribute("id");
  noteEdit("This message was deleted, or is on another page now. What you typed is kept.");
}

function noteEdit(text) {
  edit.form.querySelector(".update-form__note")?.remove();
  if (!text) return;
  const note = document.createElement("p");
  note.className = "update-form__note";
  note.setAttribute("role", "status");
  note.textContent = text;
  edit.form.prepend(note);
}

//  ---------------------------------------------------------------- Deleting asks first

let confirmation = null; // The question, in its form

//  The focus goes to Keep, which also lies where Delete was: neither a held key nor a double click deletes.
function openConfirmation(form) {
  closeConfirmation();
  form.append(document.importNode(byId("delete-confirmation").content, true));
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

//  ---------------------------------------------------------------- Forms

//  While no socket was ever open, what is in order goes to the server the browser's own way.
function submitted(event) {
  const { target: form, submitter } = event;
  const asks = submitter?.matches(".messages__delete");
  const inOrder = asks || isInOrder(form);
  const connected = state === "open" || state === "lost";
  if (asks || connected || !inOrder) event.preventDefault();
  if (asks) openConfirmation(form);
  else if (inOrder && state === "open") act(form, submitter);
}

function act(form, submitter) {
  if (form === messageForm) addMessage(form);
  else if (form.matches(".update-form")) updateMessage(form);
  else if (form.matches("#paginator *")) turnTo(submitter.value);
  else if (submitter.matches(".messages__update")) askForEdit(submitter.dataset.id);
  else deleteMessage(form.querySelector(".messages__delete").dataset.id);
}

function isInOrder(form) {
  const wrong = [...form.querySelectorAll(".field__input")].filter((field) => !check(field));
  wrong[0]?.focus();
  return wrong.length === 0;
}

function check(field) {
  if (field.value.trim() === "") {
    note(field, field.name === "author" ? "Please say who you are." : "Please write a message.", true);
    return false;
  }
  return count(field);
}

//  Code points, which are what the server counts, of what it stores: the trimmed text
function count(field) {
  const limit = Number(field.dataset.limit);
  const used = [...field.value.trim()].length;
  const over = used - limit;
  const shown = field.matches("textarea") || used > limit * 0.8;
  const hint = over > 0 ? `: ${over} too many` : "";
  note(field, shown ? `${used} / ${limit}${hint}` : "", over > 0);
  return over <= 0;
}

function note(field, text, wrong) {
  field.nextElementSibling.textContent = text;
  if (wrong) field.setAttribute("aria-invalid", "true");
  else field.removeAttribute("aria-invalid");
}

function pressed(event) {
  if (event.isComposing) return;
  const { target, key } = event;
  if (key === "Enter" && (event.ctrlKey || event.metaKey) && target.matches(".field__input")) {
    event.preventDefault();
    target.form.requestSubmit();
  }
  if (key === "Escape") {
    if (confirmation?.contains(target)) closeConfirmation();
    else if (edit?.form.contains(target)) closeEdit();
    else if (notices.firstChild) dismissNotice();
  }
}

function clicked(event) {
  const { target } = event;
  if (target.matches(".notice__dismiss")) dismissNotice();
  if (target.matches(".messages__delete-no") && event.detail < 2) closeConfirmation();
  if (target.matches(".update-form__cancel") && edit) {
    event.preventDefault();
    closeEdit();
  }
}

//  ---------------------------------------------------------------- Times

const relative = new Intl.RelativeTimeFormat(LOCALE);
const short = new Intl.DateTimeFormat(LOCALE, { dateStyle: "medium", timeStyle: "short" });
const full = new Intl.DateTimeFormat(LOCALE, { dateStyle: "full", timeStyle: "long" });
const UNITS = Object.entries({ year: 31557600, month: 2629800, day: 86400, hour: 3600, minute: 60 });

//  A clock that lags behind the server's must not make a message come from the future.
function ago(then) {
  const seconds = (Date.now() - then) / 1000;
  const [unit, size] = UNITS.find(([, length]) => seconds >= length) ?? [];
  return unit ? relative.format(-Math.floor(seconds / size), unit) : "just now";
}

function showTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const then = new Date(time.dateTime);
    (time.querySelector("a") ?? time).textContent = ago(then);
    time.title = full.format(then);
    time.dataset.absolute = short.format(then);
  }
}

//  ---------------------------------------------------------------- Start

//  What the script adds to HTML that came from the server
function enhance(root) {
  showTimes(root);
  for (const field of root.querySelectorAll("[maxlength]")) {
    field.form.noValidate = true;
    field.dataset.limit = field.maxLength;
    field.removeAttribute("maxlength"); // It counts UTF-16 units
    count(field);
  }
}

function looked() {
  if (document.hidden) return;
  unseen = 0;
  document.title = title;
  showTimes(list);
  connectNow();
}

function start() {
  for (const child of list.children) sources.set(child, child.outerHTML);
  enhance(document);
  const hint = byId("message-form__hint");
  hint.hidden = false;
  if (/Mac|iP/.test(navigator.platform)) hint.querySelector("kbd").textContent = "⌘";
  document.addEventListener("submit", submitted);
  document.addEventListener("keydown", pressed);
  document.addEventListener("click", clicked);
  document.addEventListener("input", ({ target }) => target.dataset.limit && count(target));
  document.addEventListener("visibilitychange", looked);
  addEventListener("online", connectNow);
  setInterval(showTimes, TIMES_MS, list);
  setState("connecting");
  connect();
}

start();
