// What the page itself asks the server about entries of the list.
import { DONE, FAILED, GONE, OPEN, forget } from './uploads.js'

const CHECKED = 20 // finished uploads, the newest

const asked = new Set() // keys of interrupted uploads whose state is known

/**
 * Asks how much of each interrupted upload is stored; again later where there was no answer.
 * isChosen: tells whether this tab has the file of an entry, and so finds out by itself.
 */
export async function checkInterrupted(uploads, isChosen) {
  for (const entry of uploads.all()) {
    const { key, url } = entry
    // Never of one that a tab is sending: HEAD takes it over.
    if (entry.live || uploads.isElsewhere(entry) || isChosen(entry)) asked.delete(key)
    else if ([OPEN, FAILED].includes(entry.state) && url !== null && !asked.has(key)) {
      const response = await ask(url, { method: 'HEAD', headers: { 'Tus-Resumable': '1.0.0' } })
      if (response === null || response.status === 423 || uploads.live(key)) continue
      asked.add(key)
      take(uploads, uploads.find(key) ?? entry, response)
    }
  }
}

function take(uploads, { key, url, size }, response) {
  if (response.ok) {
    const told = response.headers.get('Upload-Offset')
    if (told === null) return // not our server: a captive portal
    const sent = Number(told)
    const expiresAt = Date.parse(response.headers.get('Upload-Expires')) || null
    uploads.update(key, { sent, expiresAt })
    if (sent !== size) return
    // The last byte had arrived, only its reply had not.
    uploads.update(key, { state: DONE, finishedAt: Date.now(), problem: null })
    forget(url)
  } else if (response.status === 404 || response.status === 410) {
    uploads.update(key, { state: GONE })
    forget(url)
  }
}

/** Finds out which finished uploads are no longer there. */
export async function checkFinished(uploads) {
  const finished = uploads.all().filter((entry) => entry.state === DONE)
  for (const { key, url } of finished.slice(0, CHECKED)) {
    const response = await ask(url, { method: 'HEAD', redirect: 'manual' })
    if (response?.status === 404 || response?.status === 410) uploads.update(key, { state: GONE })
  }
}

/** Deletes an interrupted upload, on the server too if that can be reached. */
export async function discard(uploads, entry) {
  uploads.remove(entry.key)
  if (entry.url === null) return
  forget(entry.url)
  await ask(entry.url, { method: 'DELETE', headers: { 'Tus-Resumable': '1.0.0' } })
}

/** Gives the response, null without one. */
async function ask(url, options) {
  try {
    return await fetch(url, { cache: 'no-store', ...options })
  } catch {
    return null
  }
}
