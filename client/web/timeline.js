// Who speaks when, the last twelve seconds: your voice above the line, the agent's below, words at their sound.
import { clock } from "./conversation.js";

const SECONDS = 12, AHEAD = 1.5; // seconds to be seen; how much of them is still to come
const SHIFT = 40; // pixels by which a word may give way
const SIDE = { you: "you", sound: "you", agent: "agent", backchannel: "agent" }; // above the line or below it
const PEOPLE = ["you", "you", "other", "third", "fourth"]; // colours by the speaker's number

const colorOf = ({ who, speaker = 1 }) => (who === "you" ? PEOPLE[Math.min(speaker, 4)] : who === "sound" ? "soft" : "agent");

export class Timeline {
  constructor(canvas) {
    this.canvas = canvas;
    this.levels = []; // {at, you, agent}: one for each tick, levels from 0 to 1
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
    this.now = 0;
  }

  add(at, you, agent) {
    this.levels.push({ at, you, agent });
    if (this.levels.length > 400) this.levels.splice(0, 200);
    [this.now, this.cameAt] = [at, performance.now()];
  }

  draw(turns) { // at each frame; once a second where motion is not wanted
    const moved = this.still.matches ? 0 : Math.min(0.2, (performance.now() - this.cameAt) / 1000);
    const now = this.still.matches ? Math.floor(this.now) : this.now + moved;
    if (this.still.matches && now === this.drawn) return;
    this.drawn = now;
    const { canvas } = this, scale = devicePixelRatio || 1, { clientWidth: width, clientHeight: height } = canvas;
    if (canvas.width !== width * scale || canvas.height !== height * scale) [canvas.width, canvas.height] = [width * scale, height * scale];
    const context = canvas.getContext("2d"), styles = getComputedStyle(canvas);
    const color = (name) => styles.getPropertyValue(`--${name}`);
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, height);
    const seconds = Math.min(SECONDS, Math.max(5, width / 60)); // fewer on a phone
    const x = (at) => width - (now + AHEAD - at) * width / seconds, middle = height / 2, lanes = height < 120 ? 1 : 2, tall = middle - 12 - 14 * lanes;
    context.font = `12px ${styles.fontFamily}`;
    this.#seconds(context, { x, now, seconds, middle, height }, color);
    this.#voices(context, turns, { x, now, seconds, middle, tall, step: 0.08 * width / seconds }, color);
    this.#words(context, turns, { x, now, seconds, middle, tall, lanes }, color);
    context.fillStyle = color("soft");
    context.fillRect(x(now), 6, 1, height - 12);
  }

  #seconds(context, { x, now, seconds, middle, height }, color) {
    const font = context.font;
    context.font = font.replace("12px", "10px");
    context.fillStyle = color("line");
    context.fillRect(0, middle, x(now), 1);
    for (let at = Math.max(0, Math.ceil(now - seconds)); at <= now; at++) context.fillRect(x(at), middle - 3, 1, 7);
    for (let at = Math.max(0, Math.ceil((now - seconds) / 5) * 5); at <= now; at += 5) {
      context.fillStyle = color("line");
      context.fillRect(x(at), 8, 1, height - 16);
      context.fillStyle = color("soft");
      if (x(at) >= 0) context.fillText(clock(at), x(at) + 4, height - 2);
    }
    context.font = font;
  }

  #voices(context, turns, { x, now, seconds, middle, tall, step }, color) {
    const yours = turns.slice(-16).filter(({ who, speaker }) => who === "you" && speaker > 1);
    for (const { at, you, agent } of this.levels) {
      if (at < now - seconds) continue;
      const left = x(at) - step, wide = Math.max(1, step - 1);
      if (you > 0.35 && agent > 0.35) { // both
        context.fillStyle = color("both");
        context.fillRect(left, middle - tall, step, 2 * tall);
      }
      const turn = yours.find(({ start, end, open }) => at > start && (open || at < end + 0.2));
      context.fillStyle = color(turn ? colorOf(turn) : "you");
      context.fillRect(left, middle - 1 - you * tall, wide, you * tall);
      context.fillStyle = color("agent");
      context.fillRect(left, middle + 2, wide, agent * tall);
    }
  }

  #words(context, turns, { x, now, seconds, middle, tall, lanes }, color) {
    const free = { you: Array(lanes).fill(-1e9), agent: Array(lanes).fill(-1e9) };
    for (const turn of turns.filter(({ note }) => note !== "typed").slice(-8)) {
      const side = SIDE[turn.who];
      if (!side) continue;
      context.fillStyle = color(colorOf(turn));
      for (const { at, text } of turn.words) {
        if (at < now - seconds - 1) continue;
        const wide = context.measureText(text).width;
        const lane = free[side].indexOf(Math.min(...free[side]));
        const wanted = side === "you" ? x(at) - wide : x(at); // a word heard is written down when it is over
        const left = Math.max(wanted, free[side][lane] + 4);
        if (left - wanted > SHIFT) continue;
        free[side][lane] = left + wide;
        context.fillText(text, left, side === "you" ? middle - tall - 6 - 14 * lane : middle + tall + 15 + 14 * lane);
      }
      this.#latency(context, turn, { x, middle }, color);
      if (turn.unsaid) { // where it broke off
        context.fillStyle = color("bad");
        context.fillRect(x(turn.end), middle + 2, 2, tall);
      }
    }
  }

  #latency(context, turn, { x, middle }, color) { // a bracket from the end of your voice to the answer
    if (turn.latency === null || turn.voiceAt === undefined) return;
    const right = x(turn.voiceAt), left = x(turn.voiceAt - turn.latency), text = `${turn.latency.toFixed(2)} s`;
    context.fillStyle = color("soft");
    context.fillRect(left, middle - 12, right - left, 1);
    context.fillRect(left, middle - 12, 1, 8);
    context.fillRect(right, middle - 12, 1, 8);
    context.fillText(text, (left + right - context.measureText(text).width) / 2, middle - 17);
  }
}
