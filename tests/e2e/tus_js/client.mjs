// Runs one upload with tus-js-client as the JSON on the command line says; prints what happened.
//
// options: go to tus.Upload as they are.
// stream: read the file as a stream without a size; "web": one of those that browsers have.
// abortAt: abort once that many bytes were sent, and then start again: on the same URL, or, with
//   storage (a file for the URLs of unfinished uploads), on what that has of this file.
// terminate: end the upload on the server at that moment instead, and wait for so many replies.
// retryOn: the statuses (0: no reply) that onShouldRetry says yes to; null: the client decides.
// mayFail: an error is what happened, and no failure of the script.

import { createReadStream, readFileSync } from 'node:fs'
import { PassThrough, Readable } from 'node:stream'
import * as tus from 'tus-js-client'

const job = JSON.parse(process.argv[2])
const requests = []
const asked = []
const storage = job.storage ? new tus.FileUrlStorage(job.storage) : undefined
let whenDeleted = () => {}

function note(request, response) {
  const offset = response.getHeader('Upload-Offset')
  requests.push({
    method: request.getMethod(),
    path: new URL(request.getURL()).pathname,
    status: response.getStatus(),
    offset: offset ? Number(offset) : null,
    complete: response.getHeader('Upload-Complete') ?? null,
    concat: request.getHeader('Upload-Concat') ?? null,
  })
  if (request.getMethod() === 'DELETE') whenDeleted()
}

function decide(error) {
  const status = error.originalResponse ? error.originalResponse.getStatus() : 0
  asked.push(status)
  return job.retryOn.includes(status)
}

function run(input, extra, onProgress) {
  return new Promise((resolve, reject) => {
    const upload = new tus.Upload(input, {
      endpoint: job.endpoint,
      ...(storage ? { urlStorage: storage } : {}),
      ...(job.retryOn ? { onShouldRetry: decide } : {}),
      ...job.options,
      ...extra,
      onAfterResponse: note,
      onProgress: (sent) => onProgress?.(sent, upload, resolve),
      onSuccess: () => resolve(upload),
      onError: reject,
    })
    if (!storage) return upload.start()
    upload.findPreviousUploads().then((found) => {
      if (found.length > 0) upload.resumeFromPreviousUpload(found[0])
      upload.start()
    }, reject)
  })
}

function open() {
  // Piped, for tus-js-client 4.3.1 sends a wrong Content-Length for the end of an fs.ReadStream
  // whose length it is told to defer.
  if (job.stream === 'web') return Readable.toWeb(createReadStream(job.file))
  return job.stream ? createReadStream(job.file).pipe(new PassThrough()) : readFileSync(job.file)
}

function deletions(wanted) {
  return new Promise((resolve) => {
    whenDeleted = () => {
      if (requests.filter((one) => one.method === 'DELETE').length === wanted) resolve()
    }
    whenDeleted()
  })
}

async function runUntilAborted() {
  let busy = false
  let stopped = false
  const upload = await run(open(), {}, async (sent, running, resolve) => {
    if (busy || stopped || sent < job.abortAt) return
    busy = true
    // An upload of several requests is stored once each of them has a URL.
    const known = !storage || (await storage.findAllUploads()).length > 0
    busy = false
    if (!known) return
    stopped = true
    await running.abort(job.terminate != null)
    if (job.terminate != null) await deletions(job.terminate)
    resolve(running)
  })
  if (!stopped) throw new Error('the upload was complete before it could be aborted')
  return upload
}

async function act() {
  if (job.abortAt == null) return run(open(), {})
  const upload = await runUntilAborted()
  if (job.terminate != null) return upload
  return run(open(), storage ? {} : { uploadUrl: upload.url })
}

let url = null
let error = null
try {
  url = (await act()).url
} catch (exc) {
  if (!job.mayFail) throw exc
  error = String(exc)
}
console.log(JSON.stringify({ url, requests, asked, error }))
process.exit(0)
