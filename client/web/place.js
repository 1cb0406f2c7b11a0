// Where a session opens: at the server of this page, or where its director says (duplex/serving/scale/director.py).

const own = () => location.origin.replace(/^http/, "ws") + "/v1/duplex";

// asked: {}, {ticket} of who waits in line, or {token} of a session that goes on. Gives what the director answered:
// {url, token}, {ticket, place, wait_s, retry_s}, {error} or {gone}; without an answer the websocket itself tells why.
export async function place(key, asked) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const answer = await fetch("/v1/sessions", { method: "POST", headers, body: JSON.stringify(asked) }).catch(() => null);
  const found = await answer?.json().catch(() => null);
  if (answer?.status === 200 && found?.url) return { url: new URL(found.url, own()).href, token: found.token };
  if (answer?.status === 410) return { gone: true };
  return answer?.status === 202 || found?.error ? found : { url: own(), token: "" };
}

// What who waits is told.
export const inLine = ({ place, wait_s }) => `Number ${place} in the line${wait_s === null ? "" : `, about ${wait_s} s`}.`;
