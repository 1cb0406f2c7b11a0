// From one sample rate to another, piece by piece, half a millisecond late: duplex/resampling.py once more.
const CROSSINGS = 16;

function divisor(a, b) {
  return b ? divisor(b, a % b) : a;
}

export class Resampler {
  constructor(source, target) {
    const common = divisor(source, target), cutoff = Math.min(1, target / source) * 0.92;
    [this.phases, this.step, this.same] = [target / common, source / common, source === target];
    this.half = Math.ceil(CROSSINGS / cutoff);
    this.kernels = Array.from({ length: this.phases }, (_, phase) => {
      const kernel = Float32Array.from({ length: 2 * this.half }, (_, tap) => {
        const time = tap - this.half + 1 - phase / this.phases, angle = Math.PI * cutoff * time;
        const window = Math.max(0, Math.cos(Math.PI * time / (2 * this.half))) ** 2;
        return cutoff * (angle ? Math.sin(angle) / angle : 1) * window;
      });
      const sum = kernel.reduce((total, x) => total + x, 0);
      return kernel.map((x) => x / sum);
    });
    this.waiting = new Float32Array(this.half - 1);
    this.phase = 0; // of the next sample to come out
  }

  process(samples) {
    if (this.same) return samples;
    const waiting = new Float32Array(this.waiting.length + samples.length), taps = 2 * this.half;
    waiting.set(this.waiting);
    waiting.set(samples, this.waiting.length);
    const room = waiting.length - taps + 1, count = Math.max(0, Math.ceil((room * this.phases - this.phase) / this.step));
    const out = new Float32Array(count);
    let place = this.phase;
    for (let i = 0; i < count; i++, place += this.step) {
      const start = Math.floor(place / this.phases), kernel = this.kernels[place % this.phases];
      let sum = 0;
      for (let tap = 0; tap < taps; tap++) sum += waiting[start + tap] * kernel[tap];
      out[i] = sum;
    }
    this.waiting = waiting.subarray(Math.floor(place / this.phases));
    this.phase = place % this.phases;
    return out;
  }
}
