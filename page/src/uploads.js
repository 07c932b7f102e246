// The list of what this browser uploaded. It is in local storage and nowhere else, one entry for each upload, so
// that tabs do not overwrite each other's.

const PREFIX = 'tus_server:upload:'
const BEAT_MS = 3000
const SILENT_MS = 10_000 // after which a tab that was sending is taken for closed
const KEPT = 200

export const OPEN = 'open' // not all bytes there, as far as this browser knows
export const FAILED = 'failed'
export const DONE = 'done'
export const GONE = 'gone' // from the server; known by asking

/**
 * Entries: {key, endpoint, fileId, name, size, relativePath, state, url, sent, resumedFrom, startedAt, finishedAt,
 * beatAt, expiresAt, problem, note, average}. `live` is what only this tab knows: {phase, speed, ...}, while it is sending.
 */
export class Uploads {
  #entries = new Map()
  #live = new Map()
  #changed
  #endpoint

  constructor(endpoint, changed) {
    this.#endpoint = endpoint
    this.#changed = changed
    for (const text of read()) this.#take(text)
    this.#prune()
    window.addEventListener('storage', ({ key, newValue }) => {
      if (!key?.startsWith(PREFIX)) return
      if (newValue === null) this.#entries.delete(key.slice(PREFIX.length))
      else this.#take(newValue)
      changed()
    })
    setInterval(() => this.#beat(Date.now()), BEAT_MS)
    // What a closing tab was sending can be gone on with at once.
    window.addEventListener('pagehide', () => this.#beat(0))
  }

  /** Gives all entries, the newest first, each with `live` or null. */
  all() {
    return [...this.#entries.values()]
      .map((entry) => ({ ...entry, live: this.#live.get(entry.key) ?? null }))
      .sort((one, other) => other.startedAt - one.startedAt)
  }

  find(key) {
    return this.#entries.get(key)
  }

  /** Gives the upload of this file that can be gone on with. */
  findOpen(fileId) {
    return this.all().find((entry) => entry.fileId === fileId && [OPEN, FAILED].includes(entry.state))
  }

  isElsewhere(entry) {
    return entry.state === OPEN && !this.#live.has(entry.key) && Date.now() - entry.beatAt < SILENT_MS
  }

  /** Begins an upload in this tab, or goes on with one; gives its key. */
  begin(file) {
    const known = this.findOpen(file.id)
    const key = known?.key ?? Math.random().toString(36).slice(2)
    this.#live.set(key, { phase: 'queued', sent: known?.sent ?? 0, speed: null })
    const changes = { state: OPEN, problem: null, note: null, beatAt: Date.now() }
    const fresh = {
      key,
      endpoint: this.#endpoint,
      fileId: file.id,
      name: file.name,
      size: file.size,
      relativePath: file.meta.relativePath ?? null,
      url: null,
      sent: 0,
      resumedFrom: 0,
      startedAt: Date.now(),
    }
    this.#put({ ...(this.#entries.get(key) ?? fresh), ...changes })
    return key
  }

  update(key, changes) {
    const entry = this.#entries.get(key)
    if (entry) this.#put({ ...entry, ...changes })
  }

  /** Changes what only this tab knows; nothing is written. */
  setLive(key, changes) {
    const live = this.#live.get(key)
    if (live) Object.assign(live, changes)
    this.#changed()
  }

  live(key) {
    return this.#live.get(key)
  }

  /** Ends the work of this tab on an upload. */
  end(key, changes) {
    this.#live.delete(key)
    this.update(key, { beatAt: 0, ...changes })
  }

  remove(key) {
    this.#live.delete(key)
    this.#entries.delete(key)
    write(key, null)
    this.#changed()
  }

  #put(entry) {
    this.#entries.set(entry.key, entry)
    write(entry.key, entry)
    this.#changed()
  }

  #take(text) {
    const entry = parse(text)
    if (entry?.endpoint === this.#endpoint) this.#entries.set(entry.key, entry)
  }

  #beat(beatAt) {
    for (const [key, live] of this.#live) this.update(key, { beatAt, sent: live.sent })
    this.#changed() // other tabs may have fallen silent
  }

  #prune() {
    const finished = this.all().filter((entry) => entry.state === DONE || entry.state === GONE)
    for (const entry of finished.slice(KEPT)) this.remove(entry.key)
  }
}

/** Forgets where tus-js-client would go on with an upload. */
export function forget(url) {
  try {
    for (const key of Object.keys(localStorage)) {
      if (key.startsWith('tus::') && parse(localStorage.getItem(key))?.uploadUrl === url) localStorage.removeItem(key)
    }
  } catch {
    // No local storage here: then there is nothing to forget.
  }
}

function read() {
  try {
    return Object.keys(localStorage)
      .filter((key) => key.startsWith(PREFIX))
      .map((key) => localStorage.getItem(key))
  } catch {
    return []
  }
}

function write(key, entry) {
  try {
    if (entry === null) localStorage.removeItem(PREFIX + key)
    else localStorage.setItem(PREFIX + key, JSON.stringify(entry))
  } catch {
    // Forbidden or full: the list then lasts as long as the page.
  }
}

function parse(text) {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}
