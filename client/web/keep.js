// What is kept of a conversation: both voices as sound, the turns over a reload, and files to download.
import { RATE, toPcm16 } from "./wire.js";

const MOST_TICKS = 30 * 60 * 12.5; // half an hour, 173 MB; then the oldest goes

export class Tracks { // both voices in step, on the sound card's clock
  constructor() {
    [this.you, this.agent] = [[], []]; // ArrayBuffers of PCM16
    this.ticks = 0; // that came, also those that are gone
  }

  add(heard, played) { // Float32Arrays; returns them as they are kept
    const tick = [toPcm16(heard), toPcm16(played)];
    this.append(...tick);
    return tick;
  }

  append(you, agent) {
    this.you.push(you);
    this.agent.push(agent);
    if (++this.ticks > MOST_TICKS) [this.you, this.agent].forEach((track) => track.shift());
  }

  get seconds() {
    return this.ticks * 0.08;
  }

  wav(from = 0, to = this.seconds) { // Blob: stereo, you left, the agent right; of these seconds of the call
    const gone = this.ticks - this.you.length, at = (seconds) => Math.max(0, Math.round(seconds / 0.08) - gone);
    const [left, right] = [this.you, this.agent].map((track) => joined(track.slice(at(from), at(to)))), frames = left.length;
    const data = new Int16Array(2 * frames);
    for (let i = 0; i < frames; i++) [data[2 * i], data[2 * i + 1]] = [left[i], right[i] ?? 0];
    return new Blob([header(data.byteLength), data], { type: "audio/wav" });
  }
}

function joined(buffers) {
  const all = new Int16Array(buffers.reduce((sum, buffer) => sum + buffer.byteLength / 2, 0));
  let at = 0;
  for (const buffer of buffers) {
    all.set(new Int16Array(buffer), at);
    at += buffer.byteLength / 2;
  }
  return all;
}

function header(bytes) {
  const view = new DataView(new ArrayBuffer(44)), word = (at, text) => [...text].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  word(0, "RIFF"); word(8, "WAVEfmt "); word(36, "data");
  [[4, 36 + bytes], [16, 16], [24, RATE], [28, 4 * RATE], [40, bytes]].forEach(([at, value]) => view.setUint32(at, value, true));
  [[20, 1], [22, 2], [32, 4], [34, 16]].forEach(([at, value]) => view.setUint16(at, value, true));
  return view.buffer;
}

export function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

export function stamp() { // 2026-11-30-1912
  const two = (x) => String(x).padStart(2, "0"), now = new Date();
  return `${now.getFullYear()}-${two(now.getMonth() + 1)}-${two(now.getDate())}-${two(now.getHours())}${two(now.getMinutes())}`;
}

// The tab's memory, for a reload; where the browser gives none, nothing is kept.

export function store(name, value) {
  try {
    sessionStorage.setItem(`duplex.${name}`, JSON.stringify(value));
  } catch { /* private window, or full */ }
}

export function restore(name) {
  try {
    return JSON.parse(sessionStorage.getItem(`duplex.${name}`));
  } catch {
    return null;
  }
}
