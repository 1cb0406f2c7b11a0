// The settings: they are kept for the next visit, change a call that goes on, and follow the devices that there are.
import { PRESETS } from "./presets.js";
import { devices } from "./sound.js";

const find = (id) => document.getElementById(id);
const KEPT = ["voice", "instructions", "speed", "microphone", "loudspeaker"];

function option(value, text) {
  const made = document.createElement("option");
  [made.value, made.textContent] = [value, text];
  return made;
}

export function chosen() { // what session.start takes
  const instructions = find("instructions").value.trim();
  return { voice: find("voice").value, speed: Number(find("speed").value), ...(instructions && { instructions }) };
}

export function devicesChosen() {
  return [find("microphone").value, find("loudspeaker").value];
}

export function wantsPush() {
  return find("push").checked;
}

// change: {voice(), instructions(), devices(), push()}, called when the user has chosen anew
export function setUp(change) {
  find("persona").append(option("", "Own"), ...PRESETS.map(({ name }) => option(name, name)));
  load();
  find("persona").addEventListener("change", () => {
    const preset = PRESETS.find(({ name }) => name === find("persona").value);
    if (!preset) return;
    for (const name of ["instructions", "voice", "speed"]) find(name).value = preset[name];
    save();
    change.voice();
    change.instructions();
  });
  const on = (id, call) => find(id).addEventListener("change", () => { mark(); save(); call(); });
  on("voice", change.voice);
  on("speed", change.voice);
  on("instructions", change.instructions);
  on("microphone", change.devices);
  on("loudspeaker", change.devices);
  on("push", change.push);
  find("speakers").hidden = !("setSinkId" in (globalThis.AudioContext?.prototype ?? {}));
  navigator.mediaDevices?.addEventListener("devicechange", showDevices);
}

function mark() { // the persona that these settings are
  const { voice, speed, instructions = "" } = chosen();
  const same = PRESETS.find((one) => one.instructions === instructions && one.voice === voice && one.speed === speed);
  find("persona").value = same?.name ?? "";
}

export async function showDevices() { // their names are known once the microphone may be used
  const { inputs, outputs } = await devices();
  for (const [id, list] of [["microphone", inputs], ["loudspeaker", outputs]]) {
    const select = find(id), wanted = select.value || select.dataset.wanted || "";
    select.replaceChildren(option("", "As the system has it"), ...list.map((one) => option(one.id, one.name)));
    select.value = list.some((one) => one.id === wanted) ? wanted : "";
  }
}

function save() {
  try {
    const kept = { ...Object.fromEntries(KEPT.map((id) => [id, find(id).value])), push: find("push").checked };
    localStorage.setItem("duplex.settings", JSON.stringify(kept));
  } catch { /* not kept, then */ }
}

function load() {
  let kept = {};
  try {
    kept = JSON.parse(localStorage.getItem("duplex.settings")) ?? {};
  } catch { /* as they are */ }
  for (const id of KEPT) {
    if (!(id in kept)) continue;
    find(id).dataset.wanted = kept[id];
    if (find(id).tagName !== "SELECT" || [...find(id).options].some(({ value }) => value === kept[id])) find(id).value = kept[id];
  }
  find("push").checked = kept.push === true;
  mark();
  showDevices();
}
