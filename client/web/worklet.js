// The sound card's side of the web client: microphone samples out in ticks, the agent's samples in through a bounded
// buffer. Works at 24 kHz; posts {heard: Float32Array(1920), heardLevel, playedLevel, played_ms} for every tick.
const TICK = 1920, HELD = 8 * TICK; // at most 640 ms wait to be played; beyond, the oldest is dropped
const SPARE = 480, LATELY = 4 * 24000, SILENT = 1e-3; // what waits without need for 4 s goes, in a silence, all but 20 ms

registerProcessor("duplex", class extends AudioWorkletProcessor {
  constructor() {
    super();
    this.heard = new Float32Array(TICK);
    this.filled = 0;
    this.power = 0; // of what was played in this tick
    this.held = []; // pieces to play
    this.waiting = 0; // their samples
    this.flows = false;
    this.least = this.lately = 0; // samples that were left after each pull lately, at least; and since when, in samples
    this.passed = 0; // samples of the agent that were played or dropped: its own clock
    this.port.onmessage = ({ data }) => {
      this.held.push(data);
      this.waiting += data.length;
      while (this.waiting > HELD) this.take(this.held[0].length);
    };
  }

  take(count) { // the next samples, at most `count`, of the first piece
    const piece = this.held[0].subarray(0, count);
    if (piece.length === this.held[0].length) this.held.shift();
    else this.held[0] = this.held[0].subarray(count);
    this.waiting -= piece.length;
    this.passed += piece.length;
    return piece;
  }

  shorten() { // leaves out what was not needed lately, if it is silent
    const surplus = this.least - SPARE;
    if (this.lately < LATELY || surplus <= 0) return;
    let at = 0;
    for (const piece of this.held) {
      if (piece.subarray(0, surplus - at).some((x) => Math.abs(x) > SILENT)) return;
      if ((at += piece.length) >= surplus) break;
    }
    for (let left = surplus; left > 0;) left -= this.take(left).length;
    [this.least, this.lately] = [this.waiting, 0];
  }

  process([input], [output]) {
    const microphone = input[0], speaker = output[0];
    if (!this.flows && this.waiting >= TICK) { // after a gap a whole tick, so each leaves the cushion against the next
      this.flows = true;
      [this.least, this.lately] = [this.waiting, 0];
    }
    for (let at = 0; this.flows && at < speaker.length;) {
      if (!this.held.length) { this.flows = false; break; }
      const piece = this.take(speaker.length - at);
      speaker.set(piece, at);
      at += piece.length;
    }
    if (this.flows) {
      [this.least, this.lately] = [Math.min(this.least, this.waiting), this.lately + speaker.length];
      this.shorten();
    }
    for (let i = 0; i < speaker.length; i++) {
      this.heard[this.filled++] = microphone ? microphone[i] : 0;
      this.power += speaker[i] ** 2;
      if (this.filled === TICK) {
        const heard = this.heard.slice(), power = heard.reduce((sum, x) => sum + x * x, 0);
        this.port.postMessage({
          heard, heardLevel: Math.sqrt(power / TICK), playedLevel: Math.sqrt(this.power / TICK), played_ms: this.passed / 24,
        });
        this.filled = this.power = 0;
      }
    }
    return true;
  }
});
