// The labeling page. The server decides which row comes next and keeps every answer; here it is
// shown, and what the person does is sent. A row stays until the server has kept its answer.
"use strict";

const NAME = "al_lightning.label.name";
const SECTIONS = ["row", "done", "confirm", "closed"];
const PATIENCE = 10_000; // milliseconds

const element = (id) => document.getElementById(id);
const pictures = new Map(); // by address: the one on the screen and the next

let about; // of the query: what stays
let state; // what the server said last
let second = false; // whether rows come that only others answered, and labels in doubt
let confirming = false;
let busy = false; // an answer is on its way; the next one would be for a row not yet seen
let latest = 0; // number of the last request: a slower reply to an earlier one is old news

// ---- the server --------------------------------------------------------------------------------

async function request(path, body) {
  const post = body && {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...body, by: person() }),
  };
  try {
    const response = await fetch(path, { ...post, signal: AbortSignal.timeout(PATIENCE) });
    const text = await response.text();
    return response.ok ? { reply: JSON.parse(text) } : { problem: text };
  } catch {
    return {
      problem: "the server does not answer; start it again and open the address that it prints",
    };
  }
}

async function update(path, body, failed, done) {
  const number = ++latest;
  const { reply, problem } = await request(path, body);
  if (number !== latest) return;
  element("problem").textContent = problem ? `${failed}: ${problem}` : "";
  if (problem) return;
  state = reply;
  confirming = false;
  show(done);
}

async function change(path, body, failed, done) {
  if (busy) return;
  busy = true;
  await update(path, body, failed, done);
  busy = false;
}

function refresh() {
  const asked = new URLSearchParams({ by: person(), second });
  return update(`/state?${asked}`, null, "The query cannot be shown", "");
}

// ---- what a person does ------------------------------------------------------------------------

const person = () => element("name").value.trim();

function answer(value, words) {
  const { row } = state;
  const body = { index: row.index, answer: value, settles: row.said.length > 0, second };
  change("/answer", body, "The answer was not kept", `Kept for ${shortTitle(row)}: ${words}.`);
}

// Several classes, or none of them, are one answer; so is what stands in the number field.
function keep() {
  if (about.task === "regression") return keepNumbers();
  const chosen = [...element("classes").children].map(isPressed);
  const words = about.classes.filter((_, n) => chosen[n]).join("; ") || "none";
  answer(chosen.map(Number), words);
}

function keepNumbers() {
  const texts = element("number").value.split(";").map((text) => text.trim());
  const numbers = texts.map(Number);
  if (texts.includes("") || !numbers.every(Number.isFinite)) {
    element("problem").textContent =
      "The answer was not kept: write a number with a point, and several with ; between them";
    element("number").focus();
    return;
  }
  answer(numbers.length > 1 ? numbers : numbers[0], texts.join("; "));
}

const isPressed = (button) => button.getAttribute("aria-pressed") === "true";
const press = (button, pressed) => button.setAttribute("aria-pressed", pressed);

function undo() {
  change("/undo", { second }, "Nothing was taken back", "Your last answer was taken back.");
}

function finish() {
  change("/finish", { num_open: state.num_open }, "The query was not closed", "");
}

function lookForSecond() {
  second = true;
  refresh();
}

function confirmFinish(asked) {
  confirming = asked;
  show("");
}

function pressed(event) {
  const onButton = event.target instanceof HTMLButtonElement;
  if (event.ctrlKey || event.altKey || event.metaKey || event.target === element("name")) return;
  if (event.target === element("number") && event.key !== "Enter") return; // it is being typed
  if (event.repeat) {
    if (onButton) event.preventDefault(); // a key held down is one answer, not many
    return;
  }
  const chooses = onButton && event.target.hasAttribute("aria-pressed"); // Enter keeps the choice
  if (event.key === "Enter" && chooses) event.preventDefault();
  else if (event.key === "Enter" && onButton) return; // the browser presses it
  const buttons = [...document.querySelectorAll("button[aria-keyshortcuts]")];
  const meant = (button) =>
    button.getAttribute("aria-keyshortcuts").toLowerCase() === event.key.toLowerCase();
  buttons.find((button) => meant(button) && button.checkVisibility())?.click();
}

// ---- what is shown -----------------------------------------------------------------------------

const rows = (num) => (num === 1 ? "1 row" : `${num} rows`);
const shortTitle = (row) => (row.number ? `row ${row.number}` : `the row with index ${row.index}`);

function title(row) {
  const place = row.number
    ? `Row ${row.number} of ${about.num_rows}`
    : row.doubt === undefined ? "A row that was not asked for" : "A label in doubt";
  return `${place}: ${row.name ?? `index ${row.index}`}`;
}

function show(done) {
  const section = state.closed ? "closed" : confirming ? "confirm" : state.row ? "row" : "done";
  const before = SECTIONS.find((name) => !element(name).hidden);
  for (const name of SECTIONS) element(name).hidden = name !== section;
  element("always").hidden = section === "closed" || section === "confirm";
  element("finish-early").hidden = section !== "row";
  element("result").textContent = done;
  if (section === "closed") element("closed-text").textContent = state.closed;
  else showProgress();
  if (section === "row") showRow(state.row);
  if (section === "done") showDone();
  if (section === "confirm") showConfirm();
  announce(section, done);
  // What had the focus may be hidden now.
  if (before && before !== section) element(`${section}-title`).focus();
  if (section === "row" && about.task === "regression") element("number").focus();
}

function showProgress() {
  const { num_open, num_differing, num_yours } = state;
  const num = about.num_rows - num_open;
  element("progress").max = about.num_rows;
  element("progress").value = num;
  const differ = num_differing ? `, people differ on ${num_differing}` : "";
  element("progress-text").textContent =
    `${num} of ${rows(about.num_rows)} answered${differ}, ${num_yours} by you`;
}

function showRow(row) {
  element("row-title").textContent = title(row);
  element("guess").replaceChildren(...guesses(row).map(span));
  element("second-hint").hidden = !row.second;
  element("doubt-hint").hidden = row.doubt === undefined;
  element("doubt-hint").textContent =
    `The label is ${row.doubt}, which the model gives a chance of ${row.likely}. ` +
    "Choose the same class to keep it, or another one.";
  element("differing").hidden = row.said.length === 0;
  element("said").replaceChildren(...row.said.map(({ by, answer }) => item(`${by}: ${answer}`)));
  if (about.task === "multilabel")
    for (const button of element("classes").children) press(button, false);
  element("number").value = "";
  showPicture(row);
}

function guesses(row) {
  const found = [];
  if (row.guess !== null) found.push(`model's guess: ${row.guess}`);
  if (row.score !== null) found.push(`uncertainty (${about.strategy}) ${row.score}`);
  return found;
}

function showPicture(row) {
  const holder = element("picture");
  const needed = [row.picture, state.next_picture].filter(Boolean);
  for (const address of pictures.keys()) if (!needed.includes(address)) pictures.delete(address);
  for (const address of needed) if (!pictures.has(address)) pictures.set(address, load(address));
  if (!row.picture) {
    const folder = `${about.folder}/queries/cycle_${about.cycle}/images`;
    holder.textContent = `There is no picture of this row in ${folder}; it can still be answered.`;
    return;
  }
  const image = pictures.get(row.picture);
  image.alt = title(row);
  holder.replaceChildren(image);
  image.decode().then(
    () => image.classList.toggle("small", Math.max(image.naturalWidth, image.naturalHeight) < 200),
    () => {
      if (holder.contains(image)) holder.textContent = "The picture of this row cannot be read.";
    },
  );
}

function load(address) {
  const image = new Image();
  image.src = address;
  return image;
}

function showDone() {
  const { num_second, num_doubts } = state;
  const opinion = num_second ? `Second opinion on ${rows(num_second)}` : "";
  const doubt = num_doubts === 1 ? "1 label in doubt" : num_doubts ? `${num_doubts} labels in doubt` : "";
  element("second").textContent = [opinion, doubt].filter(Boolean).join(", ");
  element("second").hidden = num_second + num_doubts === 0;
}

function showConfirm() {
  const { num_open, num_differing } = state;
  element("finish-now").hidden = num_differing > 0;
  element("confirm-text").textContent = num_differing
    ? `People differ on ${rows(num_differing)}; that must be settled first.`
    : `${rows(num_open)} without an answer would return to the pool.`;
}

function announce(section, done) {
  const row = section === "row" ? [title(state.row), ...guesses(state.row)] : [];
  const differ = section === "row" && state.row.said.length ? ["people differ on this row"] : [];
  element("announcer").textContent = `${done} ${[...row, ...differ].join(", ")}`.trim();
}

function span(text) {
  const made = document.createElement("span");
  made.textContent = text;
  return made;
}

function item(text) {
  const made = document.createElement("li");
  made.textContent = text;
  return made;
}

// ---- the beginning -----------------------------------------------------------------------------

function classKeys(classes) {
  const digits = classes.every((name) => /^[0-9]$/.test(name));
  return classes.map((name, n) => (digits ? name : n < 10 ? `${(n + 1) % 10}` : null));
}

function classButton(name, position, key) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(span(name));
  if (key !== null) button.setAttribute("aria-keyshortcuts", key);
  if (key !== null && key !== name) {
    const shown = document.createElement("kbd");
    shown.textContent = key;
    shown.ariaHidden = "true";
    button.append(shown);
  }
  const several = about.task === "multilabel";
  if (several) press(button, false);
  button.addEventListener("click", () =>
    several ? press(button, !isPressed(button)) : answer(position, name),
  );
  return button;
}

async function begin() {
  element("name").value = localStorage.getItem(NAME) ?? "";
  const { reply, problem } = await request("/about");
  if (problem) {
    element("problem").textContent = `The query cannot be shown: ${problem}`;
    return;
  }
  about = reply;
  element("title").textContent = `Labeling, cycle ${about.cycle}`;
  const keys = classKeys(about.classes);
  element("classes").classList.toggle("short", about.classes.every((name) => name.length === 1));
  element("classes").append(...about.classes.map((name, n) => classButton(name, n, keys[n])));
  element("number-field").hidden = about.task !== "regression";
  element("keep").hidden = !["multilabel", "regression"].includes(about.task);
  const clicks = {
    keep,
    skip: () => answer("skip", "skip"),
    invalid: () => answer("invalid", "invalid"),
    undo,
    "finish-all": finish,
    "finish-now": finish,
    "finish-early": () => confirmFinish(true),
    "go-on": () => confirmFinish(false),
    second: lookForSecond,
  };
  for (const [id, click] of Object.entries(clicks)) element(id).addEventListener("click", click);
  element("name").addEventListener("change", () => {
    localStorage.setItem(NAME, person());
    refresh();
  });
  document.addEventListener("keydown", pressed);
  await refresh();
}

begin();
