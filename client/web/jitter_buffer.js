// Between the network, which brings audio when it can, and a loudspeaker, which wants it now: the buffer of
// client/sound/jitter_buffer.py once more, at 24 kHz. tests/client/jitter_buffer.json holds both to the same behaviour.
export const TICK = 1920;
const MIN_TARGET = TICK, MAX_TARGET = 4 * TICK; // what is to be there before anything is played: 80 to 320 ms
const MAX_WAITING = 8 * TICK; // beyond 640 ms the oldest is dropped
const WINDOW = 125, IN_TIME = 0.95; // pieces whose lateness is remembered, 10 s; the share that shall come in time
const TOLERANCE = 480; // 20 ms are not worth a correction
const GAP_STEP = TICK, GAP_REST = 30 * 24000; // what a gap adds to the target, and until it is taken back
const JUMP = 24000; // lateness that jumps by more is a pause of the sender's or of the card's
const FADE = 120; // 5 ms
const INAUDIBLE = 1e-3;

export class JitterBuffer {
  constructor() {
    this.gaps = this.dropped = 0; // breaks in the agent's voice; samples thrown away
    this.pieces = [];
    this.waiting = 0; // their samples
    this.flows = false;
    this.lateness = [];
    this.spread = this.boost = this.sinceGap = 0;
    this.pulled = this.pushed = this.passed = 0;
    this.last = 0;
    this.audible = false;
    this.fadeOut = this.fadeIn = 0;
  }

  get target() {
    return Math.min(MIN_TARGET + this.spread + this.boost, MAX_TARGET);
  }

  push(samples) {
    this.measure(this.pulled - this.pushed);
    this.pushed += samples.length;
    this.pieces.push(samples);
    this.waiting += samples.length;
    const surplus = this.waiting - MAX_WAITING;
    if (surplus <= 0) return;
    this.skip(surplus);
    this.dropped += surplus;
    this.lateness = [];
    this.measure(this.pulled - this.pushed + samples.length);
  }

  pull(count) {
    const out = new Float32Array(count);
    if (!this.flows && this.waiting && this.excess() >= 0) this.flows = true;
    if (this.flows && !this.adapt(count)) this.play(out);
    else if (this.fadeOut) this.fadeRest(out, 0);
    this.pulled += count;
    this.sinceGap += count;
    if (this.boost && this.sinceGap >= GAP_REST) [this.boost, this.sinceGap] = [this.boost - GAP_STEP, 0];
    return out;
  }

  measure(lateness) { // how late a piece came, in samples pulled less its place; and how much they spread
    if (this.lateness.length && Math.abs(lateness - this.lateness.at(-1)) > JUMP) this.lateness = [];
    this.lateness.push(lateness);
    if (this.lateness.length > WINDOW) this.lateness.shift();
    const ordered = [...this.lateness].sort((a, b) => a - b);
    this.earliest = ordered[0];
    const spread = ordered[Math.ceil((ordered.length - 1) * IN_TIME)] - this.earliest;
    this.spread = spread > TOLERANCE ? spread + TOLERANCE : 0;
  }

  excess() { // by how much the next sample would be played later than is wanted
    return this.pulled - this.passed - this.earliest - (this.target - MIN_TARGET);
  }

  adapt(count) { // leaves out silence of which there is too much; returns whether to wait in a silence
    const excess = this.excess();
    if (this.audible || Math.abs(excess) <= TOLERANCE) return false;
    if (excess < 0) return this.waiting >= count && this.silence(count) === count;
    this.skip(this.silence(excess));
    return false;
  }

  silence(most) { // samples that cannot be heard at the beginning of what waits
    let at = 0;
    for (const piece of this.pieces) {
      for (let i = 0; i < piece.length; i++, at++) if (at === most || Math.abs(piece[i]) >= INAUDIBLE) return at;
    }
    return at;
  }

  play(out) {
    let at = 0;
    while (at < out.length && this.waiting) {
      const piece = this.pieces[0].subarray(0, out.length - at);
      out.set(piece, at);
      this.skip(piece.length);
      at += piece.length;
    }
    if (at) {
      let loudest = 0;
      for (let i = 0; i < at; i++) {
        if (this.fadeIn) out[i] *= (FADE - --this.fadeIn) / FADE;
        loudest = Math.max(loudest, Math.abs(out[i]));
      }
      this.audible = loudest > INAUDIBLE;
      this.last = out[at - 1];
    }
    if (at === out.length) return;
    this.flows = false;
    if (!this.audible) return;
    this.gaps++;
    this.boost = Math.min(this.boost + GAP_STEP, MAX_TARGET);
    this.sinceGap = 0;
    this.audible = false;
    this.fadeOut = this.fadeIn = FADE;
    this.fadeRest(out, at);
  }

  fadeRest(out, at) { // what is left of a voice that broke off
    for (; this.fadeOut && at < out.length; at++) out[at] = this.last * --this.fadeOut / FADE;
  }

  skip(count) {
    this.waiting -= count;
    this.passed += count;
    while (count) {
      const taken = Math.min(count, this.pieces[0].length);
      if (taken === this.pieces[0].length) this.pieces.shift();
      else this.pieces[0] = this.pieces[0].subarray(taken);
      count -= taken;
    }
  }
}
