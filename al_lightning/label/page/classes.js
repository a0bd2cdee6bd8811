// The classes: a button and a key each, and a search where there are many.

import { element, made } from "/server.js";

export const FEW = 10; // with more classes letters search, and commands need Shift
const NOT_LETTERS = /[^\p{L}\p{N}]+/u;

let about;
let choose; // called with position and name
let own = {}; // keys of one's own: class name by key
let used = []; // how often each class was chosen

export const areMany = () => about.classes.length > FEW && about.task !== "multilabel";

// ---- keys --------------------------------------------------------------------------------------

const place = () => `al_lightning.label.keys.${about.run}`;

export function begin(given, chosen) {
  about = given;
  choose = chosen;
  used = [...about.used];
  own = JSON.parse(localStorage.getItem(place()) ?? "{}");
  element("classes").classList.toggle("short", about.classes.every((name) => name.length === 1));
  element("classes").replaceChildren(...inOrder().map(button));
  element("search-field").hidden = !areMany();
  element("search").value = "";
}

// The most used come first where there are many; a few stay where they are.
function inOrder() {
  const positions = about.classes.map((_, n) => n);
  return areMany() ? positions.sort((a, b) => used[b] - used[a] || a - b) : positions;
}

function keyOf(position, rank) {
  const name = about.classes[position];
  const mine = Object.keys(own).find((key) => own[key] === name);
  if (mine) return mine;
  const digits = about.classes.every((one) => /^[0-9]$/.test(one));
  const key = digits ? name : rank < 10 ? `${(rank + 1) % 10}` : null;
  return key in own ? null : key;
}

function button(position, rank) {
  const name = about.classes[position];
  const one = made("button", null, { type: "button" });
  one.dataset.position = position;
  one.append(made("span", name));
  const key = keyOf(position, rank);
  if (key !== null) one.setAttribute("aria-keyshortcuts", key);
  if (key !== null && key !== name) one.append(made("kbd", key, { ariaHidden: "true" }));
  const several = about.task === "multilabel";
  if (several) one.setAttribute("aria-pressed", false);
  one.addEventListener("click", () => {
    if (several) one.setAttribute("aria-pressed", !isPressed(one));
    else choose(position, name);
  });
  return one;
}

const isPressed = (one) => one.getAttribute("aria-pressed") === "true";

export const pressed = () => [...element("classes").children].map(isPressed);

export function clear(guessed) {
  if (about.task === "multilabel")
    for (const one of element("classes").children) one.setAttribute("aria-pressed", false);
  find("", guessed);
}

export function note(position) {
  if (position in used) used[position] += 1;
}

export function ownKeys(taken) {
  const fields = about.classes.map((name, position) => {
    const field = made("input", null, { maxLength: 1, value: "", autocomplete: "off" });
    field.value = Object.keys(own).find((key) => own[key] === name) ?? "";
    field.addEventListener("input", () => {
      const key = field.value.toLowerCase();
      const other = own[key] ?? taken(key);
      field.setCustomValidity(key && other && other !== name ? `${key} is the key of ${other}` : "");
      if (!field.reportValidity()) return;
      for (const known of Object.keys(own)) if (own[known] === name) delete own[known];
      if (key) own[key] = name;
      localStorage.setItem(place(), JSON.stringify(own));
    });
    const label = made("label", `${name} `);
    label.append(field);
    return label;
  });
  element("own-keys").replaceChildren(...fields);
}

export const isOwn = (key) => key in own;

// ---- search ------------------------------------------------------------------------------------

// Lower is better: the whole name, its beginning, that of a word, first letters, anywhere.
export function rank(name, typed) {
  const [low, wanted] = [name.toLowerCase(), typed.toLowerCase()];
  const words = low.split(NOT_LETTERS).filter(Boolean);
  if (low === wanted || words.includes(wanted)) return low === wanted ? 0 : 1;
  if (low.startsWith(wanted)) return 2;
  if (words.some((word) => word.startsWith(wanted))) return 3;
  if (words.map((word) => word[0]).join("").startsWith(wanted)) return 4;
  return low.includes(wanted) ? 5 : Infinity;
}

export function matches(typed, guess) {
  return about.classes
    .map((name, position) => ({ name, position, rank: rank(name, typed) }))
    .filter((one) => one.rank < Infinity)
    .sort(
      (a, b) =>
        (b.name === guess) - (a.name === guess) ||
        a.rank - b.rank ||
        used[b.position] - used[a.position] ||
        a.position - b.position,
    );
}

let guess = null;

export function find(typed, guessed = guess) {
  guess = guessed;
  if (!areMany()) return;
  if (element("search").value !== typed) element("search").value = typed;
  const buttons = new Map([...element("classes").children].map((one) => [+one.dataset.position, one]));
  const found = typed ? matches(typed, guess).map((one) => one.position) : inOrder();
  for (const one of buttons.values()) one.hidden = true;
  for (const position of found) buttons.get(position).hidden = false;
  element("classes").append(...found.map((position) => buttons.get(position)));
  for (const [position, one] of buttons)
    one.classList.toggle("first", Boolean(typed) && position === found[0]);
}

export function chooseFirst() {
  const [first] = matches(element("search").value, guess);
  if (element("search").value && first) choose(first.position, first.name);
}
