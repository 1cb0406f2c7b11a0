// The socket of one conversation at /v1/duplex: it takes a cut session up again, begins a new one where that is gone,
// waits where the server is full, or in the line of a director, and says why where nothing helps.
import { inLine, place } from "./place.js";
import { fromPcm16, toPcm16 } from "./wire.js";

const CUT = [1001, 1006, 1012]; // how a connection closes that may come back: broken, or a server or proxy restarts
const RESUMED_MS = 30000, RESTARTED_MS = 120000; // for so long after the first cut
const RETRY_MS = [250, 500, 1000, 2000, 4000], FULL_MS = 10000;
const WAITING_BYTES = 8 * 3840; // 640 ms of microphone not yet on the wire: more is left out
const QUIET_MS = 2000; // so long nothing from the server is worth telling

export const NO_SERVER = "No server answers; start it with: duplex serve";

// Ends a session whose page was left without a word, as Firefox leaves it; else its place stays taken for half a minute.
export function leave({ url, token, received }) {
  const socket = new WebSocket(url, ["duplex"]);
  socket.onopen = () => socket.send(JSON.stringify({ type: "session.resume", token, received }));
  socket.onmessage = ({ data }) => {
    if (typeof data === "string" && JSON.parse(data).type === "session.resumed") socket.send(JSON.stringify({ type: "session.end" }));
  };
}

// What to do when the connection has closed: end, explain, full, resume or restart.
export function afterClose({ code, error, ending, token, begun, over, sinceMs }) {
  if (ending) return "end";
  if (error === "full" || code === 1013) return "full";
  if (token && !over && error !== "gone" && CUT.includes(code) && sinceMs < RESUMED_MS) return "resume";
  if (begun && (error === "gone" || CUT.includes(code)) && sinceMs < RESTARTED_MS) return "restart";
  return "explain";
}

export class Connection {
  // start(): fields of session.start; context(): words for a session that follows a lost one; on: {audio, event, sent, change, begin, end}
  constructor({ key, start, context, on }) {
    Object.assign(this, { key, start, context, on });
    Object.assign(this, { socketState: "connecting", token: null, begun: false, ending: false, tries: 0, cutAt: 0, lostTicks: 0, line: "", kept: new Map() });
    this.online = () => this.timer && this.#connect();
    addEventListener("online", this.online);
    this.#connect();
  }

  get state() {
    const quiet = this.socketState === "open" && performance.now() - this.heardAt > QUIET_MS;
    return quiet ? "quiet" : this.socketState;
  }

  get left() { // what `leave` takes
    return this.token && !this.over ? { url: this.url, token: this.token, received: this.received } : null;
  }

  send(message) { // whether it could be sent
    if (this.socketState !== "open" || this.socket.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify(message));
    if (message.type !== "playback") this.on.sent(message);
    return true;
  }

  sendOrKeep(message) { // what is chosen while the connection is cut counts when it is back
    if (!this.send(message)) this.kept.set(message.type, message);
  }

  sendAudio(samples) {
    if (this.socketState !== "open" || this.socket.readyState !== WebSocket.OPEN) return;
    if (this.socket.bufferedAmount <= WAITING_BYTES) this.socket.send(toPcm16(samples));
  }

  finish() { // asks the server for its last word
    this.ending = true;
    if (this.socketState === "open") this.send({ type: "session.end" });
    else this.close();
  }

  close() {
    this.ending = this.closed = true;
    clearTimeout(this.timer);
    removeEventListener("online", this.online);
    this.socket?.close(1000); // any other code would keep the place for half a minute
  }

  #connect() {
    clearTimeout(this.timer);
    this.timer = this.error = null;
    if (this.token) this.#open();
    else this.#place();
  }

  async #place() { // a new session: where?
    const found = await place(this.key, this.ticket ? { ticket: this.ticket } : {});
    if (this.closed) return;
    if (found.error) return this.#change("failed"), this.on.end(found.error);
    this.ticket = found.ticket;
    this.line = found.ticket ? inLine(found) : "";
    if (found.ticket) return this.timer = setTimeout(() => this.#connect(), 1000 * found.retry_s), this.#change("full");
    [this.url, this.placed] = [found.url, found.token];
    this.#open();
  }

  async #again() { // after a cut
    this.timer = null;
    if (this.token && this.placed && (await place(this.key, { token: this.placed })).gone) {
      this.token = null; // its server is gone: another one goes on
      this.#change("restarting");
    }
    if (!this.closed) this.#connect();
  }

  #open() {
    let socket;
    try {
      socket = this.socket = new WebSocket(this.url, this.key ? ["duplex", `bearer.${this.key}`] : ["duplex"]);
    } catch { // a key with signs that a header cannot hold
      return this.#change("failed"), this.on.end("The key has signs that a browser cannot send");
    }
    socket.binaryType = "arraybuffer";
    socket.onopen = () => socket.send(JSON.stringify(this.token
      ? { type: "session.resume", token: this.token, received: this.received }
      : { type: "session.start", ...this.start() }));
    socket.onmessage = ({ data }) => {
      if (socket !== this.socket || this.closed) return;
      this.heardAt = performance.now();
      if (typeof data === "string") return this.#receive(JSON.parse(data));
      this.ticks++;
      this.on.audio(fromPcm16(data));
    };
    socket.onclose = ({ code }) => socket === this.socket && !this.closed && this.#closed(code);
  }

  #receive(event) {
    if (event.type === "session.created") {
      [this.token, this.received, this.ticks, this.lostTicks, this.over] = [event.resume, 0, 0, 0, false];
      const words = this.begun || this.carries ? this.context() : "";
      const again = this.begun;
      this.begun = true;
      this.kept.clear(); // it began with what is chosen now
      this.#opened();
      this.on.begin(again);
      if (words) this.send({ type: "text", role: "system", text: words });
      return;
    }
    if (event.type === "session.resumed") {
      this.#opened();
      this.kept.forEach((message) => this.send(message));
      return this.kept.clear();
    }
    if (this.token) this.received++;
    this.over ||= event.type === "session.ended";
    if (event.type === "error" && !["bad_message", "refused", "too_much"].includes(event.code)) this.error = event.code;
    if (event.type === "session.ended" || this.error) this.why = event.text ?? this.why;
    // An event follows the audio of its tick: what is missing then was lost on the way.
    if ("tick" in event) this.lostTicks = Math.max(this.lostTicks, event.tick + 1 - this.ticks);
    this.on.event(event);
  }

  #opened() {
    [this.tries, this.cutAt, this.why, this.heardAt] = [0, 0, null, performance.now()];
    this.#change("open");
  }

  #closed(code) {
    this.cutAt ||= performance.now();
    const { error, ending, token, begun, over } = this;
    const next = afterClose({ code, error, ending, token, begun, over, sinceMs: performance.now() - this.cutAt });
    if (next === "end") return this.on.end("");
    if (next === "explain") return void this.#explain(code);
    if (next !== "resume") this.token = null;
    if (next === "full") this.cutAt = 0;
    this.#change({ resume: "cut", restart: "restarting", full: "full" }[next]);
    const wait = next === "full" ? FULL_MS : RETRY_MS[Math.min(this.tries++, RETRY_MS.length - 1)];
    this.timer = setTimeout(() => this.#again(), wait);
  }

  async #explain(code) { // a browser does not tell what a refused handshake said, so ask in plain HTTP
    let why = this.why ?? (code === 1006 ? "" : `The server closed the connection (${code})`), wrongKey = false;
    if (!why) {
      const headers = this.key ? { Authorization: `Bearer ${this.key}` } : {};
      const { status } = await fetch("/v1/stats", { headers }).catch(() => ({}));
      wrongKey = status === 401;
      if (!status) why = NO_SERVER;
      else if (wrongKey) why = this.key ? "The key is wrong" : "The server wants a key";
      else why = this.begun ? "The connection was lost" : await refusal(headers);
    }
    if (this.closed) return;
    this.#change("failed");
    this.on.end(why, wrongKey);
  }

  #change(state) {
    this.socketState = state;
    this.on.change();
  }
}

async function refusal(headers) { // what the server, or a proxy before it, has against this page's websockets
  const answer = await fetch("/v1/duplex", { method: "POST", headers }).catch(() => null);
  const text = (await answer?.text().catch(() => ""))?.trim() ?? "";
  const isTold = answer?.status === 403 || text.includes("proxy");
  return `The server did not take the connection; ${isTold ? text : "its log says why"}`;
}
