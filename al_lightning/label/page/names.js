// The person's name: it belongs to the session, digits never land in it, a new one is asked for once.

import { element, request } from "/server.js";

const NAME = "al_lightning.label.name";
const CONFIRMED = "al_lightning.label.names"; // those that a person here has said to be right

let known = []; // people who labeled in this run
let name = ""; // the one that the server knows
let before; // gives what must be over before it changes
let changed; // called when it is another
let digit; // called with a digit that was typed into the field
let isBinding = false;

const field = element("name");
const confirmed = () => JSON.parse(localStorage.getItem(CONFIRMED) ?? "[]");

export const person = () => name;
// While it is so, what the person does waits.
export const isAsking = () => isBinding || !element("new-name").hidden;

export async function begin(about, whatIsOver, whenChanged, whenDigit) {
  [known, before, changed, digit] = [about.people, whatIsOver, whenChanged, whenDigit];
  field.value = about.name ?? localStorage.getItem(NAME) ?? "";
  field.addEventListener("input", () => {
    field.value = field.value.replace(/\p{Nd}/gu, ""); // pasted
  });
  field.addEventListener("change", commit);
  field.addEventListener("keydown", typed);
  element("is-new").addEventListener("click", accept);
  element("is-not-new").addEventListener("click", () => {
    element("new-name").hidden = true;
    field.focus();
  });
  const asked = field.value.trim();
  if (asked !== "" && (asked === about.name || isKnown(asked))) await bind(asked);
  else field.value = "";
  field.disabled = false; // a name that was written earlier would be lost
}

export function learn(people) {
  known = people;
}

const isKnown = (one) => known.includes(one) || confirmed().includes(one);

function typed(event) {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const isDigit = /^\p{Nd}$/u.test(event.key);
  if (event.key !== "Enter" && !isDigit) return;
  event.preventDefault();
  event.stopPropagation();
  field.blur(); // which changes the name
  if (isDigit) digit(event.key);
}

async function commit() {
  const wanted = field.value.trim();
  field.value = wanted;
  element("new-name").hidden = true;
  if (wanted === name) return changed();
  if (wanted === "" || isKnown(wanted)) return bind(wanted);
  element("new-name-text").textContent = `New labeler ${wanted}?`;
  element("new-name").hidden = false;
  element("is-new").focus();
}

async function accept() {
  const wanted = field.value.trim();
  localStorage.setItem(CONFIRMED, JSON.stringify([...confirmed(), wanted]));
  element("new-name").hidden = true;
  await bind(wanted);
}

async function bind(wanted) {
  isBinding = true;
  await before();
  const { problem } = await request("/name", { by: wanted });
  isBinding = false;
  element("problem").textContent = problem ? `The name was not changed: ${problem}` : "";
  if (problem) return;
  name = wanted;
  localStorage.setItem(NAME, wanted);
  await changed();
}
