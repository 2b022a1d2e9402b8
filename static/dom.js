//  dom.js - the few things that every other module does to the document

import { takeOver } from "./fields.js";
import { showTimes } from "./times.js";

export const byId = (id) => document.getElementById(id);

//  What a template of the page holds
export const clone = (id) => document.importNode(byId(id).content, true);

export function parse(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return document.importNode(template.content, true);
}

//  What the script adds to HTML that came from the server
export function enhance(root) {
  showTimes(root);
  takeOver(root);
}

//  Makes the nodes the children of parent. Those that stay are not moved, so nothing in them is disturbed.
export function arrange(parent, nodes) {
  for (const child of [...parent.childNodes]) if (!nodes.includes(child)) child.remove();
  let place = parent.firstChild;
  for (const node of nodes) {
    if (node === place) place = place.nextSibling;
    else parent.insertBefore(node, place);
  }
}

//  A part of a message: its author, its text
export const part = (message, name) => message.querySelector(`.message__${name}`);

export function focusOn(element) {
  (element ?? byId("messages__title")).focus({ preventScroll: true });
}

//  A random UUID (RFC 9562, 5.4). crypto.randomUUID () is for pages that came over TLS alone.
export function uuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

//  What this tab keeps for itself, over a reload; where it may keep nothing, it forgets.
export function keep(name, value) {
  try {
    if (value) sessionStorage.setItem(name, JSON.stringify(value));
    else sessionStorage.removeItem(name);
  } catch {
    // Storage is full, or forbidden
  }
}

export function kept(name) {
  try {
    return JSON.parse(sessionStorage.getItem(name));
  } catch {
    return null;
  }
}
