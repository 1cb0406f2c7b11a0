// The web client of /v1/duplex (duplex/serving/native.py): microphone to server, voice and words
// back, and back again after a lost connection.
const RATE = 24000, TICK_MS = 80, RETRY_MS = [250, 500, 1000, 2000, 4000, 8000, 8000];
const CUT = [1001, 1006, 1012]; // how a connection closes whose session can be taken up again: broken, or a proxy restarts
const WAITING_BYTES = 8 * 3840; // 640 ms of microphone not yet on the wire: more is left out
const SILENT_MS = 3000; // so long nothing from the server is worth telling
const NOTE_MS = 5000, END_MS = 2000;
const find = (id) => document.getElementById(id);

let call = null; // the conversation that is going on

export function toPcm16(samples) { // Float32Array -> ArrayBuffer, PCM16 little endian
  const view = new DataView(new ArrayBuffer(2 * samples.length));
  samples.forEach((x, i) => view.setInt16(2 * i, Math.max(-32768, Math.min(32767, Math.round(x * 32768))), true));
  return view.buffer;
}

export function fromPcm16(buffer) { // ArrayBuffer -> Float32Array
  const view = new DataView(buffer);
  return Float32Array.from({ length: buffer.byteLength >> 1 }, (_, i) => view.getInt16(2 * i, true) / 32768);
}

// What is to be seen

function say(tone, text) { // tone: idle, wait, live, bad
  const state = find("state"), shown = text[0].toUpperCase() + text.slice(1);
  if (state.textContent !== shown) state.textContent = shown; // a screen reader says each change once
  state.dataset.tone = tone;
}

function sayWhoSpeaks() {
  const { you, agent } = call.lines;
  if (call.muted) say("wait", agent ? "The agent speaks; you are muted" : "You are muted");
  else say("live", you && agent ? "Both speak" : agent ? "The agent speaks" : you ? "You speak" : "Listening");
}

function note(text) {
  find("note").textContent = text;
  clearTimeout(note.timer);
  note.timer = setTimeout(() => { find("note").textContent = ""; }, NOTE_MS);
}

function level(id, rms) { // the loudest 50 dB
  find(id).style.setProperty("--level", Math.max(0, Math.min(1, 1 + Math.log10(rms + 1e-9) / 2.5)).toFixed(3));
}

function turn(who) { // the open turn of "you" or "agent"; .now: heard or spoken, .ahead: decided, not spoken yet
  if (!call.lines[who]) {
    const line = document.createElement("li"), name = document.createElement("b"), text = document.createElement("p");
    [line.className, name.textContent] = [`${who} open`, who === "you" ? "You" : "Agent"];
    [line.now, line.ahead] = [document.createElement("span"), document.createElement("span")];
    line.ahead.className = "ahead";
    text.append(line.now, line.ahead);
    line.append(name, text);
    find("turns").append(line);
    find("hint").hidden = true;
    call.lines[who] = line;
  }
  return call.lines[who];
}

function close(who, last) { // ends the open turn, with an element to put at its end
  const line = call.lines[who];
  delete call.lines[who];
  if (!line) return;
  line.classList.remove("open");
  if (last) line.ahead.replaceChildren(last);
  else line.ahead.className = "";
  if (!line.querySelector("p").textContent.trim()) line.remove();
}

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

function show(event) {
  const follow = find("scroll").scrollHeight - find("scroll").scrollTop - find("scroll").clientHeight < 60;
  const text = event.text ?? "";
  switch (event.type) {
    case "user_started": turn("you"); break;
    case "heard": turn("you").now.append(text); break;
    case "corrected": turn("you").now.textContent = text; break;
    case "user_ended": close("you", event.to === "other" && element("small", " (not for the agent)")); break;
    case "agent_started": turn("agent"); break;
    case "said": turn("agent").ahead.append(text); break;
    case "spoken": {
      const { now, ahead } = turn("agent"), at = ahead.textContent.indexOf(text);
      if (at < 0) break;
      now.append(ahead.textContent.slice(0, at + text.length));
      ahead.textContent = ahead.textContent.slice(at + text.length);
      break;
    }
    case "agent_ended": close("agent"); break;
    case "agent_stopped": {
      const line = call.lines.agent, said = line ? line.now.textContent + line.ahead.textContent : "";
      if (line && said.endsWith(text)) line.now.textContent = said.slice(0, said.length - text.length);
      close("agent", text.trim() ? element("s", text) : element("small", " (stopped)"));
      break;
    }
    case "lag":
      if (event.late_ticks > 3) note("The server is slower than speech just now: answers come late.");
      else if (event.silence_ms + event.dropped_ms >= 240) note("Your voice reaches the server late, with gaps.");
      else if (event.unread_ticks) note("Some of the agent's voice was lost on the way.");
      break;
    case "error":
      if (["bad_message", "refused"].includes(event.code)) note(event.text);
      else call.why = event.text;
      break;
    case "session.ending": note(`${event.text}: the conversation ends with this turn.`); break;
    case "session.ended": call.why ??= event.text;
  }
  if (follow) find("scroll").scrollTop = find("scroll").scrollHeight;
}

// The connection

function connect() {
  const key = find("key").value, mine = call, url = location.origin.replace(/^http/, "ws") + "/v1/duplex";
  const socket = call.socket = new WebSocket(url, key ? ["duplex", `bearer.${key}`] : ["duplex"]);
  const instructions = find("instructions").value.trim();
  socket.binaryType = "arraybuffer";
  socket.onopen = () => socket.send(JSON.stringify(mine.token
    ? { type: "session.resume", token: mine.token, received: mine.received }
    : { type: "session.start", voice: find("voice").value, ...(instructions && { instructions }) }));
  socket.onmessage = ({ data }) => {
    if (call !== mine) return;
    mine.heardAt = performance.now();
    if (typeof data === "string") receive(JSON.parse(data));
    else {
      mine.ticks++;
      mine.node.port.postMessage(fromPcm16(data));
    }
    if (!mine.ending) sayWhoSpeaks();
  };
  socket.onclose = ({ code }) => {
    if (call !== mine) return;
    const again = mine.token && !mine.over && CUT.includes(code) && mine.tries < RETRY_MS.length;
    if (!again) return void explain(code);
    say("wait", "Connection lost; trying again");
    mine.timer = setTimeout(connect, RETRY_MS[mine.tries++]);
  };
}

function receive(event) {
  if (event.type === "session.created") [call.token, call.received] = [event.resume, 0];
  if (event.type === "session.created" || event.type === "session.resumed") {
    call.tries = 0;
    return;
  }
  call.received++;
  call.over ||= event.type === "session.ended" || event.code === "gone";
  // an event follows the audio of its tick: what is missing then was lost on the way, and the session's clock is ahead of it
  if ("tick" in event) call.lost = Math.max(call.lost, event.tick + 1 - call.ticks);
  show(event);
}

async function explain(code) { // why the connection has closed, when the server has not said it
  const mine = call, key = find("key").value;
  let why = call.why;
  if (!why && code !== 1006) why = `the server closed the connection (${code})`;
  if (!why && call.token) why = "the connection was lost";
  if (!why) { // a browser does not tell what a refused handshake said, so ask in plain HTTP
    const { status } = await fetch("/v1/stats", { headers: key ? { Authorization: `Bearer ${key}` } : {} }).catch(() => ({}));
    why = !status ? "no server answers" : status === 401 ? (key ? "the key is wrong" : "the server wants a key")
      : "the server did not take the connection";
    if (status === 401) {
      find("settings").open = true;
      find("key").focus();
    }
  }
  if (call === mine) stop(call.ending || code === 1000 ? "idle" : "bad", call.ending ? "The conversation has ended" : why);
}

// Start and stop

const MICROPHONE = {
  NotAllowedError: "the browser may not use the microphone; allow it for this page and start again",
  NotFoundError: "there is no microphone",
  NotReadableError: "another program holds the microphone",
};

async function start() {
  const mine = call = { lines: {}, token: null, received: 0, ticks: 0, lost: 0, tries: 0, heardAt: performance.now() };
  find("turns").replaceChildren();
  find("talk").textContent = "End";
  say("wait", "Asking for the microphone");
  if (!navigator.mediaDevices) return stop("bad", "browsers give the microphone only to pages of this computer or over https");
  try {
    mine.context = new AudioContext({ sampleRate: RATE });
    mine.microphone = await navigator.mediaDevices.getUserMedia(
      { audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true } });
    await mine.context.audioWorklet.addModule("/worklet.js");
    mine.node = new AudioWorkletNode(mine.context, "duplex", { outputChannelCount: [1] });
    mine.context.createMediaStreamSource(mine.microphone).connect(mine.node).connect(mine.context.destination);
  } catch (error) {
    if (call === mine) stop("bad", MICROPHONE[error.name] ?? `no sound: ${error.message}`);
    return release(mine);
  }
  if (call !== mine) return release(mine); // ended while the browser was asking
  mine.microphone.getTracks().forEach((track) => { track.onended = () => call === mine && note("The microphone is gone."); });
  mine.node.port.onmessage = ({ data }) => call === mine && beat(data);
  find("mute").disabled = find("hush").disabled = false;
  say("wait", "Connecting");
  connect();
}

function beat({ heard, heardLevel, playedLevel, played_ms }) { // every tick of the sound card
  const { socket, context } = call;
  level("you", heardLevel);
  level("agent", playedLevel);
  if (socket.readyState !== WebSocket.OPEN || !call.token) return;
  if (performance.now() - call.heardAt > SILENT_MS) say("wait", "Nothing comes from the server; waiting");
  if (socket.bufferedAmount > WAITING_BYTES) return;
  const out = Math.max(0, Math.floor(played_ms - 1000 * (context.outputLatency || 0))); // what has left the loudspeaker
  socket.send(toPcm16(heard));
  socket.send(JSON.stringify({ type: "playback", played_ms: out + call.lost * TICK_MS }));
}

function finish() { // the server may say its last word; if it does not, the conversation ends without it
  if (call.ending || !call.token || call.socket?.readyState !== WebSocket.OPEN) return stop("idle", "The conversation has ended");
  call.ending = true;
  say("wait", "Ending");
  call.socket.send(JSON.stringify({ type: "session.end" }));
  const mine = call;
  mine.timer = setTimeout(() => call === mine && stop("idle", "The conversation has ended"), END_MS);
}

function stop(tone, text) {
  const { lines, ...ended } = call;
  for (const line of Object.values(lines)) line.classList.remove("open");
  call = null;
  release(ended);
  level("you", 0);
  level("agent", 0);
  find("talk").textContent = "Start talking";
  find("mute").disabled = find("hush").disabled = true;
  find("mute").setAttribute("aria-pressed", false);
  find("note").textContent = "";
  say(tone, text);
}

function release({ timer, socket, microphone, context }) {
  clearTimeout(timer);
  socket?.close(1000); // any other code would keep the place for half a minute
  microphone?.getTracks().forEach((track) => track.stop());
  if (context && context.state !== "closed") context.close();
}

function mute() {
  call.muted = !call.muted;
  call.microphone.getTracks().forEach((track) => { track.enabled = !call.muted; }); // silence goes on in time
  find("mute").setAttribute("aria-pressed", call.muted);
  sayWhoSpeaks();
}

function hush() {
  if (call.socket?.readyState === WebSocket.OPEN && call.token) call.socket.send(JSON.stringify({ type: "agent.stop" }));
}

if (globalThis.document) {
  find("form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (call) finish(); else start();
  });
  find("mute").addEventListener("click", mute);
  find("hush").addEventListener("click", hush);
  addEventListener("pagehide", () => call?.socket?.close(1000));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea")) return;
    if (event.key === "m") find("mute").click();
    if (event.key === "Escape") find("hush").click();
  });
}
