// Numbers for people.
import { prettierBytes } from '@transloadit/prettier-bytes'

export const bytes = (count) => prettierBytes(count)

export const rate = (bytesPerSecond) => `${prettierBytes(bytesPerSecond)}/s`

/** Gives a length of time: "8 s", "3 min", "2 h 5 min". */
export function duration(seconds) {
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`
  const minutes = Math.round(seconds / 60)
  if (minutes < 60) return `${minutes} min`
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`
}

/** Gives a moment, with as much of the date as it needs. */
export function moment(milliseconds, now = Date.now()) {
  const [date, today] = [new Date(milliseconds), new Date(now)]
  const time = { hour: '2-digit', minute: '2-digit' }
  if (date.toDateString() === today.toDateString()) return `today, ${date.toLocaleTimeString([], time)}`
  const year = date.getFullYear() === today.getFullYear() ? undefined : 'numeric'
  return date.toLocaleString([], { day: 'numeric', month: 'short', year, ...time })
}
