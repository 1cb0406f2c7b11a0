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
    Object.assign(this, { list, scroll, announce, play, items: new Map(), follows: true, top: 0 });
    scroll.addEventListener("scroll", () => this.#look());
    new ResizeObserver(() => this.#keepEnd()).observe(scroll); // settings were opened, or a phone turned
  }

  clear() {
    this.list.replaceChildren();
    this.items.clear();
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
    if (isEmpty(turn) && !turn.open) return void this.items.get(turn)?.item.remove();
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
    if (!turn.open && !parts.told) { // a screen reader is told whole turns
      parts.told = true;
      this.announce.append(element("p", "", `${called(turn)}: ${turn.now}${turn.ahead} ${turn.unsaid ? "(interrupted)" : turn.note}`));
      while (this.announce.children.length > 20) this.announce.firstChild.remove();
    }
  }

  #add(turn) {
    const item = document.createElement("li"), text = document.createElement("p"), margin = element("div", "margin");
    const parts = { item, who: element("b", "", called(turn)), time: element("button", "play"), now: element("span", ""), ahead: element("span", "ahead") };
    Object.assign(parts, { unsaid: element("s", ""), small: element("small", "") });
    parts.time.addEventListener("click", () => this.play(turn, parts.time));
    parts.time.type = "button";
    margin.append(parts.who, parts.time);
    text.append(parts.now, parts.ahead, parts.unsaid, " ", parts.small);
    item.append(margin, text);
    this.list.append(item);
    this.items.set(turn, parts);
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
