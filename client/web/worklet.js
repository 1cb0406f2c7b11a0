// The sound card's side of the page: the microphone out in ticks of 80 ms, the agent's samples in through the jitter
// buffer; 24 kHz on that side, the device's own rate on the other. Posts one `beat` for each tick:
// {heard: Float32Array(1920), played: Float32Array, heardLevel, playedLevel, passed_ms, waiting_ms, target_ms, gaps, dropped_ms}.
import { JitterBuffer, TICK } from "./jitter_buffer.js";
import { Resampler } from "./resample.js";

const RATE = 24000, PIECE = 60; // samples that go from the buffer to the loudspeaker at once: 2.5 ms

function level(samples) { // root mean square
  return Math.sqrt(samples.reduce((sum, x) => sum + x * x, 0) / Math.max(1, samples.length));
}

function append(samples, more) {
  const joined = new Float32Array(samples.length + more.length);
  joined.set(samples);
  joined.set(more, samples.length);
  return joined;
}

registerProcessor("duplex", class extends AudioWorkletProcessor {
  constructor() {
    super();
    this.buffer = new JitterBuffer();
    this.in = new Resampler(sampleRate, RATE);
    this.out = new Resampler(RATE, sampleRate);
    this.heard = this.played = this.ready = new Float32Array(0); // at 24 kHz, at 24 kHz, at the device's rate
    this.port.onmessage = ({ data }) => this.buffer.push(data);
  }

  process([input], [output]) {
    const frames = output[0].length;
    while (this.ready.length < frames) {
      const piece = this.buffer.pull(PIECE);
      this.played = append(this.played, piece);
      this.ready = append(this.ready, this.out.process(piece));
    }
    for (const channel of output) channel.set(this.ready.subarray(0, frames));
    this.ready = this.ready.slice(frames);
    this.heard = append(this.heard, this.in.process(input[0] ?? new Float32Array(frames))); // without a microphone: silence
    if (this.heard.length >= TICK) this.beat();
    return true;
  }

  beat() {
    const heard = this.heard.slice(0, TICK), { played, buffer } = this;
    this.heard = this.heard.slice(TICK);
    this.played = new Float32Array(0);
    this.port.postMessage({
      heard, played, heardLevel: level(heard), playedLevel: level(played), passed_ms: buffer.passed / 24,
      waiting_ms: buffer.waiting / 24, target_ms: buffer.target / 24, gaps: buffer.gaps, dropped_ms: buffer.dropped / 24,
    });
  }
});
