// Runs the page's pure modules under node, for tests/client/page/test_page_modules.py: JSON in, JSON out.
import { readFileSync } from "node:fs";

const { what, input } = JSON.parse(readFileSync(0, "utf8"));
const load = (name) => import(new URL(`../../../client/web/${name}.js`, import.meta.url));

async function playback(cases) {
  const { JitterBuffer } = await load("jitter_buffer");
  return cases.map(({ steps }) => {
    const buffer = new JitterBuffer();
    return steps.flatMap(([kind, count, value]) => {
      if (kind === "push") return void buffer.push(new Float32Array(count).fill(value)) ?? [];
      const out = buffer.pull(count);
      const loud = out.filter((x) => Math.abs(x) > 1e-3).length;
      const { gaps, passed, waiting, dropped, target } = buffer;
      return [{ gaps, passed, waiting, dropped, target, loud, last: out.at(-1) }];
    });
  });
}

async function resample({ source, target, pieces }) {
  const { Resampler } = await load("resample");
  const resampler = new Resampler(source, target);
  return pieces.map((piece) => [...resampler.process(Float32Array.from(piece))]);
}

async function states(table) {
  const { name, SAYS } = await load("state");
  return { names: table.map(name), says: SAYS };
}

async function listen(levels) {
  const module = await load("state");
  let ear;
  return levels.map((level) => (ear = module.listen(level, ear)).voice);
}

async function conversation(events) {
  const { read } = await load("conversation");
  const turns = [];
  events.forEach((event, at) => read(turns, event, at));
  return turns;
}

async function talk(events) { // [time, event] each
  const { read, called, asLines, asSubtitles, asText, soFar, whole } = await load("conversation");
  const turns = [], seen = [], heard = [];
  for (const [now, event] of events) {
    const turn = event.type === "typed" ? whole(turns, "you", now, event.text, "typed") : read(turns, event, now, {}, heard);
    if (turn) seen.push(turn.now.trim());
  }
  const files = { text: asText(turns), lines: asLines(turns), subtitles: asSubtitles(turns) };
  return { turns, seen, names: turns.map(called), ...files, soFar: soFar(turns, 60) };
}

async function spread(turn) {
  (await load("conversation")).spread(turn);
  return turn.words.map(({ at }) => at);
}

async function afterClose(cases) {
  const module = await load("connection");
  return cases.map(module.afterClose);
}

const RUN = { talk, spread, afterClose, playback, resample, states, listen, conversation };
process.stdout.write(JSON.stringify(await RUN[what](input)));
