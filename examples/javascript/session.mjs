// Login, and the conversations of who is logged in, over core's REST interface.

/** The password of the demonstration's people. */
export const DEMO_PASSWORD = "correct horse battery staple";

/** Calls core; refusals are problem documents (RFC 9457) with a stable `code`. */
async function call(core, method, path, { token, body } = {}) {
  const headers = {};
  if (token) headers.authorization = `Bearer ${token}`;
  if (body) headers["content-type"] = "application/json";
  const answer = await fetch(core + path, { method, headers, body: body && JSON.stringify(body) });
  const content = await answer.json();
  if (!answer.ok) throw new Error(`${method} ${path}: ${content.code}: ${content.detail}`);
  return content;
}

/** Logs in; gives `{ user, access_token, … }`. */
export function login(core, name, password) {
  return call(core, "POST", "/auth/login", { body: { login: name, password } });
}

/** The id of a conversation of mine, by its name. Ids are decimal strings: they do not fit a number. */
export async function conversationNamed(core, token, name) {
  const { items } = await call(core, "GET", "/api/v1/conversations?limit=100", { token });
  const found = items.find((conversation) => conversation.name === name);
  if (!found) throw new Error(`you are in no conversation named ${name}`);
  return found.id;
}
