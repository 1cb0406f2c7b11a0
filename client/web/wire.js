// Sound as it goes over the wire, PCM16 little endian: see duplex/serving/native/messages.py.
export const RATE = 24000, TICK_MS = 80;

export function toPcm16(samples) { // Float32Array -> ArrayBuffer
  const view = new DataView(new ArrayBuffer(2 * samples.length));
  samples.forEach((x, i) => view.setInt16(2 * i, Math.max(-32768, Math.min(32767, Math.round(x * 32768))), true));
  return view.buffer;
}

export function fromPcm16(buffer) { // ArrayBuffer -> Float32Array
  const view = new DataView(buffer);
  return Float32Array.from({ length: buffer.byteLength >> 1 }, (_, i) => view.getInt16(2 * i, true) / 32768);
}
