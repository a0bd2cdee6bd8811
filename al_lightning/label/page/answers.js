// The list of answers: found by words, opened, corrected, taken back.

import { element, made, request } from "/server.js";
import { person } from "/names.js";

let open; // called with the index of a row
let takeBack;
let latest = 0;

export function listen(whenOpened, whenTakenBack) {
  [open, takeBack] = [whenOpened, whenTakenBack];
  element("words").addEventListener("input", () => load());
  element("only").addEventListener("change", () => load());
  element("answers-more").addEventListener("click", () =>
    load(element("answers-rows").children.length),
  );
}

export async function load(start = 0) {
  const number = ++latest;
  const asked = { by: person(), words: element("words").value, only: element("only").value, start };
  const { reply, problem } = await request(`/answers?${new URLSearchParams(asked)}`);
  if (number !== latest) return;
  element("problem").textContent = problem ? `The answers cannot be shown: ${problem}` : "";
  if (problem) return;
  const lines = reply.rows.map(line);
  if (start) element("answers-rows").append(...lines);
  else element("answers-rows").replaceChildren(...lines);
  const num = element("answers-rows").children.length;
  element("answers-text").textContent = reply.num ? `${num} of ${reply.num} rows, the latest first` : "no such row";
  element("answers-more").hidden = num >= reply.num;
}

function line(row) {
  const made_row = made("tr", null);
  const title = row.name ?? `index ${row.index}`;
  const name = made("td", null);
  if (row.picture) name.append(made("img", null, { src: row.picture, alt: "", loading: "lazy" }));
  name.append(made("span", title));
  if (!row.is_open) name.append(made("small", ` cycle ${row.cycle}`));
  const said = made("td", null);
  for (const { by, answer } of row.said) said.append(made("span", `${by}: ${answer}`, { className: "opinion" }));
  const buttons = made("td", null);
  const opener = made("button", "Open", { type: "button", ariaLabel: `Open ${title}` });
  opener.addEventListener("click", () => open(row.index));
  buttons.append(opener);
  if (row.yours && row.is_open) {
    const back = made("button", "Take back", { type: "button", ariaLabel: `Take back ${title}` });
    back.addEventListener("click", () => takeBack(row.index));
    buttons.append(back);
  }
  made_row.append(name, said, made("td", row.holds ?? "people differ"), buttons);
  return made_row;
}
