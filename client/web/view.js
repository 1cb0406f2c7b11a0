// The turns as a list on the page: each turn is one item, changed in place.
import { called, clock, isEmpty, written } from "./conversation.js";

function element(name, className, text = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

function set(node, text) { // only where it differs: nothing flickers
  if (node.textContent !== text) node.textContent = text;
}

export class View {
  constructor(list, scroll, announce, play) { // play(turn, button): its time was pressed
    Object.assign(this, { list, scroll, announce, play, items: new Map(), follows: true, top: 0, mayPlay: true, reached: null });
    scroll.addEventListener("scroll", () => this.#look());
    list.addEventListener("keydown", (event) => this.#walk(event));
    new ResizeObserver(() => this.#keepEnd()).observe(scroll); // settings were opened, or a phone turned
  }

  clear() {
    this.list.replaceChildren();
    this.items.clear();
    this.reached = null;
  }

  letPlay(may) { // whether turns can be played, and by keyboard reached: one by Tab, the others from it by arrows
    this.mayPlay = may;
    this.#reach(this.reached);
  }

  #reach(button) {
    if (this.reached) this.reached.tabIndex = -1;
    this.reached = button;
    if (button) button.tabIndex = this.mayPlay ? 0 : -1;
  }

  #walk(event) {
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!step || event.target !== this.reached) return;
    event.preventDefault();
    const all = [...this.list.querySelectorAll(".play")], next = all[all.indexOf(this.reached) + step];
    if (!next) return;
    this.#reach(next);
    next.focus();
  }

  rule(text) { // a line across: a new call, a restart
    this.list.append(element("li", "rule", text));
    this.#keepEnd();
  }

  show(turn) {
    if (turn.who === "rule") return this.rule(turn.now);
    this.#update(turn);
    this.#keepEnd();
  }

  #update(turn) {
    if (isEmpty(turn) && !turn.open) return this.#remove(turn); // it may come back with a late word
    const parts = this.items.get(turn) ?? this.#add(turn);
    parts.item.className = `${turn.who}${turn.open ? " open" : ""}`;
    set(parts.time, clock(turn.start));
    parts.time.setAttribute("aria-label", `Play from ${clock(turn.start)}`);
    set(parts.who, called(turn));
    if (turn.speaker) parts.item.dataset.speaker = turn.speaker;
    set(parts.now, written(turn.now.trimStart()));
    set(parts.ahead, turn.ahead);
    parts.ahead.className = turn.open ? "ahead" : "";
    set(parts.unsaid, turn.unsaid);
    const latency = turn.latency === null ? "" : `${turn.latency.toFixed(2)} s`;
    set(parts.small, [turn.note && `(${turn.note})`, latency].filter(Boolean).join(" "));
    if (!turn.open && !parts.told && turn.who === "agent") { // a screen reader is told whole turns, and nobody what he has said
      parts.told = true;
      this.announce.append(element("p", "", `${called(turn)}: ${turn.now}${turn.ahead} ${turn.unsaid ? "(interrupted)" : turn.note}`));
      while (this.announce.children.length > 20) this.announce.firstChild.remove();
    }
  }

  #remove(turn) {
    this.items.get(turn)?.item.remove();
    this.items.delete(turn);
    if (!this.reached?.isConnected) this.#reach([...this.list.querySelectorAll(".play")].at(-1) ?? null);
  }

  #add(turn) {
    const item = document.createElement("li"), text = document.createElement("p"), margin = element("div", "margin");
    const parts = { item, who: element("b", "", called(turn)), time: element("button", "play"), now: element("span", ""), ahead: element("span", "ahead") };
    Object.assign(parts, { unsaid: element("s", ""), small: element("small", "") });
    parts.time.addEventListener("click", () => this.play(turn, parts.time));
    [parts.time.type, parts.time.tabIndex] = ["button", -1];
    margin.append(parts.who, parts.time);
    text.append(parts.now, parts.ahead, parts.unsaid, " ", parts.small);
    item.append(margin, text);
    this.list.append(item);
    this.items.set(turn, parts);
    this.#reach(parts.time);
    return parts;
  }

  #look() { // an event may come when more has been written below: only who goes up leaves the end
    const { scroll } = this, wentUp = scroll.scrollTop < this.top;
    this.top = scroll.scrollTop;
    if (scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 60) this.follows = true;
    else if (wentUp) this.follows = false;
  }

  #keepEnd() { // follows the end, unless the reader has scrolled up
    if (this.follows) this.scroll.scrollTop = this.scroll.scrollHeight;
  }
}
