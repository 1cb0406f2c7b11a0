// The sound of a conversation kept over a reload of its tab, in IndexedDB: a second of both voices is one entry. Where
// there is none, a private window for example, nothing is kept.
const STORE = "seconds", TICKS = 12, KEPT_MS = 24 * 3600e3; // what a closed tab has left goes after a day

export class SoundStore {
  constructor(id) { // when the tab's conversation began, milliseconds since 1970; it is the key's first part
    Object.assign(this, { id, count: 0, waiting: [] });
    this.opened = open().then((database) => (this.database = database), () => null);
    this.#write((store) => store.delete(IDBKeyRange.upperBound([Date.now() - KEPT_MS])));
  }

  add(you, agent) { // a tick of each, ArrayBuffers
    if (this.waiting.push([you, agent]) >= TICKS) this.flush();
  }

  flush() {
    const ticks = this.waiting;
    this.waiting = [];
    if (ticks.length) this.#write((store) => store.put(ticks, [this.id, this.count++]));
  }

  async load() { // all ticks so far, [[you, agent]]
    const database = await this.opened;
    if (!database) return [];
    const entries = await result(database.transaction(STORE).objectStore(STORE).getAll(this.#mine())).catch(() => []);
    this.count = entries.length;
    return entries.flat();
  }

  clear() {
    [this.waiting, this.count] = [[], 0];
    this.#write((store) => store.delete(this.#mine()));
  }

  #mine() {
    return IDBKeyRange.bound([this.id], [this.id, []]);
  }

  #write(change) { // at once where it can be: a page that goes away waits for nothing
    if (this.database) write(this.database, change);
    else this.opened.then((database) => database && write(database, change));
  }
}

function write(database, change) {
  const transaction = database.transaction(STORE, "readwrite");
  change(transaction.objectStore(STORE)).onerror = (event) => event.preventDefault(); // full
  transaction.commit?.(); // else it goes back where the page has gone before it was told
}

function open() {
  const request = indexedDB.open("duplex", 1);
  request.onupgradeneeded = () => request.result.createObjectStore(STORE);
  return result(request);
}

function result(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
