// The web client of /v1/duplex (duplex/protocol.py): microphone to server, voice and words back, and back again after a lost connection.
const RATE = 24000, RETRY_MS = [250, 500, 1000, 2000, 4000, 8000, 8000];
const find = (id) => document.getElementById(id);

let socket, context, node, microphone, token, received, tries, over, lines;

export function toPcm16(samples) { // Float32Array -> ArrayBuffer, PCM16 little endian
  const view = new DataView(new ArrayBuffer(2 * samples.length));
  samples.forEach((x, i) => view.setInt16(2 * i, Math.max(-32768, Math.min(32767, Math.round(x * 32768))), true));
  return view.buffer;
}

export function fromPcm16(buffer) { // ArrayBuffer -> Float32Array
  const view = new DataView(buffer);
  return Float32Array.from({ length: buffer.byteLength >> 1 }, (_, i) => view.getInt16(2 * i, true) / 32768);
}

function show(event) {
  const who = { heard: "you", said: "agent" }[event.type];
  if (who) {
    if (!lines[who]) {
      lines[who] = document.createElement("li");
      lines[who].textContent = `${who}: `;
      find("turns").append(lines[who]);
    }
    lines[who].append(event.text);
  } else if (event.type === "user_ended") lines.you = null;
  else if (event.type === "agent_ended") lines.agent = null;
  else if (event.type === "agent_stopped") {
    if (lines.agent && event.text) lines.agent.append(` [not said: ${event.text.trim()}]`);
    lines.agent = null;
  } else if (event.type === "error" || event.type.startsWith("session.e")) find("state").textContent = event.text;
}

function connect() {
  const key = find("key").value, url = location.origin.replace(/^http/, "ws") + "/v1/duplex";
  socket = new WebSocket(url, key ? ["duplex", `bearer.${key}`] : ["duplex"]);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => socket.send(JSON.stringify(token
    ? { type: "session.resume", token, received }
    : { type: "session.start", ...(find("instructions").value && { instructions: find("instructions").value }) }));
  socket.onmessage = ({ data }) => {
    if (typeof data !== "string") return node.port.postMessage(fromPcm16(data));
    const event = JSON.parse(data);
    if (event.type === "session.created") [token, received] = [event.resume, 0];
    if (event.type === "session.created" || event.type === "session.resumed") {
      tries = 0;
      find("state").textContent = "connected";
      return;
    }
    received++;
    over ||= event.type === "session.ended" || event.code === "gone";
    show(event);
  };
  socket.onclose = ({ code }) => {
    if (!over && token && code === 1006 && tries < RETRY_MS.length) {
      find("state").textContent = "the connection was lost; trying again";
      setTimeout(connect, RETRY_MS[tries++]);
    } else stop(code);
  };
}

async function start() {
  [token, received, tries, over, lines] = [null, 0, 0, false, {}];
  find("talk").textContent = "End";
  try {
    microphone = await navigator.mediaDevices.getUserMedia(
      { audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true } });
    context = new AudioContext({ sampleRate: RATE });
    await context.audioWorklet.addModule("/worklet.js");
  } catch (error) {
    find("state").textContent = `no microphone: ${error.message}`;
    return stop();
  }
  node = new AudioWorkletNode(context, "duplex", { outputChannelCount: [1] });
  context.createMediaStreamSource(microphone).connect(node).connect(context.destination);
  node.port.onmessage = ({ data: { heard, played_ms } }) => {
    if (socket?.readyState !== WebSocket.OPEN || !token || socket.bufferedAmount > 8 * 3840) return; // 640 ms wait already
    socket.send(toPcm16(heard));
    socket.send(JSON.stringify({ type: "playback", played_ms }));
  };
  find("hush").disabled = false;
  connect();
}

function stop(code) {
  over = true;
  if (socket?.readyState === WebSocket.OPEN) return socket.send(JSON.stringify({ type: "session.end" }));
  microphone?.getTracks().forEach((track) => track.stop());
  if (context?.state !== "closed") context?.close();
  [socket, context, microphone] = [];
  find("talk").textContent = "Talk";
  find("hush").disabled = true;
  if (code && code !== 1000) find("state").append(` (connection closed, ${code})`);
}

globalThis.document?.getElementById("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (context || microphone) stop(); else start();
});
globalThis.document?.getElementById("hush").addEventListener("click", () => socket?.send(JSON.stringify({ type: "agent.stop" })));
