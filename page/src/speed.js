// How fast bytes go: now, over the last seconds; and on average, breaks not counted.

const WINDOW_MS = 5000
const LONGEST_STEP_MS = 2000 // what is longer was a break

export class Speed {
  #steps = [] // [milliseconds, bytes] of each sign of progress in the window
  #sentBytes = 0
  #sendingMs = 0

  add(bytes, now = performance.now()) {
    const last = this.#steps.at(-1)
    if (last && (bytes < last[1] || now - last[0] > LONGEST_STEP_MS)) {
      this.#steps = []
    } else if (last) {
      this.#sentBytes += bytes - last[1]
      this.#sendingMs += now - last[0]
    }
    this.#steps.push([now, bytes])
    while (now - this.#steps[0][0] > WINDOW_MS) this.#steps.shift()
  }

  /** Bytes per second, null while there is too little to tell. */
  get current() {
    if (this.#steps.length < 2) return null
    const [from, until] = [this.#steps[0], this.#steps.at(-1)]
    const ms = until[0] - from[0]
    return ms < 300 || until[1] === from[1] ? null : ((until[1] - from[1]) * 1000) / ms
  }

  get average() {
    return this.#sendingMs < 300 ? null : (this.#sentBytes * 1000) / this.#sendingMs
  }
}
