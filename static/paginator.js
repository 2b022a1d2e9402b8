//  paginator.js - the ways to other pages, and the field for a page's number
//
//  The field says which page is shown, or asked for, until somebody types in it: then it is the reader's,
//  until it is sent off or Escape restores it, or it was left and the page is turned.

import { arrange } from "./dom.js";

const numberIn = (element) => element.querySelector(".paginator__number");

export const isNumberTyped = (field) =>
  field.matches(".paginator__number") && field.value !== field.defaultValue;

//  Makes the paginator that is shown say what one that came says, and returns it; but for the field's own text. What can
//  stay does, so that no press is lost; so does the field where somebody is in it, even if it is of no use.
export function renewPaginator(old, fresh, pages) {
  const field = numberIn(old);
  const came = fresh.querySelector(".paginator__place");
  const stays = field && came && (field === document.activeElement || numberIn(fresh));
  if (stays) field.form.querySelector(".paginator__pages").textContent = pages;
  old.dataset.page = fresh.dataset.page;
  for (const button of old.querySelectorAll("button[id]")) {
    button.value = fresh.querySelector(`#${button.id}`)?.value;
  }
  const before = [...old.children];
  arrange(old, [...fresh.children].map((child) =>
    stays && child === came ? field.form : before.find((it) => it.isEqualNode(child)) ?? child));
  return old;
}

//  The field says that this page is shown.
export function showNumber(page, turned) {
  const field = numberIn(document);
  if (!field) return;
  if (Number(field.defaultValue) !== page) field.defaultValue = page;
  if (turned && field !== document.activeElement) field.form.reset();
}

//  Returns the page that is typed, or the nearest that there is; NaN where that is no number.
export function takeNumber(field, pages) {
  const page = Math.min(Math.max(Math.trunc(field.value.trim() || NaN), 1), pages);
  if (page) field.defaultValue = page;
  restoreNumber(field);
  return page;
}

//  Whoever is in the field can type over it at once.
export function restoreNumber(field) {
  field.form.reset();
  if (field === document.activeElement) field.select();
}
