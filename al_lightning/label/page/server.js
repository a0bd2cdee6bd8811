// What the page asks of the server. Each request names its tab and the version of the page.

const PATIENCE = 10_000; // milliseconds
const AGAIN = 300; // milliseconds, after the run was busy
const ATTEMPTS = 60;
const TAB = crypto.randomUUID?.() ?? `${Math.random()}`;
const VERSION = document.querySelector("meta[name=version]").content;

export const element = (id) => document.getElementById(id);

export async function request(path, body) {
  const headers = { "X-Tab": TAB, "X-Page": VERSION };
  const post = body && {
    method: "POST",
    headers: { ...headers, "Content-Type": "application/json" },
    body: JSON.stringify(body),
    keepalive: true, // a tab that is closed right now loses no answer
  };
  try {
    for (let attempt = 0; ; attempt++) {
      const signal = AbortSignal.timeout(PATIENCE);
      const response = await fetch(path, { headers, ...post, signal });
      const text = await response.text();
      if (response.ok) return { reply: JSON.parse(text) };
      if (response.status !== 503 || attempt === ATTEMPTS) return { problem: text };
      element("result").textContent = "Another process reads the answers; yours is sent again.";
      await new Promise((resolve) => setTimeout(resolve, AGAIN));
    }
  } catch {
    return {
      problem: "the server does not answer; start it again and open the address that it prints",
    };
  }
}

export function made(kind, text, properties = {}) {
  const one = document.createElement(kind);
  if (text !== null) one.textContent = text;
  return Object.assign(one, properties);
}
