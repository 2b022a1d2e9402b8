//  fields.js - fields are checked while somebody types, and counted in code points: the server's unit
//
//  The note beside a field tells how much there is room for, or what is wrong with it.

//  Lifts maxlength, which counts UTF-16 units, and takes it as our limit.
export function takeOver(root) {
  for (const field of root.querySelectorAll("[maxlength]")) {
    field.form.noValidate = true;
    field.dataset.limit = field.maxLength;
    field.removeAttribute("maxlength");
    count(field);
  }
}

//  Whether every field of the form may be sent; the first that may not gets the focus.
export function isInOrder(form) {
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

//  Code points of what would be stored: the trimmed text
export function count(field) {
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

//  What the form says, under the names that the protocol has
export function valuesOf({ elements: { author, message } }) {
  return { author: author.value, text: message.value };
}

export const sameValues = (one, other) => one.author === other.author && one.text === other.text;

export function fillIn({ elements }, { author, text }) {
  elements.author.value = author;
  elements.message.value = text;
  count(elements.author);
  count(elements.message);
}
