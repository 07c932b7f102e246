// Uppy on this page, and what its uploads tell the list.
import Uppy from '@uppy/core'
import Dashboard from '@uppy/dashboard'
import Tus from '@uppy/tus'

import { bytes } from './format.js'
import { Speed } from './speed.js'
import { DONE, FAILED, OPEN } from './uploads.js'
import { explain } from './words.js'

// The count begins again whenever bytes got through, so this is the longest outage that is waited for: four hours.
const RETRY_DELAYS_MS = [100, 500, 1000, 2000, 3000, ...Array(2880).fill(5000)]
// A browser has six connections to a server: the page needs some of them.
const PARALLEL = 3
const SAVE_MS = 1000

/**
 * maxSize: in bytes, null without a limit. links: whether finished uploads can be fetched. changed: called when files
 * come and go that are not in the list.
 */
export function makeUploader({ target, endpoint, maxSize, links, uploads, changed }) {
  const uppy = new Uppy({ id: 'tus_server', restrictions: { maxFileSize: maxSize } })
    .use(Dashboard, {
      target,
      inline: true,
      width: '100%',
      height: 340,
      theme: 'auto',
      fileManagerSelectionType: 'both',
      singleFileFullScreen: false,
      hideProgressDetails: true, // the list has them, with the speed
      proudlyDisplayPoweredByUppy: false,
      showLinkToFileUploadResult: links,
      note: maxSize && `Files of up to ${bytes(maxSize)}`,
      locale: { strings: { dashboardTitle: 'Choose files and upload them' } },
    })
    .use(Tus, {
      endpoint,
      retryDelays: RETRY_DELAYS_MS,
      limit: PARALLEL,
      // A file that is uploaded once more becomes an upload of its own.
      removeFingerprintOnSuccess: true,
      allowedMetaFields: ['name', 'type'],
    })
  const keys = new Map() // of list entries, by Uppy's id of the file

  uppy.on('file-added', (file) => {
    uppy.setFileState(file.id, { tus: hooks(file.id) })
    changed() // an interrupted upload of it can go on now
  })
  uppy.on('upload-start', (files) => {
    for (const file of files) keys.set(file.id, uploads.begin(file))
  })
  uppy.on('upload-progress', (file, { bytesUploaded, bytesTotal }) => {
    const live = uploads.live(keys.get(file?.id))
    if (!live || live.phase === 'paused') return
    live.speed ??= new Speed()
    live.speed.add(bytesUploaded)
    // tus-js-client reports the offset again before each attempt: that alone is no sign of life.
    const moves = bytesUploaded > live.sent
    const phase = bytesUploaded === bytesTotal ? 'storing' : moves || live.phase === 'queued' ? 'sending' : live.phase
    uploads.setLive(keys.get(file.id), { sent: bytesUploaded, phase })
    if (!(Date.now() - live.savedAt < SAVE_MS)) {
      live.savedAt = Date.now()
      uploads.update(keys.get(file.id), { sent: bytesUploaded })
    }
  })
  uppy.on('upload-success', (file, { uploadURL }) => {
    const key = keys.get(file.id)
    const average = uploads.live(key)?.speed?.average ?? null
    const finished = { state: DONE, url: uploadURL, sent: file.size, finishedAt: Date.now(), average, expiresAt: null }
    uploads.end(key, finished)
  })
  uppy.on('upload-error', (file, error, response) => {
    const xhr = response?.body?.xhr
    const problem = explain({ status: response?.status ?? 0, body: textOf(xhr), online: navigator.onLine })
    uploads.end(keys.get(file.id), { state: FAILED, problem })
  })
  uppy.on('upload-pause', (file, isPaused) => pause(file.id, isPaused))
  uppy.on('pause-all', () => keys.forEach((_, fileId) => pause(fileId, true)))
  uppy.on('resume-all', () => keys.forEach((_, fileId) => pause(fileId, false)))
  uppy.on('file-removed', (file) => {
    const key = keys.get(file.id)
    const entry = uploads.find(key)
    keys.delete(file.id)
    // Uppy deletes on the server what it was sending. What had failed before is still there.
    if (uploads.live(key)) uploads.remove(key)
    else if (entry?.state === FAILED && entry.url === null) uploads.remove(key)
    else if (entry?.state === FAILED) uploads.update(key, { state: OPEN })
    else changed()
  })

  function pause(fileId, isPaused) {
    const live = uploads.live(keys.get(fileId))
    if (live) uploads.setLive(keys.get(fileId), { phase: isPaused ? 'paused' : 'queued', speed: null })
  }

  /** What tus-js-client tells of the requests of one file. */
  function hooks(fileId) {
    return {
      onAfterResponse(request, response) {
        const key = keys.get(fileId)
        const [method, status] = [request.getMethod(), response.getStatus()]
        const expires = Date.parse(response.getHeader('Upload-Expires'))
        if (expires) uploads.update(key, { expiresAt: expires })
        if (method === 'POST' && status === 201) {
          const url = new URL(response.getHeader('Location'), endpoint).href
          uploads.update(key, { url, sent: 0, resumedFrom: 0 })
          uploads.setLive(key, { sent: 0 })
        } else if (method === 'HEAD' && status < 300) {
          const offset = Number(response.getHeader('Upload-Offset'))
          uploads.update(key, { url: request.getURL(), sent: offset, resumedFrom: offset })
          uploads.setLive(key, { sent: offset, speed: null })
        } else if (method === 'HEAD' && status !== 423) {
          // tus-js-client now creates a new upload without a word.
          const { what } = explain({ status, body: '' })
          uploads.update(key, { note: `${what} It starts again from the beginning.` })
        }
      },
      onShouldRetry(error, attempt, options, usually) {
        const repeats = usually(error)
        const response = error.originalResponse
        if (repeats) {
          const answer = { status: response?.getStatus() ?? 0, body: response?.getBody() ?? '', online: navigator.onLine }
          uploads.setLive(keys.get(fileId), { phase: 'waiting', speed: null, reason: explain(answer) })
        }
        return repeats
      },
      onError(error) {
        const xhr = error.originalResponse?.getUnderlyingObject?.() ?? error.request
        const { what, todo } = explain({ status: xhr?.status ?? 0, body: textOf(xhr), online: navigator.onLine })
        error.message = `${what} ${todo}` // Uppy shows it
      },
    }
  }

  return uppy
}

function textOf(xhr) {
  return typeof xhr?.response === 'string' ? xhr.response : ''
}
